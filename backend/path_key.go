// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
)

const (
	keyPath   = "key"
	fieldRole = "role"

	keyHelpSynopsis = `Regenerate the deployment access key and return it under a lease.`

	keyHelpDescription = `
Every read regenerates the key through Microsoft Graph, which makes every earlier key
useless for new installations, unless max_key_age of the configuration lets it be
shared. Reads that overlap share one regeneration. The lease cannot be renewed. When
the last lease on the current key has ended or has been revoked, the key is
regenerated once more, so that the one that was handed out stops working.
`

	roleKeyHelpSynopsis = `Return the deployment access key under a role's terms, shared if they allow it.`

	roleKeyHelpDescription = `
Readers of the role get the current key as long as the role's max_key_age allows
it, and otherwise a new one, so any number of hosts can hold the same key. A key is
compared with the tenant's before it is shared, if the last comparison is older
than drift_check_interval. The lease cannot be renewed, and lasts for the role's
ttl. When the last lease on the current key has ended, the key is regenerated.
`
)

func pathKey() *framework.Path {
	return path(keyPath+"$", keyHelpSynopsis, keyHelpDescription, map[logical.Operation]framework.OperationHandler{
		logical.ReadOperation: forwarded("generate key", (*backend).keyRead, "Regenerate the deployment access key and return it under a lease.",
			returning("The key and its lease.", secretKey().Fields)),
	})
}

func pathRoleKey() *framework.Path {
	p := path(keyPath+"/"+framework.GenericNameRegex(fieldRole)+"$", roleKeyHelpSynopsis, roleKeyHelpDescription, map[logical.Operation]framework.OperationHandler{
		logical.ReadOperation: forwarded("generate key-for-role", (*backend).roleKeyRead, "Return the deployment access key under a role's terms.",
			returning("The key and its lease.", secretKey().Fields)),
	})
	p.Fields = map[string]*framework.FieldSchema{fieldRole: {Type: framework.TypeString, Description: nameOfRole, Required: true}}
	return p
}

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
			return nil, refusal(err)
		}
		return nil, refusal(&field.Error{Field: fieldRole, Problem: "there is no role " + name + ": create it with a write to " + req.MountPoint + rolesPath + name})
	}
	return b.obtain(ctx, found)
}

// obtain answers with a key under a role, or under none. A reader who has left meanwhile
// leaves no lease.
func (b *backend) obtain(ctx context.Context, r rotation.Role) (*logical.Response, error) {
	got, err := b.rotation.Obtain(ctx, r)
	if err == nil && ctx.Err() != nil {
		b.keys.Withdraw(got.Lease)
		err = ctx.Err()
	}
	if ctx.Err() != nil {
		b.retirement.wake() // a lease that was withdrawn may have been the last
	}
	if err != nil {
		return nil, refusal(err)
	}
	return b.keyResponse(got), nil
}
