// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"testing"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/format"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// initialize starts the mount as core does.
func (r *rig) initialize() {
	r.t.Helper()
	require.NoError(r.t, r.engine.Initialize(r.t.Context(), &logical.InitializationRequest{Storage: r.storage}))
}

// formatStored returns the stored format number; "" if there is none.
func (r *rig) formatStored() string {
	r.t.Helper()
	entry, err := r.storage.Get(r.t.Context(), format.StorageKey)
	require.NoError(r.t, err)
	if entry == nil {
		return ""
	}
	return string(entry.Value)
}

func TestStartStoresTheFormatNumber(t *testing.T) {
	r := configured(t)
	r.nodeIs(consts.ReplicationPerformanceStandby)
	r.initialize()
	require.Empty(t, r.formatStored())
	r.nodeIs(consts.ReplicationUnknown)
	r.initialize()
	require.JSONEq(t, `{"format":2,"readable_from":1}`, r.formatStored())
	require.NotContains(t, r.log.String(), "format")
}

func TestStartGoesOnWithoutTheFormatNumber(t *testing.T) {
	r := configured(t)
	r.storage.FailWhen(storagetest.Nth(1, "put", format.StorageKey))
	r.initialize()
	require.Contains(t, r.log.String(), "[WARN]  reading or storing the format number")
	require.True(t, r.works(r.key()))
}

// What a newer version stores in a form of its own is said in the log. Leases end
// nevertheless, and the mount can be disabled.
func TestStartAfterAVersionWhoseFormIsNotRead(t *testing.T) {
	const newer = `{"format":9,"readable_from":8}`
	r := configured(t)
	held := r.key()
	require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: format.StorageKey, Value: []byte(newer)}))
	r.restart()
	r.initialize()
	require.Regexp(t, `\[ERROR\] a newer version has stored .*: work_id=\S+ stored_readable_from=8 own_format=2`, r.log.String())
	require.Equal(t, newer, r.formatStored())
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	r.revoke(held)
	r.tick()
	r.engine.Cleanup(context.Background())
	require.False(t, r.works(held))
}
