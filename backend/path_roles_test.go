// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/role"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func (r *rig) patch(path string, data map[string]any) {
	r.t.Helper()
	_, err := r.request(r.t.Context(), logical.PatchOperation, path, data)
	require.NoError(r.t, err)
}

func (r *rig) delete(path string) {
	r.t.Helper()
	_, err := r.request(r.t.Context(), logical.DeleteOperation, path, nil)
	require.NoError(r.t, err)
}

func (r *rig) list(data map[string]any) any {
	r.t.Helper()
	resp, err := r.request(r.t.Context(), logical.ListOperation, rolesPath, data)
	require.NoError(r.t, err)
	return resp.Data["keys"]
}

func TestRoleLifeCycle(t *testing.T) {
	r := newRig(t)
	require.Nil(t, r.read("roles/hosts"), "404")
	r.fails(404, logical.PatchOperation, "roles/hosts", map[string]any{config.FieldTTL: 60})

	r.write("roles/hosts", nil)
	require.Equal(t, map[string]any{config.FieldTTL: int64(0)}, r.read("roles/hosts").Data, "no maximum age")
	r.write("roles/hosts", map[string]any{config.FieldTTL: "10m", config.FieldMaxKeyAge: 0})
	require.Equal(t, map[string]any{config.FieldTTL: int64(600), config.FieldMaxKeyAge: int64(0)}, r.read("roles/hosts").Data)
	r.write("roles/hosts", map[string]any{config.FieldMaxKeyAge: "24h"})
	require.Equal(t, map[string]any{config.FieldTTL: int64(600), config.FieldMaxKeyAge: int64(86400)}, r.read("roles/hosts").Data)
	r.patch("roles/hosts", map[string]any{config.FieldMaxKeyAge: nil})
	r.restart()
	require.Equal(t, map[string]any{config.FieldTTL: int64(600)}, r.read("roles/hosts").Data)
	r.patch("roles/hosts", map[string]any{config.FieldTTL: nil})
	require.Equal(t, map[string]any{config.FieldTTL: int64(0)}, r.read("roles/hosts").Data)

	r.delete("roles/hosts")
	require.Nil(t, r.read("roles/hosts"))
	r.delete("roles/hosts")
}

// A script whose variable is not set writes max_key_age= and must not make each read
// regenerate the key.
func TestAnEmptyMaximumAgeIsNone(t *testing.T) {
	r := newRig(t)
	for _, op := range []func(string, map[string]any){func(path string, data map[string]any) { r.write(path, data) }, r.patch} {
		r.write("roles/hosts", map[string]any{config.FieldTTL: 60, config.FieldMaxKeyAge: 0})
		op("roles/hosts", map[string]any{config.FieldTTL: "10m\r\n", config.FieldMaxKeyAge: ""})
		require.Equal(t, map[string]any{config.FieldTTL: int64(600)}, r.read("roles/hosts").Data)
	}
}

func TestRolesAreListedInPages(t *testing.T) {
	r := newRig(t)
	require.Nil(t, r.list(nil))
	for _, name := range []string{"c", "a", "b.1", "d"} {
		r.write(rolesPath+name, nil)
	}
	require.Equal(t, []string{"a", "b.1", "c", "d"}, r.list(nil))
	require.Equal(t, []string{"b.1", "c"}, r.list(map[string]any{"after": "a", "limit": 2}))
	require.Equal(t, []string{"c", "d"}, r.list(map[string]any{"after": "b.5", "limit": 9}))
	require.Nil(t, r.list(map[string]any{"after": "d"}))
}

func TestBadRoleIsRefusedAndChangesNothing(t *testing.T) {
	r := newRig(t)
	r.write("roles/hosts", map[string]any{config.FieldTTL: 60, config.FieldMaxKeyAge: 120})
	for _, bad := range []map[string]any{
		{config.FieldTTL: "-1m"}, {config.FieldTTL: "9000h"}, {config.FieldTTL: "soon"}, {config.FieldMaxKeyAge: "-1s"}, {config.FieldMaxKeyAge: "9000h"}, {config.FieldMaxKeyAge: []any{1}},
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			text := r.fails(400, op, "roles/hosts", bad)
			for field := range bad {
				require.Contains(t, text, field)
			}
		}
	}
	require.Equal(t, map[string]any{config.FieldTTL: int64(60), config.FieldMaxKeyAge: int64(120)}, r.read("roles/hosts").Data)
	require.Len(t, r.write("roles/hosts", map[string]any{"max_age": 1}).Warnings, 1)
}

func TestRoleStorageFailures(t *testing.T) {
	r := configured(t)
	r.write("roles/hosts", nil)
	for _, c := range []struct {
		storage, op string
		request     logical.Operation
		path        string
	}{
		{"get", role.Prefix, logical.ReadOperation, "roles/hosts"},
		{"get", role.Prefix, logical.ReadOperation, "key/hosts"},
		{"put", role.Prefix, logical.PatchOperation, "roles/hosts"},
		{"get", role.Prefix, logical.PatchOperation, "roles/hosts"},
		{"delete", role.Prefix, logical.DeleteOperation, "roles/hosts"},
		{"list", role.Prefix, logical.ListOperation, "roles/"},
	} {
		r.restart()
		r.storage.FailWhen(storagetest.Nth(1, c.storage, c.op))
		_, err := r.request(t.Context(), c.request, c.path, map[string]any{})
		require.ErrorIs(t, err, storagetest.ErrBroken, "%s %s", c.request, c.path)
	}
	require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: role.Prefix + "odd", Value: []byte("{")}))
	_, err := r.request(t.Context(), logical.ReadOperation, "roles/odd", nil)
	require.Error(t, err)
}

func TestRoleThatLeasesForLongerThanTheMount(t *testing.T) {
	r := newRig(t)
	longer := r.engine.System().MaxLeaseTTL() + time.Hour
	require.Len(t, r.write("roles/hosts", map[string]any{config.FieldTTL: longer.String()}).Warnings, 1)
	require.Empty(t, r.write("roles/hosts", map[string]any{config.FieldTTL: "1h"}).Warnings)
}

func TestMissingRoleSaysWhatToDo(t *testing.T) {
	r := newRig(t)
	require.Contains(t, r.fails(400, logical.ReadOperation, "key/hosts", nil), "not configured", "which comes first")
	r.write(configPath, r.config(nil))
	require.Contains(t, r.fails(400, logical.ReadOperation, "key/hosts", nil), "roles/hosts")
}
