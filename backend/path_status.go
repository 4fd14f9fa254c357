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

var pathStatus = path(event.PathStatus, `Read the state of the engine, without any secret.`, `
It is read from storage alone, so it answers whatever state Graph is in. What has no
value is left out. Alert on state, which begins with the worst of what is wrong: ok,
attention, failing or unconfigured.
`, nil, operations{
	logical.ReadOperation: forwarded("read status", (*backend).statusRead, "Read the state of the engine.", returning("The state of the engine.", new(status.State).Fields())),
})

// statusRead serves GET mdi/status. It asks storage only, so it answers whatever state
// Graph is in, and if single entries cannot be decoded.
func (b *backend) statusRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	s := status.State{Now: b.now()}
	var errs [3]error
	s.Config, errs[0] = b.configs.Stored(ctx)
	if s.Record, s.Due, errs[1] = b.keys.Due(ctx); errs[1] == nil {
		s.Leases, errs[1] = b.keys.Live(ctx)
	}
	s.Report, errs[2] = b.health.Report(ctx)
	keys := []string{config.StorageKey, accesskey.StorageKey, health.StorageKey}
	for i, unreadable := range []error{config.ErrUnreadable, accesskey.ErrUnreadable, health.ErrUnreadable} {
		if errors.Is(errs[i], unreadable) {
			s.Unreadable, errs[i] = append(s.Unreadable, keys[i]), nil
		}
	}
	return shown(&s, (*status.State).Fields, errors.Join(errs[:]...))
}
