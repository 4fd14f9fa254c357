// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/status"
)

const (
	statusPath = event.PathStatus

	statusHelpSynopsis = `Read the state of the engine, without any secret.`

	statusHelpDescription = `
It is read from storage alone, so it answers whatever state Graph is in. What has no
value is left out. Alert on state, which begins with the worst of what is wrong: ok,
attention, failing or unconfigured.
`
)

func pathStatus() *framework.Path {
	return path(statusPath+"$", statusHelpSynopsis, statusHelpDescription, map[logical.Operation]framework.OperationHandler{
		logical.ReadOperation: forwarded("read status", (*backend).statusRead, "Read the state of the engine.", returning("The state of the engine.", status.Fields())),
	})
}

// statusRead serves GET mdi/status. It asks storage only, so it answers whatever state
// Graph is in, and if single entries cannot be decoded.
func (b *backend) statusRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	s := status.State{Due: []string{}, Now: b.now()}
	load := func(name string, unreadable error, load func() error) error {
		err := load()
		if errors.Is(err, unreadable) {
			s.Unreadable, err = append(s.Unreadable, name), nil
		}
		return err
	}
	err := errors.Join(
		load(config.StorageKey, config.ErrUnreadable, func() (err error) { s.Config, err = b.configs.Stored(ctx); return err }),
		load(accesskey.StorageKey, accesskey.ErrUnreadable, func() (err error) { s.Record, s.Due, s.Leases, err = keyState(ctx, b.keys); return err }),
		load(health.StorageKey, health.ErrUnreadable, func() (err error) { s.Report, err = b.health.Report(ctx); return err }),
	)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: status.Read(s)}, nil
}

// keyState returns the record of the key, what is due with it and how many leases on it
// are live.
func keyState(ctx context.Context, keys *accesskey.Store) (rec accesskey.Record, due []string, leases int, err error) {
	if rec, due, err = keys.Due(ctx); err != nil {
		return rec, []string{}, 0, err
	}
	leases, err = keys.Live(ctx)
	return rec, due, leases, err
}
