// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
)

const (
	// secretTypeKey names the secret type in every lease. It must never change:
	// leases of an older release have to stay revocable.
	secretTypeKey = "deployment_access_key"

	fieldDeploymentAccessKey = "deployment_access_key"
	fieldKeyVersion          = "key_version"
	fieldRegeneratedAt       = "regenerated_at"
	fieldReused              = "reused"

	// What a lease remembers: the version of its key and the id of its record.
	internalKeyVersion = "key_version"
	internalLeaseID    = "ledger_id"
)

// secretKey is the lease on a deployment access key. It cannot be renewed: Vault
// Agent then reads again at about 0.9 of its duration, which bounds how long a
// host can hold a superseded key without knowing. Like the paths it is made once.
var secretKey = sync.OnceValue(func() *framework.Secret {
	return &framework.Secret{
		Type:   secretTypeKey,
		Fields: field.ReadSchema(keyFields(accesskey.Record{}, false)),
		Revoke: ofMount((*backend).revokeKey),
	}
})

// keyFields are the fields of an answer with a key. Core stores a copy of them with every
// lease, so they are few.
func keyFields(rec accesskey.Record, reused bool) []field.Spec {
	return []field.Spec{
		{
			Name: fieldDeploymentAccessKey, Title: "Deployment access key", Type: framework.TypeString, Secret: true,
			Description: "The deployment access key, for AccessKey or AccessKeyFile of the sensor's installer.",
			Get:         func() any { return rec.Key },
		},
		field.Always(fieldKeyVersion, framework.TypeInt, "Number of the key: each new key gets a higher one than any before. It goes back if Graph names an earlier key again.", rec.Version),
		field.Always(fieldRegeneratedAt, framework.TypeTime, "When the key was regenerated.", field.Time(rec.RegeneratedAt)),
		field.Always(fieldReused, framework.TypeBool, "False if the key was regenerated after the request arrived, or by a regeneration that was under way.", reused),
	}
}

// keyResponse makes the answer to a read of the key.
func (b *backend) keyResponse(got *rotation.Answer) *logical.Response {
	l := got.Lease
	resp := b.Secret(secretTypeKey).Response(field.Read(keyFields(l.Record, got.Reused)), map[string]any{
		internalKeyVersion: l.Record.Version,
		internalLeaseID:    l.ID,
	})
	resp.Secret.TTL = l.TTL
	resp.Secret.MaxTTL = l.TTL // Response leaves it out
	if l.Short {
		resp.AddWarning("The lease is short: until a regeneration that got no answer is settled, or a key that Graph has named is confirmed, the key can be replaced at any time. Use it at once, and read again for anything that takes longer than the lease.")
	}
	if got.Unconfirmed != "" {
		resp.AddWarning("The key could not be compared with the tenant's before it was shared; it is the one that Vault knows. The reason: " + got.Unconfirmed)
	}
	warn(resp, b.core.warningOfDefault(l.TTL))
	return resp
}

// revokeKey ends a lease: it removes the lease's record, and wakes the retirement, because
// it may have been the last. It needs neither a configuration nor Graph, and succeeds a
// second time: a revocation that fails again and again would end as an irrevocable lease
// and keep the mount from being disabled.
func (b *backend) revokeKey(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	version, id, ok := leaseOf(req.Secret)
	if !ok {
		hclog.FromContext(ctx).Warn("a lease without a record was revoked; its key is retired when the leases that have one have ended")
		return nil, nil
	}
	mayBeLast, err := b.keys.Revoke(ctx, version, id)
	if mayBeLast {
		b.retirement.wake() // also after a failure: the lease has ended, and is removed later
	}
	if err != nil {
		// Asked after the failure and not before, because each revocation would pay for
		// it with two calls to core.
		if !b.WriteSafeReplicationState() {
			return nil, nil // the record ends by time
		}
		return nil, err
	}
	return nil, nil
}

// leaseOf reads what keyResponse stored in a lease. Core keeps it as JSON, so the version
// comes back as some kind of number.
func leaseOf(secret *logical.Secret) (version int, id string, ok bool) {
	if secret == nil {
		return 0, "", false
	}
	var kept struct {
		Version int    `json:"key_version"`
		ID      string `json:"ledger_id"`
	}
	stored, err := json.Marshal(secret.InternalData)
	if err != nil || json.Unmarshal(stored, &kept) != nil {
		return 0, "", false
	}
	return kept.Version, kept.ID, kept.Version > 0 && kept.ID != ""
}
