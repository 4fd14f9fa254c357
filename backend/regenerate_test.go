// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// tryKey reads mdi/key once.
func (r *rig) tryKey() (*logical.Response, error) {
	return r.request(r.t.Context(), logical.ReadOperation, keyPath, nil)
}

func TestStorageFailureBeforeTheRequestRegeneratesNothing(t *testing.T) {
	r := configured(t)
	old := r.key()
	r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey)) // the intent
	_, err := r.tryKey()
	require.ErrorIs(t, err, storagetest.ErrBroken)
	require.Equal(t, 1, r.posts())
	require.True(t, r.works(old))
	require.True(t, r.works(r.key()))
}

func TestStorageFailureAfterTheRequestNeverServesTheOldKey(t *testing.T) {
	for name, restart := range map[string]bool{"same process": false, "new process": true} {
		t.Run(name, func(t *testing.T) {
			r := configured(t)
			old := r.key()
			r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey)) // the new version
			_, err := r.tryKey()
			require.ErrorIs(t, err, storagetest.ErrBroken)
			require.Equal(t, 2, r.posts())
			if restart {
				r.restart()
			}
			require.Equal(t, true, r.status()[fieldIntentPending])
			resp := r.key()
			require.NotEqual(t, keyIn(old), keyIn(resp))
			require.True(t, r.works(resp))
			require.Equal(t, 2, r.posts(), "found by GET")
			require.Equal(t, "recovered", r.status()[fieldCause])
			require.Equal(t, false, r.status()[fieldIntentPending])
		})
	}
}

// Whoever is refused because of a failure that passes is told that asking again is all
// there is to do, and whether the key has changed.
func TestFailuresThatPassSaySo(t *testing.T) {
	r := configured(t)
	old := r.key()
	for operation, want := range map[graphtest.Operation]string{
		graphtest.Regenerate: "the key has not been changed; try again",
		graphtest.Get:        "try again",
	} {
		r.sim.Inject(graphtest.Fault{Operation: operation, Status: 503})
		require.Contains(t, r.fails(503, logical.UpdateOperation, rotateKeyPath, nil), want)
		r.sim.Clear()
		require.True(t, r.works(old))
	}
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403})
	require.NotContains(t, r.fails(400, logical.UpdateOperation, rotateKeyPath, nil), "try again", "somebody has to act first")
}

// The very first key: there is no stored one to compare the tenant's with.
func TestFirstRegenerationWhoseAnswerIsLostIsRecovered(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Reset: true})
	resp := r.key()
	require.True(t, r.works(resp))
	require.Equal(t, 1, r.posts())
	require.Equal(t, "recovered", r.status()[fieldCause])
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
			r := configured(t)
			old := r.key()
			fault.Operation, fault.Times, fault.AfterWork = graphtest.Regenerate, 1, true
			r.sim.Inject(fault)
			resp := r.key()
			require.True(t, r.works(resp))
			require.False(t, r.works(old))
			require.Equal(t, 2, r.posts())
			require.Equal(t, "recovered", r.status()[fieldCause])
		})
	}
}

// Nobody can tell whether the request is still on its way, so no key is trusted
// until it cannot be any more.
func TestFailureBeforeTheWorkIsRepeatedAfterTheDeadline(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"reset": {Reset: true},
		"lost":  {Lost: true},
		"500":   {Status: 500},
		"504":   {Status: 504},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t)
			r.key()
			fault.Operation, fault.Times = graphtest.Regenerate, 1
			r.sim.Inject(fault)
			text := r.fails(503, logical.ReadOperation, keyPath, nil)
			require.Contains(t, text, "2027-02-28T12:00:45Z", "when it is repeated")
			require.Contains(t, text, "regenerateDeploymentAccessKey", "what failed")
			status := r.status()
			require.Equal(t, true, status[fieldIntentPending])
			require.Equal(t, "2027-02-28T12:00:00Z", status[fieldIntentStartedAt])
			require.Equal(t, 1, status[fieldConsecutiveFailures])

			r.clock.advance(30 * time.Second)
			require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "began 30s ago")
			require.Equal(t, 1, r.posts())
			r.clock.advance(15 * time.Second)
			require.True(t, r.works(r.key()))
			require.Equal(t, 2, r.posts())
			require.Equal(t, 0, r.status()[fieldConsecutiveFailures])
		})
	}
}

// The request that was given up is carried out later: the key that it made is found.
func TestRequestThatWasStillOnItsWayIsFound(t *testing.T) {
	r := configured(t)
	r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, Stubborn: true, Latency: time.Hour})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	require.Equal(t, 1, r.posts())
	r.sim.Clear() // it arrives
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == 2 }))
	resp := r.key()
	require.True(t, r.works(resp))
	require.Equal(t, 2, r.posts())
	require.Equal(t, "recovered", r.status()[fieldCause])
}

func TestRefusalLeavesTheKeyTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		fault  graphtest.Fault
		status int
		says   string
	}{
		"permission": {graphtest.Fault{Status: 403}, 400, "SecurityIdentitiesSensors.ReadWrite.All"},
		"not there":  {graphtest.Fault{Status: 404}, 400, "404"},
		"conflict":   {graphtest.Fault{Status: 409}, 400, "409"},
		"throttled":  {graphtest.Fault{Status: 429, RetryAfter: "315"}, 503, "5m15s"},
		"overloaded": {graphtest.Fault{Status: 503, RetryAfter: "60"}, 503, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t)
			held := r.key()
			c.fault.Operation = graphtest.Regenerate
			r.sim.Inject(c.fault)
			require.Contains(t, r.fails(c.status, logical.ReadOperation, keyPath, nil), c.says)
			status := r.status()
			require.Equal(t, false, status[fieldIntentPending])
			require.Equal(t, "read", status[fieldLastErrorCause])
			require.Contains(t, status[fieldLastError], c.says)
			require.NotEmpty(t, status[fieldLastErrorCode])
			require.NotEmpty(t, status[fieldLastErrorRequestID])
			require.True(t, r.works(held))
			require.LessOrEqual(t, r.sim.Calls(graphtest.Regenerate).Started, 4, "no retry storm")
			r.sim.Clear()
			r.clock.advance(10 * time.Minute)
			require.True(t, r.works(r.key()))
		})
	}
}

func TestStorageFailureWhenAnIntentIsWithdrawn(t *testing.T) {
	r := configured(t)
	r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	_, err := r.tryKey()
	require.ErrorIs(t, err, storagetest.ErrBroken)
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.clock.advance(flight.Budget)
	require.True(t, r.works(r.key()))
}

func TestSignInFailureLeavesNoIntent(t *testing.T) {
	r := configured(t)
	r.restart() // no token yet
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 401, Code: "7000222"})
	require.Contains(t, r.fails(400, logical.ReadOperation, keyPath, nil), "AADSTS7000222")
	require.Equal(t, false, r.status()[fieldIntentPending])
	require.Zero(t, r.posts())
}

func TestUnreachableGraphWhileAnIntentIsPending(t *testing.T) {
	r := configured(t)
	r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true},
		graphtest.Fault{Operation: graphtest.Get, Status: 503, RetryAfter: "60"})
	require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "HTTP 503")
	r.clock.advance(time.Hour)
	text := r.fails(503, logical.ReadOperation, keyPath, nil)
	require.Contains(t, text, "began 1h0m0s ago")
	require.Contains(t, text, "settled as soon as Graph answers", "the time at which it could be repeated has passed")
	require.Equal(t, 1, r.posts())
	r.sim.Clear()
	r.clock.advance(time.Minute)
	require.True(t, r.works(r.key()))
}

// The clock of the node that takes over may be behind.
func TestIntentFromTheFutureHasNoNegativeAge(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.clock.advance(-time.Minute)
	require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "began 0s ago")
}

func TestGraphThatLagsBehindItselfIsNotBelieved(t *testing.T) {
	r := configured(t)
	for range 3 {
		r.key()
	}
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Lost: true})
	r.sim.Update(graphtest.WithStaleReads(1))
	r.fails(503, logical.ReadOperation, keyPath, nil)
	resp := r.key()
	require.True(t, r.works(resp))
	require.Equal(t, "recovered", r.status()[fieldCause])
}

func TestPlainRejectionOfTheTokenIsRepeatedOnce(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 401})
	require.True(t, r.works(r.key()))
	require.Equal(t, 1, r.posts())
}

// The key that the tenant had before the engine's first one is superseded too.
func TestStaleReadAfterTheFirstKeyIsNotBelieved(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.sim.Update(graphtest.WithStaleReads(1))
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })

	r = configured(t)
	r.key()
	r.sim.Update(graphtest.WithStaleReads(1))
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.fails(503, logical.ReadOperation, keyPath, nil)
}

// A tenant that has never had a key cannot name one.
func TestFirstKeyOfATenantThatNamesNone(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"404":     {Operation: graphtest.Get, Status: 404},
		"no body": {Operation: graphtest.Get, Status: 404, Body: graphtest.BodyEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.sim.Inject(fault)
			r.write(configPath, r.config(map[string]any{config.FieldVerifyConnection: false}))
			require.True(t, r.works(r.key()))

			r = newRig(t)
			r.sim.Inject(fault, graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
			r.write(configPath, r.config(map[string]any{config.FieldVerifyConnection: false}))
			r.fails(503, logical.ReadOperation, keyPath, nil)
			r.clock.advance(flight.Budget)
			require.True(t, r.works(r.key()))
		})
	}
}

// The node that takes over has its clock behind: its wait is no longer than any other.
func TestIntentOfAClockAheadIsDatedAnew(t *testing.T) {
	r := configured(t)
	r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.clock.advance(-time.Hour)
	r.restart()
	require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "2027-02-28T11:00:45Z")
	r.clock.advance(flight.Budget)
	require.True(t, r.works(r.key()))
}

// A reader who joins scheduled work that fails does not get its failure.
func TestReaderWhoJoinsAFailingRetirementTriesByItself(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour, Status: 403})
	started := r.sim.Calls(graphtest.Get).Started
	r.revoke(held)
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Get, func(c graphtest.Calls) bool { return c.Started == started+1 }))
	var resp *logical.Response
	var done sync.WaitGroup
	done.Go(func() { resp = r.key() })
	r.eventually("the reader joins", func() bool { return r.waiting() == 2 })
	r.sim.Clear()
	done.Wait()
	require.True(t, r.works(resp))
}

// The engine was about to regenerate a key that somebody else had made, and the request
// was lost. When the repetition is refused, the key before both is not trusted again.
func TestRefusedRepetitionDoesNotRestoreAKeyThatIsDead(t *testing.T) {
	r := sharing(t, nil)
	r.read(hosts)
	r.sim.RegenerateInPortal()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true},
		graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.fails(503, logical.UpdateOperation, rotateKeyPath, nil)
	r.clock.advance(flight.Budget)
	r.fails(400, logical.UpdateOperation, rotateKeyPath, nil)
	require.True(t, r.works(r.read(hosts)))
	require.Equal(t, "external", r.status()[fieldCause])
}
