// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/field"
)

const (
	keyPath   = "key"
	fieldRole = "role"

	// secretTypeKey names the secret type in every lease. It must never change:
	// leases of an older release have to stay revocable.
	secretTypeKey = "deployment_access_key"

	fieldKeyVersion    = "key_version"
	fieldRegeneratedAt = "regenerated_at"
)

// keyFields are the fields of an answer with a key. Core stores a copy of them with every
// lease, so they are few.
func keyFields(rec accesskey.Record, reused bool) []field.Spec {
	return []field.Spec{
		{
			Name: "deployment_access_key", Title: "Deployment access key", Type: framework.TypeString, Secret: true,
			Description: "The deployment access key, for AccessKey or AccessKeyFile of the sensor's installer.",
			Get:         func() any { return rec.Key },
		},
		field.Always(fieldKeyVersion, framework.TypeInt, "Number of the key: each new key gets a higher one than any before. It goes back if Graph names an earlier key again.", rec.Version),
		field.Always(fieldRegeneratedAt, framework.TypeTime, "When the key was regenerated.", field.Time(rec.RegeneratedAt)),
		field.Always("reused", framework.TypeBool, "False if the key was regenerated after the request arrived, or by a regeneration that was under way.", reused),
	}
}

// secretKey is the lease on a deployment access key. It cannot be renewed: Vault
// Agent then reads again at about 0.9 of its duration, which bounds how long a
// host can hold a superseded key without knowing. Like the paths it is made once.
var secretKey = &framework.Secret{
	Type:   secretTypeKey,
	Fields: field.ReadSchema(keyFields(accesskey.Record{}, false)),
	Revoke: ofMount((*backend).revokeKey),
}

var pathKey = path(keyPath, `Regenerate the deployment access key and return it under a lease.`, `
Every read regenerates the key through Microsoft Graph, which makes every earlier key
useless for new installations, unless max_key_age of the configuration lets it be
shared. Reads that overlap share one regeneration. The lease cannot be renewed. When
the last lease on the current key has ended or has been revoked, the key is
regenerated once more, so that the one that was handed out stops working.
`, nil, operations{
	logical.ReadOperation: forwarded("generate key", (*backend).keyRead, "Regenerate the deployment access key and return it under a lease.",
		returning("The key and its lease.", keyFields(accesskey.Record{}, false))),
})

var pathRoleKey = path(keyPath+"/"+framework.GenericNameRegex(fieldRole), `Return the deployment access key under a role's terms, shared if they allow it.`, `
Readers of the role get the current key as long as the role's max_key_age allows
it, and otherwise a new one, so any number of hosts can hold the same key. A key is
compared with the tenant's before it is shared, if the last comparison is older
than drift_check_interval. The lease cannot be renewed, and lasts for the role's
ttl. When the last lease on the current key has ended, the key is regenerated.
`, []field.Spec{roleName(fieldRole)}, operations{
	logical.ReadOperation: forwarded("generate key-for-role", (*backend).roleKeyRead, "Return the deployment access key under a role's terms.",
		returning("The key and its lease.", keyFields(accesskey.Record{}, false))),
})

// keyRead serves GET mdi/key.
func (b *backend) keyRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return b.obtain(ctx, nil)
}

// roleKeyRead serves GET mdi/key/:role.
func (b *backend) roleKeyRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldRole).(string)
	found, err := b.roles.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if found == nil {
		// What is to be done first is said first: a role needs a configuration.
		if _, err := b.configs.Current(ctx); err != nil {
			return nil, err
		}
		return nil, &field.Error{Field: fieldRole, Problem: "there is no role " + name + ": create it with a write to " + req.MountPoint + rolesPath + name}
	}
	return b.obtain(ctx, found.Terms)
}

// obtain answers with a key under a role, or under none. A reader who has left meanwhile
// leaves no lease.
func (b *backend) obtain(ctx context.Context, terms func(base accesskey.Terms) accesskey.Terms) (*logical.Response, error) {
	got, err := b.rotation.Obtain(ctx, terms)
	if left := ctx.Err(); left != nil {
		if err == nil {
			b.keys.Withdraw(got.Lease)
			err = left
		}
		b.wakeRetirement() // a lease that was withdrawn may have been the last
	}
	if err != nil {
		return nil, err
	}
	l := got.Lease
	resp := secretKey.Response(field.Read(keyFields(l.Record, got.Reused)), map[string]any{"key_version": l.Record.Version, "ledger_id": l.ID})
	resp.Secret.TTL = l.TTL
	resp.Secret.MaxTTL = l.TTL // Response leaves it out
	if l.Short {
		resp.AddWarning("The lease is short: until a regeneration that got no answer is settled, or a key that Graph has named is confirmed, the key can be replaced at any time. Use it at once, and read again for anything that takes longer than the lease.")
	}
	if got.Unconfirmed != "" {
		resp.AddWarning("The key could not be compared with the tenant's before it was shared; it is the one that Vault knows. The reason: " + got.Unconfirmed)
	}
	return warn(resp, b.core.warningOfDefault(l.TTL)), nil
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
		b.wakeRetirement() // also after a failure: the lease has ended, and is removed later
	}
	// Asked after the failure and not before, because each revocation would pay for it with
	// two calls to core.
	if err != nil && !b.WriteSafeReplicationState() {
		return nil, nil // the record ends by time
	}
	return nil, err
}

// leaseOf reads what obtain stored in a lease. Core keeps it as JSON, so the version
// comes back as some kind of number.
func leaseOf(secret *logical.Secret) (version int, id string, ok bool) {
	var kept struct {
		Version int    `json:"key_version"`
		ID      string `json:"ledger_id"`
	}
	stored, _ := json.Marshal(secret.InternalData) // from which it came
	err := json.Unmarshal(stored, &kept)
	return kept.Version, kept.ID, err == nil && kept.Version > 0 && kept.ID != ""
}
