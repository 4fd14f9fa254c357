// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
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

// An operator who wants every key so far to be dead does not get the one that a
// lost answer has left, which nobody knows who has seen.
func TestRotateKeyRegeneratesBeyondWhatItRecovers(t *testing.T) {
	r := configured(t)
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	_, err := r.tryKey()
	require.ErrorIs(t, err, storagetest.ErrBroken)
	lost := r.sim.Key()
	r.write(rotateKeyPath, nil)
	require.False(t, r.sim.CanRegister(lost))
	require.Equal(t, "manual", r.status()[fieldCause])
}

// The same if a reader is about to find that key.
func TestRotateKeyDoesNotContentItselfWithWhatAReaderFinds(t *testing.T) {
	r := configured(t)
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	_, err := r.tryKey()
	require.ErrorIs(t, err, storagetest.ErrBroken)
	lost := r.sim.Key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour})
	started := r.sim.Calls(graphtest.Get).Started
	var done sync.WaitGroup
	done.Go(func() { r.key() })
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Get, func(c graphtest.Calls) bool { return c.Started == started+1 }))
	done.Go(func() { r.write(rotateKeyPath, nil) })
	r.eventually("rotate-key joins", func() bool { return r.waiting() == 2 })
	r.sim.Clear()
	done.Wait()
	require.False(t, r.sim.CanRegister(lost))
}

func TestRotateKeyWhenTheRecordCannotBeRead(t *testing.T) {
	r := configured(t)
	r.restart()
	r.storage.FailWhen(func(op, key string) bool { return op == "get" && key == accesskey.StorageKey })
	_, err := r.request(t.Context(), logical.UpdateOperation, rotateKeyPath, nil)
	require.ErrorIs(t, err, storagetest.ErrBroken)
	require.Zero(t, r.posts())
}

// Somebody has regenerated the key in the portal, perhaps the very key that leaked. If
// the engine's own regeneration is lost then, that key is not taken for its result.
func TestRotateKeyIsNotContentWithAKeyOfThePortal(t *testing.T) {
	for name, later := range map[string]time.Duration{"at once": 0, "later": time.Hour} {
		t.Run(name, func(t *testing.T) {
			r := configured(t)
			r.key()
			r.sim.RegenerateInPortal()
			r.clock.advance(later)
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
			r.fails(503, logical.UpdateOperation, rotateKeyPath, nil)
			leaked := r.sim.Key()
			r.clock.advance(flight.Budget)
			r.write(rotateKeyPath, nil)
			require.False(t, r.sim.CanRegister(leaked))
		})
	}
}
