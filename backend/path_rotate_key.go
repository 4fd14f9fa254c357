// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
)

// rotateKeyFields are the fields of the answer.
func rotateKeyFields(r *accesskey.Record) []field.Spec {
	return []field.Spec{
		field.Always(fieldKeyVersion, framework.TypeInt, "Version of the new key.", r.Version),
		field.Always(fieldRegeneratedAt, framework.TypeTime, "When the key was regenerated.", field.Time(r.RegeneratedAt)),
	}
}

var pathRotateKey = path("rotate-key", `Regenerate the deployment access key now and disclose nothing.`, `
For the case that a key may have leaked: every key known so far becomes useless
for new installations, at once, whatever leases there are on it. Installed sensors
are not affected. The new key is returned to nobody; readers get one when they
read again. If Microsoft Graph does not confirm it in time, the answer is an error,
and the engine goes on until it does: see wanted_since in status.
`, nil, operations{
	logical.UpdateOperation: forwarded("rotate key", (*backend).rotateKey, "Regenerate the deployment access key and disclose nothing.",
		returning("The key has been regenerated.", rotateKeyFields(&accesskey.Record{}))),
})

// rotateKey serves POST mdi/rotate-key.
func (b *backend) rotateKey(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	rec, err := b.rotation.Rotate(ctx)
	if err == nil {
		return &logical.Response{Data: field.Read(rotateKeyFields(&rec))}, nil
	}
	refused := refusal(err)
	goesOn := !rec.WantedSince.IsZero() && !errors.Is(err, config.ErrUnconfigured)
	if coded, ok := errors.AsType[logical.HTTPCodedError](refused); ok && goesOn && !errors.Is(err, rotation.ErrUnconfirmed) { // which says so
		return nil, logical.CodedError(coded.Code(), coded.Error()+". The engine goes on trying: see wanted_since in mdi/status.")
	}
	return nil, refused
}
