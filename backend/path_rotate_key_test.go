// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestRotateKeyKillsTheKeyAndDisclosesNothing(t *testing.T) {
	r := configured(t)
	held := r.key()
	resp := r.write(rotateKeyPath, nil)
	require.Nil(t, resp.Secret)
	require.Equal(t, map[string]any{fieldKeyVersion: 2, fieldRegeneratedAt: "2027-02-28T12:00:00Z"}, resp.Data)
	require.False(t, r.works(held))
	status := r.status()
	require.Equal(t, "manual", status[fieldCause])
	require.Equal(t, false, status[fieldDisclosed])

	r.revoke(held)
	r.tick()
	r.idle()
	require.Equal(t, 2, r.posts(), "a key that nobody holds need not be retired")
}

func TestRotateKeyOfAnUnconfiguredMount(t *testing.T) {
	r := newRig(t)
	require.Contains(t, r.fails(400, logical.UpdateOperation, rotateKeyPath, nil), "not configured")
}

func TestRotateKeyWhenTheRecordCannotBeRead(t *testing.T) {
	r := configured(t)
	r.restart()
	r.storage.FailWhen(func(op, key string) bool { return op == "get" && key == accesskey.StorageKey })
	_, err := r.request(t.Context(), logical.UpdateOperation, rotateKeyPath, nil)
	require.ErrorIs(t, err, storagetest.ErrBroken)
	require.Zero(t, r.posts())
}

// Whoever is refused because of a failure that passes is told that asking again is all
// there is to do, and whether the key has changed.
func TestFailuresThatPassSaySo(t *testing.T) {
	besideOthers(t)
	r := configured(t)
	old := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 503})
	require.Contains(t, r.fails(503, logical.UpdateOperation, rotateKeyPath, nil), "the key has not been changed; try again")
	r.sim.Clear()
	require.True(t, r.works(old))
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	require.NotContains(t, r.fails(400, logical.UpdateOperation, rotateKeyPath, nil), "try again", "the operator has to act first")
}
