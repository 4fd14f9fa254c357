// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
)

// An operator who wants every key so far to be dead gets what a regeneration of their own
// has answered, whatever state the key is in and whatever Graph's GET says.
func TestRotateInEveryState(t *testing.T) {
	for name, arise := range map[string]func(*rig){
		"settled":        func(*rig) {},
		"made elsewhere": func(r *rig) { r.sim.RegenerateInPortal() },
		"GET fails":      func(r *rig) { r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 500}) },
		"GET is refused": func(r *rig) { r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403}) },
		"throttled":      func(r *rig) { r.failOnce(graphtest.Fault{Status: 503, RetryAfter: "315360000"}) },
		"held":           func(r *rig) { r.failOnce(graphtest.Fault{Status: 403}) },
		"in doubt":       func(r *rig) { r.failOnce(graphtest.Fault{Reset: true, AfterWork: true}) },
		"in doubt, blind": func(r *rig) {
			r.failOnce(graphtest.Fault{Reset: true})
			r.sim.Inject(graphtest.Fault{Status: 500, Operation: graphtest.Get})
		},
		"its own answer is lost": func(r *rig) {
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, AfterWork: true})
		},
		"its own answer is an old key": func(r *rig) {
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Body: graphtest.BodyOldKey})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			held := r.obtain(shared)
			arise(r)
			leaked := r.sim.Key()
			rec, err := r.manager.Rotate(r.ctx)
			require.NoError(t, err)
			require.Equal(t, accesskey.CauseManual, rec.Cause)
			require.False(t, r.works(held))
			require.False(t, r.sim.CanRegister(leaked))
			require.Zero(t, r.record().WantedSince)
		})
	}
}

// failOnce makes one regeneration fail.
func (r *rig) failOnce(f graphtest.Fault) {
	f.Operation, f.Times = graphtest.Regenerate, 1
	r.sim.Inject(f)
	require.Error(r.t, r.rotateOnce())
	_, _, _ = r.keys.Apply(r.ctx, accesskey.Event{Kind: accesskey.Wanted})
}

// Until a regeneration that began after the request has been answered, the engine goes on,
// across restarts.
func TestRotationThatIsWantedIsDone(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"refused":     {Status: 403},
		"overloaded":  {Status: 503, RetryAfter: "86400"},
		"no answer":   {Reset: true},
		"carried out": {Lost: true, AfterWork: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, map[string]any{"disable_automated_rotation": true})
			held := r.obtain(shared)
			fault.Operation = graphtest.Regenerate
			r.sim.Inject(fault)
			ctx, cancel := context.WithTimeout(r.ctx, time.Second)
			defer cancel()
			_, err := r.manager.Rotate(ctx)
			require.Error(t, err)
			since := r.record().WantedSince
			require.NotZero(t, since)
			r.advance(time.Minute)
			r.restart()
			r.runDue()
			require.Equal(t, since, r.record().WantedSince)
			r.sim.Clear()
			leaked := r.sim.Key()
			r.advance(time.Minute)
			r.runDue()
			require.Zero(t, r.record().WantedSince)
			require.Equal(t, accesskey.CauseManual, r.record().Cause)
			require.False(t, r.works(held))
			require.False(t, r.sim.CanRegister(leaked))
			posts := r.posts()
			r.runDue()
			require.Equal(t, posts, r.posts())
		})
	}
}

// A rotation does not join a regeneration that began before it, and goes first when its
// turn comes.
func TestRotateDoesNotJoinAnOlderRegeneration(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	var done sync.WaitGroup
	var first, later *rotation.Answer
	done.Go(func() { first = r.obtain(alone) })
	r.started(graphtest.Regenerate, 2)
	done.Go(func() { require.NoError(t, r.rotate()) })
	require.Eventually(t, func() bool { return r.flights.Waiters(accesskey.CauseManual) == 1 }, 5*time.Second, time.Millisecond)
	done.Go(func() {
		require.NoError(t, r.flights.Alone(r.ctx, flight.Configuration, func(context.Context) error { return nil }))
	})
	r.sim.Clear()
	done.Wait()
	require.Equal(t, 3, r.posts())
	require.False(t, r.works(first))
	later = r.obtain(shared)
	require.True(t, r.works(later))
	require.Equal(t, accesskey.CauseManual, later.Lease.Record.Cause)
}

// Calls that overlap share one regeneration.
func TestRotationsShare(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	var done sync.WaitGroup
	for range 10 {
		done.Go(func() { require.NoError(t, r.rotate()) })
	}
	require.Eventually(t, func() bool { return r.flights.Waiters(accesskey.CauseManual) == 10 }, 5*time.Second, time.Millisecond)
	r.sim.Clear()
	done.Wait()
	require.Equal(t, 2, r.posts())
}
