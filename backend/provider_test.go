// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// What docs/entra.md says of one app for many tenants.

// provider returns a mount for the app's home tenant, and one for each of two customers'.
func provider(t *testing.T, fields map[string]any, opts ...graphtest.Option) (home *rig, customers []*rig) {
	t.Helper()
	tenants := []string{uuid.NewString(), uuid.NewString()}
	fields = maps.Clone(fields)
	home = newRig(t, append(opts, graphtest.WithCustomers(tenants...))...)
	if fields[credential.FieldCertificate] == "" {
		fields[credential.FieldCertificate] = home.certificate()
	}
	home.write(configPath, home.config(fields))
	for _, tenant := range tenants {
		c := &rig{
			t: t, sim: home.sim, storage: storagetest.New(),
			system: testSystem(), clock: home.clock, log: &syncBuffer{},
		}
		c.restart()
		t.Cleanup(c.noSecretLogged)
		there := c.config(fields)
		there[config.FieldTenantID] = tenant
		c.write(configPath, there)
		customers = append(customers, c)
	}
	return home, customers
}

func TestEachTenantHasItsOwnKey(t *testing.T) {
	home, customers := provider(t, nil)
	keys := map[any]string{}
	for _, mount := range append(customers, home) {
		tenant := mount.read(configPath).Data[config.FieldTenantID]
		keys[tenant], _ = mount.key().Data[fieldDeploymentAccessKey].(string)
	}
	require.Len(t, keys, 3)
	for tenant, key := range keys {
		require.True(t, home.sim.KeyOf(tenant.(string)) == key, "the key of another tenant")
	}
}

// The first attempt says where the app registration is, whatever the app may do here, and
// leaves nothing behind.
func TestRotateRootAwayFromHome(t *testing.T) {
	permitted := graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleOwnedBy)
	objectID := uuid.NewString()
	for name, test := range map[string]struct {
		fields map[string]any
		opts   []graphtest.Option
		says   string
	}{
		"secret":                     {nil, []graphtest.Option{permitted}, "home tenant"},
		"secret, not permitted":      {nil, nil, "registered in another tenant"},
		"certificate":                {map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: ""}, []graphtest.Option{permitted}, "home tenant"},
		"certificate by object id":   {map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: "", config.FieldApplicationObjectID: objectID}, nil, "home tenant"},
		"certificate, not permitted": {map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: ""}, nil, "registered in another tenant"},
	} {
		t.Run(name, func(t *testing.T) {
			_, customers := provider(t, test.fields, test.opts...)
			for _, mount := range customers {
				mount.impatient()
				before := mount.credentials()
				require.Contains(t, mount.fails(400, logical.UpdateOperation, rotateRootPath, nil), test.says)
				require.Equal(t, before, mount.credentials())
				require.False(t, mount.stored().Root.Next(mount.clock.now(), false).Unfinished)
				require.True(t, mount.works(mount.key()))
			}
		})
	}
}
