// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
)

const configPath = event.PathConfig

var errNothingToPatch = logical.CodedError(http.StatusNotFound, "there is no configuration to patch; create it with a write")

var configStored = returningNothing("The configuration has been stored.")

var pathConfig = path(configPath, `Configure the tenant, the app registration and the lease of the key.`, `
The app registration needs the application permission
SecurityIdentitiesSensors.ReadWrite.All of Microsoft Graph, with an
administrator's consent. A write keeps the fields that it does not name; an empty
value restores a default. When it changes how Graph is reached or carries a
credential, the engine signs in and calls Graph before it stores anything (see
verify_connection).

Changing the tenant, the client, the cloud, an endpoint or the CA certificate
needs the credential in the same write. Before the engine turns to another tenant,
and before the configuration is deleted, a key that has been handed out is
regenerated with the old configuration; if that fails, the response warns that the key
lives on. Credentials that rotate-root has made stay at the app then; the response names
their ids. The credential is never read back.
`, new(config.Config).Fields(), operations{
	logical.CreateOperation: forwarded("configure configuration", (*backend).configWrite, "Store the configuration.", configStored),
	logical.UpdateOperation: forwarded("configure configuration", (*backend).configWrite, "Change the configuration; fields that are not named keep their value.", configStored),
	logical.PatchOperation:  forwarded("patch configuration", (*backend).configWrite, "Change the named fields of the configuration; null restores a default.", configStored),
	logical.ReadOperation: local("read configuration", (*backend).configRead, "Read the configuration, without its secrets.",
		returning("The configuration.", new(config.Config).Fields())),
	logical.DeleteOperation: forwarded("delete configuration", (*backend).configDelete, "Retire a key that has been handed out, and delete the configuration.",
		returningNothing("There is no configuration.")),
})

// configRead serves GET mdi/config.
func (b *backend) configRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	cfg, err := b.configs.Stored(ctx)
	return shown(cfg, (*config.Config).Fields, err)
}

// configWrite serves POST and PATCH mdi/config.
func (b *backend) configWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if req.Operation == logical.PatchOperation {
		if cfg, err := b.configs.Stored(ctx); cfg == nil {
			return nil, cmp.Or[error](err, errNothingToPatch)
		}
	}
	tried, err := b.configs.Try(ctx, d)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{}
	// After an error resp may still be written: nobody looks at it.
	return resp, b.flights.Alone(ctx, flight.Configuration, func(ctx context.Context) error { return b.replaceConfig(ctx, req, d, tried, resp) })
}

// replaceConfig stores what the fields of d make of the configuration; tried is what they
// made of it before. It runs alone: nothing can regenerate the key with the old
// configuration and store it under the new one.
func (b *backend) replaceConfig(ctx context.Context, req *logical.Request, d *framework.FieldData, tried *config.Connection, resp *logical.Response) error {
	old, conn, err := b.configs.Resolve(ctx, d, tried)
	if err == nil && old == nil && req.Operation == logical.PatchOperation {
		err = errNothingToPatch // it has been deleted meanwhile
	}
	if err != nil {
		return err
	}
	next := conn.Config
	save := func() error { return b.configs.Save(ctx, conn) }
	if tried.Verified || !old.SameConnection(next) {
		save = func() error { return b.health.Replace(ctx, func() error { return b.configs.Save(ctx, conn) }) }
	}
	livesOn := ""
	if old != nil && old.Policy().Workspace != next.Policy().Workspace {
		livesOn, err = b.rotation.TurnAway(ctx, save)
	} else {
		err = save()
	}
	if err != nil {
		return err
	}
	warn(resp, tried.Warning, next.EndUnknown(old), next.Credential.Unsent(d), livesOn)
	if old != nil {
		warn(resp, b.root.WarnOfForgotten(ctx, old, next))
	}
	warn(resp, b.core.warningOfMax(next.TTL))
	if rec, unknown := b.keys.Record(ctx); unknown == nil {
		warn(resp, next.Schedule.Upcoming(d, rec.RegeneratedAt, b.now(), next.DisableRotation))
	}
	hclog.FromContext(ctx).Info("configuration stored", "tenant_id", next.TenantID, "client_id", next.ClientID, "environment", next.Environment)
	b.events.Send(ctx, event.ConfigWrite, configPath)
	b.wakeRetirement()
	return nil
}

// configDelete serves DELETE mdi/config.
func (b *backend) configDelete(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	resp := &logical.Response{}
	return resp, b.flights.Alone(ctx, flight.Farewell, func(ctx context.Context) error {
		old, unknown := b.configs.Current(ctx)
		livesOn, err := b.rotation.TurnAway(ctx, func() error { return b.configs.Save(ctx, nil) })
		if err != nil {
			return err
		}
		warn(resp, livesOn)
		switch {
		case unknown == nil:
			warn(resp, b.root.WarnOfForgotten(ctx, old.Config, nil))
		case !errors.Is(unknown, config.ErrUnconfigured):
			resp.AddWarning("Which credentials this engine has made cannot be read. Look for those named vault-plugin-secrets-mdi in the Entra portal.")
		}
		hclog.FromContext(ctx).Info("configuration deleted")
		b.events.Send(ctx, event.ConfigDelete, configPath)
		return nil
	})
}
