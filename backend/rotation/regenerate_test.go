// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestStorageFailureBeforeTheRequestRegeneratesNothing(t *testing.T) {
	r := configured(t, nil)
	old := r.obtain(alone)
	r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey)) // the intent
	require.ErrorIs(t, r.fails(alone), storagetest.ErrBroken)
	require.Equal(t, 1, r.posts())
	require.True(t, r.works(old))
	require.Equal(t, keyIn(old), keyIn(r.obtain(shared)), "it is known that nothing was sent")
	r.advance(health.FirstHold)
	require.True(t, r.works(r.obtain(alone)))
}

// What Graph has answered is known in memory. A process that does not know it has a doubt.
func TestStorageFailureAfterTheRequestNeverServesTheOldKey(t *testing.T) {
	for name, restart := range map[string]bool{"same process": false, "new process": true} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			old := r.obtain(alone)
			r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey)) // the new version
			require.ErrorIs(t, r.fails(alone), storagetest.ErrBroken)
			require.Equal(t, 2, r.posts())
			cause := accesskey.CauseRead
			if restart {
				r.restart()
				require.True(t, r.record().Intent.Doubt)
				cause = accesskey.CauseRecovered
			}
			answer := r.obtain(shared)
			require.NotEqual(t, keyIn(old), keyIn(answer))
			require.True(t, r.works(answer))
			require.Equal(t, 2, r.posts())
			require.Equal(t, cause, r.record().Cause)
			require.Equal(t, restart, answer.Lease.Short)
			require.Zero(t, r.record().Intent)
		})
	}
}

// lostAnswers are the ways in which Graph's answer can be missing or prove nothing.
var lostAnswers = map[string]graphtest.Fault{
	"reset":          {Reset: true},
	"lost":           {Lost: true},
	"500":            {Status: 500},
	"502":            {Status: 502, Body: graphtest.BodyHTML},
	"504":            {Status: 504},
	"truncated":      {Body: graphtest.BodyTruncated},
	"empty":          {Body: graphtest.BodyEmpty},
	"two keys":       {Body: graphtest.BodyDisagreeing},
	"a proxy's page": {Body: graphtest.BodyHTML},
	"a proxy's 401":  {Status: 401, Body: graphtest.BodyHTML},
	"a proxy's 403":  {Status: 403, Body: graphtest.BodyHTML},
	"408":            {Status: 408},
	"409":            {Status: 409},
	"a proxy's 429":  {Status: 429, Body: graphtest.BodyHTML},
	"a proxy's 503":  {Status: 503, Body: graphtest.BodyHTML},
	"a redirect":     {Status: 307},
}

// The reader who wants a new key gets one that a regeneration has answered. Whoever
// shares gets the key that Graph names.
func TestRegenerationWithoutAnAnswer(t *testing.T) {
	for name, fault := range lostAnswers {
		for when, after := range map[string]bool{"before the work": false, "after it": true} {
			t.Run(name+" "+when, func(t *testing.T) {
				r := configured(t, nil)
				old := r.obtain(alone)
				fault.Operation, fault.Times, fault.AfterWork = graphtest.Regenerate, 1, after
				r.sim.Inject(fault)
				answer := r.obtain(alone)
				require.Equal(t, 2, r.sim.Calls(graphtest.Regenerate).Started-1, "it is repeated once")
				require.True(t, r.works(answer))
				require.False(t, r.works(old))
				require.Equal(t, accesskey.CauseRead, answer.Lease.Record.Cause)
				require.True(t, answer.Lease.Short, "the first may still be carried out")
				require.Equal(t, keyIn(answer), keyIn(r.obtain(shared)))
			})
		}
	}
}

func TestHostsGoOnWhileRegenerationsGetNoAnswer(t *testing.T) {
	for name, fault := range lostAnswers {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.obtain(shared)
			fault.Operation = graphtest.Regenerate
			r.sim.Inject(fault)
			text := r.unsettled(alone)
			require.Contains(t, text, "may have regenerated the key")
			require.Contains(t, text, "regenerateDeploymentAccessKey", "what failed")
			for range 20 {
				answer := r.obtain(shared)
				require.True(t, r.works(answer))
				require.Equal(t, accesskey.ShortTTL, answer.Lease.TTL)
				require.Empty(t, answer.Unconfirmed)
				r.advance(11 * time.Second)
				_ = r.fails(alone)
			}
			require.Contains(t, r.report().LastError, "regenerateDeploymentAccessKey")
		})
	}
}

// The request that was given up is carried out later: the key that it made is found.
func TestRequestThatWasStillOnItsWayIsFound(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, Stubborn: true, Latency: time.Hour})
	require.Error(t, r.rotateOnce())
	require.Equal(t, 1, r.posts())
	r.sim.Clear() // it arrives
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == 2 }))
	r.advance(11 * time.Second)
	answer := r.obtain(shared)
	require.True(t, r.works(answer))
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

// A flight that runs out of time leaves a doubt.
func TestRegenerationThatRunsOutOfTime(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.flightTime = 100 * time.Millisecond
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Latency: time.Hour})
	require.Error(t, r.rotateOnce())
	require.Equal(t, 2, r.posts())
	r.flightTime = 0
	require.True(t, r.works(r.obtain(shared)))
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

func TestRefusalLeavesTheKeyTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		fault graphtest.Fault
		says  string
	}{
		"permission": {graphtest.Fault{Status: 403}, graph.Permission},
		"not there":  {graphtest.Fault{Status: 404}, "404"},
		"throttled":  {graphtest.Fault{Status: 429, RetryAfter: "315"}, "5m15s"},
		"overloaded": {graphtest.Fault{Status: 503, RetryAfter: "60"}, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			held := r.obtain(alone)
			c.fault.Operation = graphtest.Regenerate
			r.sim.Inject(c.fault)
			require.ErrorContains(t, r.fails(alone), strings.TrimSuffix(c.says, graph.Permission))
			require.Zero(t, r.record().Intent)
			report := r.report()
			require.Equal(t, accesskey.CauseRead, report.LastErrorCause)
			require.Contains(t, report.LastError, c.says)
			require.NotEmpty(t, report.LastErrorCode)
			require.NotEmpty(t, report.LastErrorRequestID)
			require.True(t, r.works(held))
			require.False(t, r.obtain(shared).Lease.Short)
			require.LessOrEqual(t, r.sim.Calls(graphtest.Regenerate).Started, 4, "no retry storm")
			r.sim.Clear()
			r.advance(10 * time.Minute)
			require.True(t, r.works(r.obtain(alone)))
		})
	}
}

// Graph has refused, and that is known in memory.
func TestStorageFailureWhenAnIntentIsWithdrawn(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	require.ErrorContains(t, r.fails(alone), "403")
	require.Equal(t, keyIn(held), keyIn(r.obtain(shared)))
	r.restart()
	require.False(t, r.record().Intent.Doubt, "a lease stores what is known first")
}

func TestSignInFailureLeavesNoIntent(t *testing.T) {
	r := configured(t, nil)
	r.restart() // no token yet
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 401, Code: "7000222"})
	require.ErrorContains(t, r.fails(alone), "AADSTS7000222")
	require.Zero(t, r.record().Intent)
	require.Zero(t, r.posts())
}

// While neither GET nor POST answers, nobody can tell which key is the tenant's. After
// thirty seconds, one reader at a time may have it regenerated, which settles that too.
func TestDoubtWhileGraphDoesNotNameTheKey(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true},
		graphtest.Fault{Operation: graphtest.Get, Status: 500})
	require.Error(t, r.rotateOnce())
	require.ErrorIs(t, r.fails(shared), accesskey.ErrInDoubt)
	r.advance(20 * time.Second)
	require.ErrorIs(t, r.fails(shared), accesskey.ErrInDoubt)
	require.Zero(t, r.posts()-1)
	r.advance(10 * time.Second)
	answer := r.obtain(shared)
	require.True(t, r.works(answer))
	require.True(t, answer.Lease.Short)
	require.Equal(t, 2, r.posts())
	next := r.obtain(shared)
	require.True(t, r.works(next), "a POST has answered since")
	require.NotEmpty(t, next.Unconfirmed)
}

// Nobody waits for longer because the clock of a node that has gone was ahead.
func TestDoubtOfAClockAhead(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true}, graphtest.Fault{Operation: graphtest.Get, Status: 500})
	require.Error(t, r.rotateOnce())
	r.advance(-24 * time.Hour)
	r.restart()
	require.ErrorIs(t, r.fails(shared), accesskey.ErrInDoubt)
	r.advance(accesskey.DoubtFor)
	require.True(t, r.works(r.obtain(shared)))
}

// Graph names a key that is superseded: the record stands, and the doubt is over.
func TestGraphThatLagsBehindItselfIsNotBelieved(t *testing.T) {
	r := configured(t, nil)
	for range 3 {
		r.obtain(alone)
		r.advance(time.Second)
	}
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Lost: true})
	r.sim.Update(graphtest.WithStaleReads(2))
	require.Error(t, r.rotateOnce())
	r.advance(11 * time.Second)
	_ = r.obtain(shared)
	r.advance(11 * time.Second)
	require.True(t, r.works(r.obtain(shared)))
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

func TestPlainRejectionOfTheTokenIsRepeatedOnce(t *testing.T) {
	r := configured(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 401})
	require.True(t, r.works(r.obtain(alone)))
	require.Equal(t, 1, r.posts())
}

// A regeneration that is answered with a key from before it has failed.
func TestRegenerationThatAnswersAnOldKey(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 2, Body: graphtest.BodyOldKey})
	require.Contains(t, r.unsettled(alone), "a key from before")
	answer := r.obtain(shared)
	require.Equal(t, keyIn(held), keyIn(answer))
	require.True(t, answer.Lease.Short)
}

// A tenant that has never had a key cannot name one.
func TestFirstKeyOfATenantThatNamesNone(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"404":     {Operation: graphtest.Get, Status: 404},
		"no body": {Operation: graphtest.Get, Status: 404, Body: graphtest.BodyEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.sim.Inject(fault)
			require.True(t, r.works(r.obtain(alone)))

			r = configured(t, nil)
			r.sim.Inject(fault, graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
			require.Error(t, r.fails(alone))
			r.advance(accesskey.DoubtFor)
			require.True(t, r.works(r.obtain(alone)))
		})
	}
}

// A reader who joins scheduled work that fails does not get its failure.
func TestReaderWhoJoinsAFailingRetirementGoesOnAlone(t *testing.T) {
	r := configured(t, nil)
	r.revoke(r.obtain(alone))
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour, Status: 403, Body: graphtest.BodyHTML})
	started := r.gets()
	var answer *rotation.Answer
	var done sync.WaitGroup
	done.Go(func() { _ = r.manager.RetireIfDue(r.ctx) })
	r.started(graphtest.Get, started+1)
	done.Go(func() { answer = r.obtain(alone) })
	require.Eventually(t, func() bool { return r.flights.Waiters(accesskey.CauseRetired) == 2 }, 5*time.Second, time.Millisecond)
	r.sim.Clear()
	done.Wait()
	require.True(t, r.works(answer))
}

// Readers who share wait for another's regeneration for two seconds, and no longer.
func TestWhoSharesIsServedBesideARegeneration(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(shared)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	var done sync.WaitGroup
	done.Go(func() { require.True(t, r.works(r.obtain(alone))) })
	r.started(graphtest.Regenerate, 2)
	begun := time.Now()
	answer := r.obtain(shared)
	require.Less(t, time.Since(begun), 5*time.Second)
	require.Equal(t, keyIn(held), keyIn(answer))
	require.True(t, answer.Lease.Short)
	r.sim.Clear()
	done.Wait()
	require.False(t, r.works(held))
	require.True(t, r.works(r.obtain(shared)))
}

// One who gives up leaves no lease.
func TestReaderWhoLeavesKeepsNoKeyAlive(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(shared)
	ctx, leave := context.WithCancel(r.ctx)
	r.storage.FailWhen(func(op, key string) bool {
		if op == "put" && strings.HasPrefix(key, "lease/") {
			leave()
		}
		return false
	})
	_, err := r.manager.Obtain(ctx, shared)
	require.Error(t, err)
	r.storage.FailWhen(nil)
	r.revoke(held)
	require.Eventually(t, func() bool { live, err := r.keys.Live(r.ctx); return err == nil && live == 0 }, 5*time.Second, time.Millisecond)
}

// A reader who needs a new key and finds other work under way gets what that makes, before
// work that waits. If that work is lost, the reader has it repeated, as after a loss of its own.
func TestReaderBesideTheWorkOfOthers(t *testing.T) {
	retire := func(r *rig) { _ = r.manager.RetireIfDue(r.ctx) }
	rotate := func(r *rig) { require.NoError(r.t, r.rotate()) }
	for name, c := range map[string]struct {
		purpose string
		work    func(*rig)
		status  int
	}{
		"a lost retirement":     {accesskey.CauseRetired, retire, 504},
		"a lost rotation":       {accesskey.CauseManual, rotate, 504},
		"a rotation that works": {accesskey.CauseManual, rotate, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.revoke(r.obtain(alone))
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour, Status: c.status})
			started := r.sim.Calls(graphtest.Regenerate).Started
			var all sync.WaitGroup
			defer all.Wait()
			all.Go(func() { c.work(r) })
			r.started(graphtest.Regenerate, started+1)
			served := make(chan struct{})
			all.Go(func() {
				_ = r.flights.Alone(r.ctx, flight.Configuration, func(ctx context.Context) error {
					if c.status == 0 {
						select {
						case <-served:
						case <-ctx.Done():
						}
					}
					return nil
				})
			})
			var answer *rotation.Answer
			all.Go(func() {
				defer close(served)
				answer = r.obtain(alone)
			})
			require.Eventually(t, func() bool { return r.flights.Waiters(c.purpose) == 2 }, 5*time.Second, time.Millisecond)
			r.sim.Clear()
			<-served
			require.True(t, r.works(answer))
		})
	}
}
