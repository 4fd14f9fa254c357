// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
)

// lifetime is that of what must still be valid when the record is read in years.
const lifetime = 100 * 365 * 24 * time.Hour

// mount is an engine with a tenant of its own.
type mount struct {
	sim     *graphtest.Simulator
	served  chan error
	storage *logical.InmemStorage
	logical.Backend
	leases []upgradetest.Lease
}

func newMount(ctx context.Context) (*mount, error) {
	sim, err := graphtest.New()
	if err != nil {
		return nil, err
	}
	ln, err := sim.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &mount{sim: sim, served: make(chan error, 1), storage: &logical.InmemStorage{}}
	go func() { m.served <- sim.Serve(ln) }()
	m.Backend, err = backend.Factory(ctx, &logical.BackendConfig{
		StorageView: m.storage,
		Logger:      hclog.NewNullLogger(),
		System: &logical.StaticSystemView{
			DefaultLeaseTTLVal: time.Hour,
			MaxLeaseTTLVal:     24 * time.Hour,
		},
	})
	return m, err
}

// leave stops the engine and returns what it has left behind.
func (m *mount) leave(ctx context.Context) (upgradetest.State, error) {
	state := upgradetest.State{
		At:          time.Now().UTC().Truncate(time.Second),
		Tenant:      m.sim.Info(),
		Credentials: m.sim.Credentials(),
		Key:         m.sim.Key(),
		Leases:      m.leases,
		Answers:     map[string]map[string]any{},
	}
	for _, path := range []string{"config", "roles/" + role, "status"} {
		resp, err := m.request(ctx, logical.ReadOperation, path, nil)
		if err != nil {
			return state, err
		}
		if resp != nil {
			state.Answers[path] = resp.Data
		}
	}
	m.Cleanup(ctx)
	var err error
	state.Storage, err = upgradetest.Dump(ctx, m.storage)
	return state, errors.Join(err, m.sim.Close(), <-m.served)
}

// configure writes a configuration for the tenant, changed by others; nil leaves a
// field out.
func (m *mount) configure(ctx context.Context, changes map[string]any) error {
	info := m.sim.Info()
	fields := map[string]any{
		"tenant_id":      info.TenantID,
		"client_id":      info.ClientID,
		"client_secret":  info.ClientSecret,
		"graph_endpoint": info.URL,
		"authority_host": info.URL,
		"ca_certificate": info.CACertificate,
	}
	for name, value := range changes {
		if fields[name] = value; value == nil {
			delete(fields, name)
		}
	}
	return m.do(ctx, logical.CreateOperation, "config", fields)
}

// lease reads a key, and keeps the lease as Vault does.
func (m *mount) lease(ctx context.Context, path string) error {
	resp, err := m.request(ctx, logical.ReadOperation, path, nil)
	if err != nil {
		return err
	}
	stored, err := json.Marshal(resp.Secret)
	if err != nil {
		return err
	}
	l := upgradetest.Lease{Path: path, Key: resp.Data["deployment_access_key"].(string)}
	if err := json.Unmarshal(stored, &l.Secret); err != nil {
		return err
	}
	m.leases = append(m.leases, l)
	return nil
}

func (m *mount) do(ctx context.Context, op logical.Operation, path string, fields map[string]any) error {
	_, err := m.request(ctx, op, path, fields)
	return err
}

// refused is for what must fail.
func (m *mount) refused(ctx context.Context, op logical.Operation, path string) error {
	if err := m.do(ctx, op, path, nil); err == nil {
		return fmt.Errorf("%s %s succeeds", op, path)
	}
	return nil
}

func (m *mount) request(ctx context.Context, op logical.Operation, path string, fields map[string]any) (*logical.Response, error) {
	resp, err := m.HandleRequest(ctx, &logical.Request{Operation: op, Path: path, Data: fields, Storage: m.storage, MountPoint: "mdi/"})
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", op, path, err)
	}
	return resp, nil
}
