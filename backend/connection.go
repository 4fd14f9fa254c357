// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// connection is a configuration and the Graph client that was made of it. It is
// not changed once made: who took one before a configuration write goes on with
// the old one.
type connection struct {
	config *config
	graph  *graph.Client
}

// connections owns the current connection, so that one client, with its token,
// serves for the life of a configuration.
type connections struct {
	// logger and system are asked for late, since a backend gets them at Setup.
	logger func() hclog.Logger
	system func() logical.SystemView

	mu      sync.Mutex
	current *connection
}

// get returns the current connection, or errUnconfigured.
func (c *connections) get(ctx context.Context, s logical.Storage) (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		return c.current, nil
	}
	cfg, err := loadConfig(ctx, s)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, errUnconfigured
	}
	conn, err := c.dial(cfg)
	if err != nil {
		return nil, err
	}
	c.current = conn
	return conn, nil
}

// dial makes a connection of cfg without making it the current one. It sends
// nothing yet. What the surroundings do not allow any more is refused here too: a
// configuration may have been stored when they did.
func (c *connections) dial(cfg *config) (*connection, error) {
	if err := cfg.checkHosts(); err != nil {
		return nil, err
	}
	client, err := graph.New(cfg.graphConfig(c.logger(), c.system))
	if err != nil {
		return nil, err
	}
	return &connection{config: cfg, graph: client}, nil
}

// save stores the configuration of conn and makes conn the current one.
func (c *connections) save(ctx context.Context, s logical.Storage, conn *connection) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Dropped first: a failed write may have been carried out nevertheless, and
	// then what holds is what storage says at the next request.
	c.current = nil
	if err := storeConfig(ctx, s, conn.config); err != nil {
		return err
	}
	c.current = conn
	return nil
}

// remove deletes the stored configuration.
func (c *connections) remove(ctx context.Context, s logical.Storage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
	return s.Delete(ctx, configStorageKey)
}

// forget drops the current connection; the next get reads the storage.
func (c *connections) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
}
