// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestObtainOnTheTermsOfTheReader(t *testing.T) {
	r := configured(t, map[string]any{config.FieldTTL: "10m"})
	first := r.obtain(alone)
	require.True(t, r.works(first))
	require.False(t, first.Reused)
	require.Equal(t, 10*time.Minute, first.Lease.TTL)
	require.Equal(t, accesskey.CauseRead, first.Lease.Record.Cause)
	joined := r.obtain(terms(func(base accesskey.Terms) accesskey.Terms {
		require.Equal(t, accesskey.Terms{TTL: 10 * time.Minute}, base)
		return accesskey.Terms{TTL: time.Minute, MaxAge: accesskey.AnyAge}
	}))
	require.Equal(t, keyIn(first), keyIn(joined))
	require.True(t, joined.Reused)
	require.Equal(t, time.Minute, joined.Lease.TTL)
	next := r.obtain(alone)
	require.False(t, next.Reused)
	require.False(t, r.works(first))
	require.Equal(t, 2, r.posts())
	require.Equal(t, []string{event.KeyRotate, event.KeyRotate, event.KeyRetire}, r.sent())
}

func TestObtainWithoutAConfiguration(t *testing.T) {
	r := newRig(t)
	require.ErrorIs(t, r.fails(shared), config.ErrUnconfigured)
	require.ErrorIs(t, r.rotate(), config.ErrUnconfigured)
	r.runDue()
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.Empty(t, r.turnAway())
	require.Empty(t, r.log.String())
}

func TestLeaseIsCappedByTheMount(t *testing.T) {
	r := configured(t, nil)
	for _, c := range []struct{ maximum, want time.Duration }{
		{0, time.Hour}, // core cannot be asked
		{2 * time.Minute, 2 * time.Minute},
		{48 * time.Hour, time.Hour},
	} {
		r.maxTTL = c.maximum
		require.Equal(t, c.want, r.obtain(shared).Lease.TTL)
	}
}

func TestReadersShareARegeneration(t *testing.T) {
	const readers = 20
	r := configured(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	answers := make([]*rotation.Answer, readers)
	var done sync.WaitGroup
	for i := range answers {
		done.Go(func() { answers[i] = r.obtain(alone) })
	}
	r.waiting(readers)
	r.sim.Clear()
	done.Wait()
	require.Equal(t, 1, r.posts())
	for _, a := range answers {
		require.True(t, r.works(a))
		require.False(t, a.Reused)
	}
	live, err := r.keys.Live(r.ctx)
	require.NoError(t, err)
	require.Equal(t, readers, live)
}

// The regeneration outlives the reader, and the next one finds its result.
func TestReaderWhoseTimeIsUp(t *testing.T) {
	r := configured(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	ctx, hangUp := context.WithCancel(r.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		_, err := r.manager.Obtain(ctx, alone)
		require.ErrorIs(t, err, context.Canceled)
	})
	r.waiting(1)
	hangUp()
	done.Wait()
	r.sim.Clear()
	require.True(t, r.works(r.obtain(alone)))
	require.Equal(t, 1, r.posts())
}

// Readers who need a new key leave Graph alone for five minutes at most, and those who
// share go on. An operator does not wait.
func TestThrottledGraphIsLeftAlone(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 429, RetryAfter: "900"})
	require.Error(t, r.fails(alone))
	posts := r.sim.Calls(graphtest.Regenerate).Started
	throttled := r.fails(alone)
	require.ErrorIs(t, throttled, health.ErrThrottled)
	require.ErrorContains(t, throttled, r.time().Add(5*time.Minute).Format(time.RFC3339))
	require.Equal(t, keyIn(held), keyIn(r.obtain(shared)))
	require.Equal(t, posts, r.sim.Calls(graphtest.Regenerate).Started)
	require.NoError(t, r.rotate())
	require.False(t, r.works(held))

	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 503, RetryAfter: "315360000"})
	require.Error(t, r.fails(alone))
	r.advance(5 * time.Minute)
	require.True(t, r.works(r.obtain(alone)))
}

// A failure holds the next regeneration for readers: they get it, and until when.
func TestReadersWaitAfterAFailure(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	for _, wait := range []int{2, 4, 8, 16, 32, 60, 60} {
		before := r.sim.Calls(graphtest.Regenerate).Started
		require.ErrorContains(t, r.fails(alone), "403")
		require.Equal(t, before+1, r.sim.Calls(graphtest.Regenerate).Started)
		r.advance(time.Duration(wait)*time.Second - 1)
		var held *health.HeldError
		require.ErrorAs(t, r.fails(alone), &held)
		require.ErrorContains(t, held, "403")
		require.Equal(t, before+1, r.sim.Calls(graphtest.Regenerate).Started)
		r.advance(1)
	}
	require.NoError(t, r.health.Replace(r.ctx, saved)) // as a verified configuration does
	r.sim.Clear()
	require.True(t, r.works(r.obtain(alone)))
}

// Regenerations are a second apart, whatever readers do.
func TestPaceOfRegenerations(t *testing.T) {
	r := configured(t, nil)
	begun := r.time()
	for range 20 {
		answer := r.obtain(alone)
		r.revoke(answer)
		require.NoError(t, r.manager.RetireIfDue(r.ctx))
	}
	require.Equal(t, 40, r.posts())
	require.Equal(t, 39*time.Second, r.time().Sub(begun))
}

// A reader who leaves while the key or the report of its success is being stored leaves no
// lease, although one was recorded meanwhile.
func TestReaderWhoLeavesDuringTheStoring(t *testing.T) {
	for during, put := range map[string]struct {
		key string
		nth int
	}{
		"of the key":    {accesskey.StorageKey, 2}, // the first is the intent
		"of the report": {health.StorageKey, 1},
	} {
		t.Run(during, func(t *testing.T) {
			r := configured(t, nil)
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
			_ = r.fails(alone) // so that a success is reported
			r.advance(time.Hour)
			ctx, leave := context.WithCancel(r.ctx)
			left, reached := make(chan error, 1), make(chan struct{})
			at := storagetest.Nth(put.nth, "put", put.key)
			r.storage.FailWhen(func(op, key string) bool {
				if at(op, key) {
					close(reached)
					leave()
					require.ErrorIs(t, <-left, context.Canceled)
				}
				return false
			})
			go func() {
				_, err := r.manager.Obtain(ctx, alone)
				left <- err
			}()
			<-reached
			require.NoError(t, r.flights.Alone(t.Context(), flight.Schedule, func(context.Context) error { return nil }))
			live, err := r.keys.Live(t.Context())
			require.NoError(t, err)
			require.Zero(t, live)
			require.Equal(t, 1, r.record().Version)
		})
	}
}
