// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
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
	require.True(t, r.works(r.obtain(alone)))
}

func TestStorageFailureAfterTheRequestNeverServesTheOldKey(t *testing.T) {
	for name, restart := range map[string]bool{"same process": false, "new process": true} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			old := r.obtain(alone)
			r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey)) // the new version
			require.ErrorIs(t, r.fails(alone), storagetest.ErrBroken)
			require.Equal(t, 2, r.posts())
			if restart {
				r.restart()
			}
			require.NotNil(t, r.record().Intent)
			answer := r.obtain(alone)
			require.NotEqual(t, keyIn(old), keyIn(answer))
			require.True(t, r.works(answer))
			require.Equal(t, 2, r.posts(), "found by GET")
			require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
			require.Nil(t, r.record().Intent)
		})
	}
}

// The very first key: there is no stored one to compare the tenant's with.
func TestFirstRegenerationWhoseAnswerIsLostIsRecovered(t *testing.T) {
	r := configured(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Reset: true})
	answer := r.obtain(alone)
	require.True(t, r.works(answer))
	require.Equal(t, 1, r.posts())
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

func TestFailureAfterTheWorkIsRecoveredAtOnce(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"reset":          {Reset: true},
		"lost":           {Lost: true},
		"500":            {Status: 500},
		"502":            {Status: 502, Body: graphtest.BodyHTML},
		"504":            {Status: 504},
		"truncated":      {Body: graphtest.BodyTruncated},
		"empty":          {Body: graphtest.BodyEmpty},
		"two keys":       {Body: graphtest.BodyDisagreeing},
		"a proxy's page": {Body: graphtest.BodyHTML},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			old := r.obtain(alone)
			fault.Operation, fault.Times, fault.AfterWork = graphtest.Regenerate, 1, true
			r.sim.Inject(fault)
			answer := r.obtain(alone)
			require.True(t, r.works(answer))
			require.False(t, r.works(old))
			require.Equal(t, 2, r.posts())
			require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
		})
	}
}

// The request may still be on its way, so no key is trusted until it no longer can be.
func TestFailureBeforeTheWorkIsRepeatedAfterTheDeadline(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"reset": {Reset: true},
		"lost":  {Lost: true},
		"500":   {Status: 500},
		"504":   {Status: 504},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.obtain(alone)
			fault.Operation, fault.Times = graphtest.Regenerate, 1
			r.sim.Inject(fault)
			text := r.unsettled(alone)
			require.Contains(t, text, "2027-02-28T12:00:45Z", "when it is repeated")
			require.Contains(t, text, "regenerateDeploymentAccessKey", "what failed")
			require.Equal(t, r.time(), r.record().Intent.StartedAt)
			require.Equal(t, 1, r.report().Failures)

			r.advance(30 * time.Second)
			require.Contains(t, r.unsettled(alone), "began 30s ago")
			require.Equal(t, 1, r.posts())
			r.advance(15 * time.Second)
			require.True(t, r.works(r.obtain(alone)))
			require.Equal(t, 2, r.posts())
			require.Zero(t, r.report().Failures)
		})
	}
}

// A flight that runs out of time leaves the outcome to the next one.
func TestRegenerationThatRunsOutOfTime(t *testing.T) {
	r := configured(t, nil)
	r.obtain(alone)
	r.flightTime = 100 * time.Millisecond
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Latency: time.Hour})
	r.unsettled(alone)
	require.Equal(t, 2, r.posts())
	r.flightTime = 0
	require.True(t, r.works(r.obtain(alone)))
	require.Equal(t, 2, r.posts())
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

// The request that was given up is carried out later: the key that it made is found.
func TestRequestThatWasStillOnItsWayIsFound(t *testing.T) {
	r := configured(t, nil)
	r.obtain(alone)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, Stubborn: true, Latency: time.Hour})
	r.unsettled(alone)
	require.Equal(t, 1, r.posts())
	r.sim.Clear() // it arrives
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == 2 }))
	answer := r.obtain(alone)
	require.True(t, r.works(answer))
	require.Equal(t, 2, r.posts())
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

func TestRefusalLeavesTheKeyTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		fault graphtest.Fault
		says  string
	}{
		"permission": {graphtest.Fault{Status: 403}, graph.Permission},
		"not there":  {graphtest.Fault{Status: 404}, "404"},
		"conflict":   {graphtest.Fault{Status: 409}, "409"},
		"throttled":  {graphtest.Fault{Status: 429, RetryAfter: "315"}, "5m15s"},
		"overloaded": {graphtest.Fault{Status: 503, RetryAfter: "60"}, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			held := r.obtain(alone)
			c.fault.Operation = graphtest.Regenerate
			r.sim.Inject(c.fault)
			require.ErrorContains(t, r.fails(alone), strings.TrimSuffix(c.says, graph.Permission))
			require.Nil(t, r.record().Intent)
			report := r.report()
			require.Equal(t, accesskey.CauseRead, report.LastErrorCause)
			require.Contains(t, report.LastError, c.says)
			require.NotEmpty(t, report.LastErrorCode)
			require.NotEmpty(t, report.LastErrorRequestID)
			require.True(t, r.works(held))
			require.LessOrEqual(t, r.sim.Calls(graphtest.Regenerate).Started, 4, "no retry storm")
			r.sim.Clear()
			r.advance(10 * time.Minute)
			require.True(t, r.works(r.obtain(alone)))
		})
	}
}

func TestStorageFailureWhenAnIntentIsWithdrawn(t *testing.T) {
	r := configured(t, nil)
	r.obtain(alone)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	require.ErrorIs(t, r.fails(alone), storagetest.ErrBroken)
	r.unsettled(alone)
	r.advance(flight.Budget)
	require.True(t, r.works(r.obtain(alone)))
}

func TestSignInFailureLeavesNoIntent(t *testing.T) {
	r := configured(t, nil)
	r.restart() // no token yet
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 401, Code: "7000222"})
	require.ErrorContains(t, r.fails(alone), "AADSTS7000222")
	require.Nil(t, r.record().Intent)
	require.Zero(t, r.posts())
}

func TestUnreachableGraphWhileAnIntentIsPending(t *testing.T) {
	r := configured(t, nil)
	r.obtain(alone)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true},
		graphtest.Fault{Operation: graphtest.Get, Status: 503, RetryAfter: "60"})
	require.Contains(t, r.unsettled(alone), "HTTP 503")
	r.advance(time.Hour)
	text := r.unsettled(alone)
	require.Contains(t, text, "began 1h0m0s ago")
	require.Contains(t, text, "settled as soon as Graph answers", "the time at which it could be repeated has passed")
	require.Equal(t, 1, r.posts())
	r.sim.Clear()
	r.advance(time.Minute)
	require.True(t, r.works(r.obtain(alone)))
}

// The clock of the node that takes over may be behind.
func TestIntentFromTheFutureHasNoNegativeAge(t *testing.T) {
	r := configured(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.unsettled(alone)
	r.advance(-time.Minute)
	require.Contains(t, r.unsettled(alone), "began 0s ago")
}

func TestGraphThatLagsBehindItselfIsNotBelieved(t *testing.T) {
	r := configured(t, nil)
	for range 3 {
		r.obtain(alone)
	}
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Lost: true})
	r.sim.Update(graphtest.WithStaleReads(1))
	r.unsettled(alone)
	answer := r.obtain(alone)
	require.True(t, r.works(answer))
	require.Equal(t, accesskey.CauseRecovered, r.record().Cause)
}

func TestPlainRejectionOfTheTokenIsRepeatedOnce(t *testing.T) {
	r := configured(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 401})
	require.True(t, r.works(r.obtain(alone)))
	require.Equal(t, 1, r.posts())
}

// The key that the tenant had before the engine's first one is superseded too.
func TestStaleReadAfterTheFirstKeyIsNotBelieved(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(alone)
	r.sim.Update(graphtest.WithStaleReads(1))
	r.revoke(held)
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.False(t, r.works(held))

	r = configured(t, nil)
	r.obtain(alone)
	r.sim.Update(graphtest.WithStaleReads(1))
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.unsettled(alone)
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
			r.unsettled(alone)
			r.advance(flight.Budget)
			require.True(t, r.works(r.obtain(alone)))
		})
	}
}

// The node that takes over has its clock behind: its wait is no longer than any other.
func TestIntentOfAClockAheadIsDatedAnew(t *testing.T) {
	r := configured(t, nil)
	r.obtain(alone)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.unsettled(alone)
	r.advance(-time.Hour)
	r.restart()
	require.Contains(t, r.unsettled(alone), "2027-02-28T11:00:45Z")
	r.advance(flight.Budget)
	require.True(t, r.works(r.obtain(alone)))
}

// A reader who joins scheduled work that fails does not get its failure.
func TestReaderWhoJoinsAFailingRetirementGoesOnAlone(t *testing.T) {
	r := configured(t, nil)
	r.revoke(r.obtain(alone))
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour, Status: 403})
	started := r.gets()
	var answer *rotation.Answer
	var done sync.WaitGroup
	done.Go(func() { _ = r.manager.RetireIfDue(r.ctx) })
	r.started(graphtest.Get, started+1)
	done.Go(func() { answer = r.obtain(alone) })
	r.waiting(2)
	r.sim.Clear()
	done.Wait()
	require.True(t, r.works(answer))
}

// The engine was about to regenerate a key that was made elsewhere, and the request
// was lost. When the repetition is refused, the key before both is not trusted again.
func TestRefusedRepetitionDoesNotRestoreAKeyThatIsDead(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.RegenerateInPortal()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true},
		graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.isUnsettled(r.rotate())
	r.advance(flight.Budget)
	require.ErrorContains(t, r.rotate(), "403")
	require.True(t, r.works(r.obtain(shared)))
	require.Equal(t, accesskey.CauseExternal, r.record().Cause)
}
