// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/field"
)

// keyVersionFields are the fields of the answer.
func keyVersionFields(r *accesskey.Record) []field.Spec {
	return []field.Spec{
		field.Always(fieldKeyVersion, framework.TypeInt, "Version of the current key; 0 before the first.", r.Version),
		field.IfKnown(fieldRegeneratedAt, framework.TypeTime, "When the current key was regenerated, or was found at Graph.", field.Time(r.RegeneratedAt)),
		field.Always("on_watch", framework.TypeBool, "Whether the key can be replaced at any time, because a regeneration got no answer or a key that Graph has named is to be confirmed.", r.Watch.On() || r.Intent.Pending()),
	}
}

var pathKeyVersion = path("key-version", `Read which version of the deployment access key is current, without the key.`, `
For a host that has a key and is about to use it: a key whose key_version is not the
current one has been replaced. There is no lease, and Microsoft Graph is not asked, so
a key that was regenerated in the Defender portal shows only after the next comparison.
Give hosts read on this path beside that on the key.
`, nil, operations{
	logical.ReadOperation: forwarded("read key-version", (*backend).keyVersionRead, "Read which version of the key is current.",
		returning("The version of the current key.", keyVersionFields(&accesskey.Record{}))),
})

// keyVersionRead serves GET mdi/key-version.
func (b *backend) keyVersionRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	if _, err := b.configs.Current(ctx); err != nil {
		return nil, err
	}
	rec, err := b.keys.Record(ctx)
	return shown(&rec, keyVersionFields, err)
}
