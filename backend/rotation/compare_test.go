// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestSharedKeyIsComparedWithTheTenantsFromTimeToTime(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	before := r.gets()
	r.advance(10*time.Minute - time.Second)
	r.obtain(shared)
	require.Equal(t, before, r.gets())
	r.advance(time.Second)
	require.True(t, r.works(r.obtain(shared)))
	require.Equal(t, before+1, r.gets())
	r.restart()
	r.obtain(shared)
	require.Equal(t, before+1, r.gets(), "it is remembered across restarts")
	require.Equal(t, 1, r.posts())
}

func TestComparisonIsMadeOnceForAllWhoWait(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.advance(time.Hour)
	before := r.gets()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour})
	var done sync.WaitGroup
	for range 50 {
		done.Go(func() { r.obtain(shared) })
	}
	r.waiting(50)
	r.sim.Clear()
	done.Wait()
	require.Equal(t, before+1, r.gets())
}

func TestKeyOfThePortalIsAdopted(t *testing.T) {
	r := configured(t, nil)
	old := r.obtain(shared)
	r.sim.RegenerateInPortal()
	r.advance(time.Hour)
	next := r.obtain(shared)
	require.True(t, r.works(next))
	require.Equal(t, 2, next.Lease.Record.Version)
	require.Equal(t, accesskey.CauseExternal, r.record().Cause)
	require.Contains(t, r.log.String(), "regenerated outside the engine")
	require.Equal(t, 1, r.posts(), "the engine does not fight back")

	require.Equal(t, []string{event.KeyRotate, event.KeyDrift}, r.sent())
	require.Equal(t, health.DriftExternal, r.report().DriftResult)

	r.revoke(old)
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.True(t, r.works(next), "leases on the old key end without consequence")
	r.revoke(next)
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.False(t, r.works(next), "it counts as disclosed once it has been leased")
}

func TestSupersededKeyIsGraphsStaleness(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	require.NoError(t, r.rotate())
	r.advance(time.Hour)
	r.sim.Update(graphtest.WithStaleReads(1))
	require.True(t, r.works(r.obtain(shared)))
	require.Equal(t, accesskey.CauseManual, r.record().Cause)
	require.Equal(t, health.DriftStale, r.report().DriftResult)
}

func TestKeyIsServedWithTheReasonWhenItCannotBeCompared(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.advance(time.Hour)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403})
	before := r.gets()
	for range 3 {
		answer := r.obtain(shared)
		require.True(t, r.works(answer))
		require.Contains(t, answer.Unconfirmed, "403")
	}
	require.Equal(t, before+1, r.gets(), "an outage does not slow down every read")
	r.sim.Clear()
	r.advance(time.Minute)
	require.Empty(t, r.obtain(shared).Unconfirmed)
	require.Equal(t, before+2, r.gets())
}

// Without the report it is not known why, which is no reason to keep the key from readers.
func TestOutageWithoutAReport(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.advance(time.Hour)
	r.restart()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403})
	r.storage.FailWhen(func(op, key string) bool { return op == "get" && key == health.StorageKey })
	require.Equal(t, "Microsoft Graph has not been asked", r.obtain(shared).Unconfirmed)
}

// A comparison goes on beside a change of the configuration. That it fails over the old
// connection says nothing about the new one, be it the same tenant's or another's.
func TestComparisonThatFailsOverAnOldConnection(t *testing.T) {
	another := graphtest.Start(t)
	app := another.App()
	for name, change := range map[string]map[string]any{
		"the same tenant": {config.FieldTTL: "20m"},
		"another tenant": {
			config.FieldTenantID: app.TenantID, config.FieldClientID: app.ClientID, credential.FieldSecret: app.ClientSecret,
			config.FieldGraphEndpoint: another.URL(), config.FieldAuthorityHost: another.URL(), config.FieldCACertificate: another.CACertificate(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.obtain(shared)
			r.advance(time.Hour)
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 429, RetryAfter: "300", Latency: time.Hour})
			before := r.gets()
			var done sync.WaitGroup
			done.Go(func() { require.NoError(t, r.manager.RunDue(r.ctx)) })
			r.started(graphtest.Get, before+1)
			require.NoError(t, r.health.Replace(r.ctx, func() error { r.configure(change); return nil }))
			r.sim.Clear()
			done.Wait()
			require.NoError(t, r.health.May(r.ctx, health.Comparison))
			require.Empty(t, r.report().CompareProblem)
			require.Empty(t, r.report().ThrottledUntil)
			require.NotContains(t, r.sent(), event.KeyCompareFail)
			require.Empty(t, r.obtain(shared).Unconfirmed)
		})
	}
}

func TestNoComparisonIfTheConfigurationSaysSo(t *testing.T) {
	r := configured(t, nil)
	r.configure(map[string]any{config.FieldDriftCheckInterval: 0})
	r.obtain(shared)
	before := r.gets()
	r.advance(24 * time.Hour)
	r.obtain(shared)
	require.Equal(t, before, r.gets())
}

// What Graph has named is known in memory.
func TestComparisonThatCannotBeStored(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.RegenerateInPortal()
	r.advance(time.Hour)
	r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey))
	require.True(t, r.works(r.obtain(shared)))
	r.restart()
	require.Equal(t, accesskey.CauseExternal, r.record().Cause)
}

// An answer that there was no record to compare with shows nothing.
func TestAnswerThatCannotBeCompared(t *testing.T) {
	r := configured(t, nil)
	r.obtain(shared)
	r.sim.RegenerateInPortal()
	r.advance(time.Hour)
	before := r.report().DriftCheckedAt
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour})
	asked := r.gets() + 1
	var done sync.WaitGroup
	done.Go(func() { require.NoError(t, r.manager.RunDue(r.ctx)) })
	r.started(graphtest.Get, asked)
	r.keys.Forget() // as when another node has written
	r.storage.FailWhen(func(op, key string) bool { return op == "get" && key == accesskey.StorageKey })
	r.sim.Clear()
	done.Wait()
	require.Equal(t, before, r.report().DriftCheckedAt)
	r.storage.FailWhen(nil)
	r.runDue()
	require.Equal(t, health.DriftExternal, r.report().DriftResult)
}

// A mount whose key nobody holds learns within about a day that its consent was withdrawn,
// and says so once, with each day's attempt in the report.
func TestWithdrawnConsentShowsOnAnIdleMount(t *testing.T) {
	r := configured(t, nil)
	r.revoke(r.obtain(shared))
	r.runDue() // retires it
	sent := len(r.sent())
	r.sim.Inject(graphtest.Fault{Status: 403})
	for range 50 * 6 {
		r.advance(10 * time.Minute)
		r.runDue()
	}
	require.Equal(t, health.DriftUnknown, r.report().DriftResult)
	require.Contains(t, r.report().CompareProblem, "403")
	require.Equal(t, []string{event.KeyCompareFail}, r.sent()[sent:])
	r.sim.Clear()
	r.advance(time.Hour)
	r.runDue()
	require.Equal(t, health.DriftNone, r.report().DriftResult)
	r.sim.Inject(graphtest.Fault{Status: 403})
	r.advance(25 * time.Hour)
	r.runDue()
	require.Equal(t, []string{event.KeyCompareFail, event.KeyCompareFail}, r.sent()[sent:])
}

// A mount without a key, such as one that nobody has read from yet, signs in once a day. A
// token without the permission is as much a failure as none, and it asks for no key.
func TestTroubleShowsBeforeTheFirstRead(t *testing.T) {
	for name, strike := range map[string]func(*rig){
		"the secret has expired":     func(r *rig) { r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 401}) },
		"consent has been withdrawn": func(r *rig) { r.sim.Update(graphtest.WithRoles()) },
	} {
		t.Run(name, func(t *testing.T) {
			r := configured(t, nil)
			r.sim.Update(graphtest.WithTokenLifetime(time.Minute)) // so near its end, MSAL keeps none
			days := func(n int) (signIns int) {
				before := r.sim.Calls(graphtest.Token).Started
				for range n * 24 {
					r.advance(time.Hour)
					r.runDue()
				}
				return r.sim.Calls(graphtest.Token).Started - before
			}
			require.Contains(t, []int{20, 22}, days(10)) // every 23 to 25 hours, and at first; twice, since no token is kept
			require.Empty(t, r.sent())
			require.Empty(t, r.report().DriftResult)

			strike(r)
			days(3)
			require.Equal(t, health.DriftUnknown, r.report().DriftResult)
			require.Equal(t, []string{event.KeyCompareFail}, r.sent(), "one of a row")
			r.restart()
			r.sim.Clear()
			r.sim.Update(graphtest.WithRoles(graphtest.RoleReadWrite))
			days(1)
			require.Empty(t, r.report().DriftResult)
			require.Zero(t, r.gets()+r.posts())
			require.Zero(t, r.record().Version)
		})
	}
}
