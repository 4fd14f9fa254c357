// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// An operator who wants every key so far to be dead does not get the one that a
// lost answer has left, which others may have seen.
func TestRotateRegeneratesBeyondWhatItRecovers(t *testing.T) {
	r := configured(t, nil)
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	require.ErrorIs(t, r.fails(alone), storagetest.ErrBroken)
	lost := r.sim.Key()
	require.NoError(t, r.rotate())
	require.False(t, r.sim.CanRegister(lost))
	require.Equal(t, accesskey.CauseManual, r.record().Cause)
}

// The same if a reader is about to find that key.
func TestRotateDoesNotContentItselfWithWhatAReaderFinds(t *testing.T) {
	r := configured(t, nil)
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	require.ErrorIs(t, r.fails(alone), storagetest.ErrBroken)
	lost := r.sim.Key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour})
	started := r.sim.Calls(graphtest.Get).Started
	var done sync.WaitGroup
	done.Go(func() { r.obtain(alone) })
	r.started(graphtest.Get, started+1)
	done.Go(func() { require.NoError(t, r.rotate()) })
	r.waiting(2)
	r.sim.Clear()
	done.Wait()
	require.False(t, r.sim.CanRegister(lost))
}

// The key has been regenerated in the portal, and perhaps that is the key that leaked. If
// the engine's own regeneration is lost then, that key is not taken for its result.
func TestRotateIsNotContentWithAKeyOfThePortal(t *testing.T) {
	for name, later := range map[string]time.Duration{"at once": 0, "later": time.Hour} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.obtain(alone)
			r.sim.RegenerateInPortal()
			r.advance(later)
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
			r.isUnsettled(r.rotate())
			leaked := r.sim.Key()
			r.advance(flight.Budget)
			require.NoError(t, r.rotate())
			require.False(t, r.sim.CanRegister(leaked))
		})
	}
}
