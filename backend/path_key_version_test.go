// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const fieldOnWatch = "on_watch"

// A host asks whether its key is the current one: without a lease, and without Graph.
func TestKeyVersion(t *testing.T) {
	r := newRig(t)
	require.Contains(t, r.fails(400, logical.ReadOperation, keyVersionPath, nil), "not configured")
	r.write(configPath, r.config(nil))
	r.write("roles/hosts", nil)
	require.Equal(t, map[string]any{fieldKeyVersion: 0, fieldOnWatch: false}, r.read(keyVersionPath).Data)
	held := r.read(hosts)
	calls := r.gets() + r.posts()
	current := r.read(keyVersionPath)
	require.Nil(t, current.Secret)
	require.Equal(t, map[string]any{
		fieldKeyVersion: held.Data[fieldKeyVersion], fieldRegeneratedAt: held.Data[fieldRegeneratedAt], fieldOnWatch: false,
	}, current.Data)
	require.Equal(t, calls, r.gets()+r.posts())
	r.write(rotateKeyPath, nil)
	require.NotEqual(t, held.Data[fieldKeyVersion], r.read(keyVersionPath).Data[fieldKeyVersion])
}

// On watch the key can be replaced at any time, and so it can beside a regeneration.
func TestKeyVersionOnWatch(t *testing.T) {
	r := fleet(t)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 2, Reset: true})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	require.Equal(t, true, r.read(keyVersionPath).Data[fieldOnWatch])
}
