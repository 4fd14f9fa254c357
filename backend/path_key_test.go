// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestKeyReadReturnsALeasedKeyThatWorks(t *testing.T) {
	r := configured(t)
	resp := r.key()
	require.True(t, r.works(resp))
	require.Equal(t, 1, resp.Data[fieldKeyVersion])
	require.Equal(t, "2027-02-28T12:00:00Z", resp.Data[fieldRegeneratedAt])
	require.Equal(t, false, resp.Data[fieldReused])
	require.Equal(t, time.Hour, resp.Secret.TTL)
	require.Equal(t, time.Hour, resp.Secret.MaxTTL)
	require.False(t, resp.Secret.Renewable)
}

func TestKeyReadRegeneratesEveryTime(t *testing.T) {
	r := configured(t)
	first, second := r.key(), r.key()
	require.False(t, r.works(first))
	require.True(t, r.works(second))
	require.Equal(t, 2, second.Data[fieldKeyVersion])
	require.Equal(t, 2, r.posts())
}

func TestKeyReadOfAnUnconfiguredMountSaysWhatToDo(t *testing.T) {
	r := newRig(t)
	require.Contains(t, r.fails(400, logical.ReadOperation, keyPath, nil), "tenant_id, client_id and a credential to its path config")
}

func TestLeaseIsCappedByTheMount(t *testing.T) {
	r := newRig(t)
	r.system.set(func(core *logical.StaticSystemView) { core.MaxLeaseTTLVal = 10 * time.Minute })
	resp := r.write(configPath, r.config(nil))
	require.Len(t, resp.Warnings, 1)
	require.Equal(t, 10*time.Minute, r.key().Secret.TTL)
}

// Who has tuned the mount, as for any other engine, reads once that it changes nothing.
func TestDefaultLeaseTTLOfTheMountHasNoEffect(t *testing.T) {
	for name, c := range map[string]struct {
		tuned time.Duration
		told  bool
	}{
		"Vault's default": {768 * time.Hour, false},
		"shorter":         {15 * time.Minute, true},
		"longer":          {48 * time.Hour, true},
		"the same":        {time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t)
			r.write("roles/hosts", nil)
			r.key()
			r.system.set(func(core *logical.StaticSystemView) { core.DefaultLeaseTTLVal = c.tuned })
			r.clock.advance(time.Minute + time.Second) // for as long it is not asked for again
			resp := r.read("key/hosts")
			require.Equal(t, time.Hour, resp.Secret.TTL)
			if !c.told {
				require.Empty(t, resp.Warnings)
				return
			}
			require.Len(t, resp.Warnings, 1)
			require.Contains(t, resp.Warnings[0], "default-lease-ttl of this mount or server ("+c.tuned.String()+") has no effect")
			require.Empty(t, r.key().Warnings, "it has been said")
		})
	}
}

func TestConcurrentReadsShareOneRegeneration(t *testing.T) {
	const readers = 100
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	answers := make([]*logical.Response, readers)
	var arrived, done sync.WaitGroup
	arrived.Add(readers)
	for i := range answers {
		done.Go(func() {
			arrived.Done()
			answers[i] = r.key()
		})
	}
	arrived.Wait()
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Started == 1 }))
	r.eventually("all readers wait for it", func() bool { return r.waiting() == readers })
	r.sim.Clear()
	done.Wait()

	require.Equal(t, 1, r.posts())
	leases := map[any]bool{}
	for _, a := range answers {
		require.Equal(t, keyIn(answers[0]), keyIn(a))
		require.Equal(t, false, a.Data[fieldReused])
		leases[a.Secret.InternalData[internalLeaseID]] = true
	}
	require.Len(t, leases, readers)
	require.True(t, r.works(answers[0]))
	require.Equal(t, readers, r.status()[fieldLiveLeases])
}

// tryKey reads mdi/key once.
func (r *rig) tryKey() (*logical.Response, error) {
	return r.request(r.t.Context(), logical.ReadOperation, keyPath, nil)
}

// waiting counts the readers who have joined the flight under way.
func (r *rig) waiting() int {
	return r.engine.flights.Waiters(accesskey.CauseRead) + r.engine.flights.Waiters(accesskey.WorkCompare)
}

// undeliveredFor is how long a key that was made for a reader is kept for another one.
const undeliveredFor = 2 * time.Minute

// Reads that follow each other without a pause must all succeed, although each one
// replaces the key of the one before: nobody is overtaken for ever.
func TestReadersAreNotOvertakenForEver(t *testing.T) {
	r := configured(t)
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for range 15 {
				if _, err := r.request(t.Context(), logical.ReadOperation, keyPath, nil); err != nil {
					t.Errorf("a read failed: %v", err)
				}
			}
		})
	}
	done.Wait()
	require.LessOrEqual(t, r.posts(), 8*15)
}

func TestKeyOfAReaderWhoHangsUpIsForTheNext(t *testing.T) {
	r := configured(t)
	r.hangUpOnARegeneration()
	status := r.status()
	require.Equal(t, 1, status[fieldKeyVersion])
	require.Equal(t, false, status[fieldDisclosed])
	resp := r.key()
	require.True(t, r.works(resp))
	require.Equal(t, true, resp.Data[fieldReused])
	require.Equal(t, 1, r.posts())
}

// hangUpOnARegeneration reads the key and leaves while Graph is about to answer.
func (r *rig) hangUpOnARegeneration() {
	r.t.Helper()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour, AfterWork: true})
	ctx, hangUp := context.WithCancel(r.t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := r.request(ctx, logical.ReadOperation, keyPath, nil)
		failed <- err
	}()
	require.NoError(r.t, r.sim.Wait(r.t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == 1 }))
	hangUp()
	require.ErrorIs(r.t, <-failed, context.Canceled)
	r.sim.Clear()
	r.idle()
}

func TestUnclaimedKeyIsNotKeptForLong(t *testing.T) {
	r := configured(t)
	r.hangUpOnARegeneration()
	r.clock.advance(undeliveredFor)
	resp := r.key()
	require.Equal(t, false, resp.Data[fieldReused])
	require.Equal(t, 2, r.posts())
}

func TestKeyWhoseLeaseCannotBeRecordedIsNotGiven(t *testing.T) {
	r := configured(t)
	r.storage.FailWhen(func(op, key string) bool { return op == "put" && strings.HasPrefix(key, lease.Prefix) }) // the reserved lease, and the reader's own
	_, err := r.request(t.Context(), logical.ReadOperation, keyPath, nil)
	require.ErrorIs(t, err, storagetest.ErrBroken)
	r.storage.FailWhen(nil)
	r.tick()
	require.Equal(t, false, r.status()[fieldDisclosed], "what may have been disclosed is retired")
	resp := r.key()
	require.True(t, r.works(resp))
	r.revoke(resp)
	r.eventually("the key dies with its only lease", func() bool { return !r.works(resp) })
}

// A handler that fails after the regeneration makes Vault Agent ask again and
// again; that must not regenerate again and again.
func TestKeyWhoseDisclosureCannotBeMarkedIsForTheNext(t *testing.T) {
	r := configured(t)
	r.hangUpOnARegeneration()
	r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey))
	_, err := r.request(t.Context(), logical.ReadOperation, keyPath, nil)
	require.ErrorIs(t, err, storagetest.ErrBroken)
	resp := r.key()
	require.True(t, r.works(resp))
	require.Equal(t, 1, r.posts())
	r.revoke(resp)
	r.eventually("the key dies with its only lease", func() bool { return !r.works(resp) })
}

func TestReaderWhoseTimeIsUpIsToldToComeAgain(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.request(ctx, logical.ReadOperation, keyPath, nil)
	require.Equal(t, logical.CodedError(503, flight.ErrUnderWay.Error()), err)
	r.sim.Clear()
	require.True(t, r.works(r.key()))
	require.Equal(t, 1, r.posts())
}
