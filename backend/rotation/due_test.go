// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// due returns what is due.
func (r *rig) due() []string {
	r.t.Helper()
	_, due, err := r.keys.Due(r.ctx)
	require.NoError(r.t, err)
	return due
}

// work is a situation in which the engine has something to do.
type work struct {
	name   string
	fields map[string]any
	arise  func(*rig)
	cause  string // of the key that comes of it
	posts  int    // all in all
}

var works = []work{
	{accesskey.WorkWanted, nil, func(r *rig) { _, _, _ = r.keys.Apply(r.ctx, accesskey.Event{Kind: accesskey.Wanted}) }, accesskey.CauseManual, 2},
	{accesskey.WorkSettle, nil, func(r *rig) {
		r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, AfterWork: true}, graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 403})
		require.ErrorIs(r.t, r.fails(alone), accesskey.ErrInDoubt)
	}, accesskey.CauseRecovered, 2},
	{accesskey.WorkRotate, map[string]any{schedule.FieldPeriod: "1h", config.FieldTTL: "24h"}, func(r *rig) { r.advance(time.Hour) }, accesskey.CauseRotation, 2},
	{accesskey.WorkRetire, nil, func(r *rig) { r.advance(time.Hour + lease.Grace + lease.PageSpan) }, accesskey.CauseRetired, 2},
	{accesskey.WorkCompare, nil, func(r *rig) { r.sim.RegenerateInPortal(); r.advance(10 * time.Minute) }, accesskey.CauseExternal, 1},
}

func TestRunDueDoesEachKindOfWork(t *testing.T) {
	for _, w := range works {
		t.Run(w.name, func(t *testing.T) {
			r := configured(t, w.fields)
			held := r.obtain(shared)
			r.runDue()
			require.Equal(t, 1, r.posts(), "nothing is due yet")
			w.arise(r)
			require.Equal(t, w.name, r.due()[0])
			r.runDue()
			require.Equal(t, w.cause, r.record().Cause)
			require.Zero(t, r.record().Intent)
			require.Equal(t, w.posts, r.posts())
			require.False(t, r.works(held))
			require.Empty(t, r.due())
		})
	}
}

// While Graph cannot even name the key, unattended work stores no intent and backs off.
func TestRunDueWithGraphDown(t *testing.T) {
	for _, w := range works[1:] { // an operator's is sent in spite of all
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			r := configured(t, w.fields)
			r.obtain(shared)
			w.arise(r)
			before := r.record()
			r.sim.Inject(graphtest.Fault{Status: 502, Body: graphtest.BodyHTML})
			asked := r.gets()
			for range 3 {
				r.runDue()
			}
			require.Greater(t, r.gets(), asked)
			require.Equal(t, before, r.record())
			asked = r.gets()
			r.runDue()
			if w.name == accesskey.WorkCompare || w.name == accesskey.WorkSettle {
				require.Equal(t, health.DriftUnknown, r.report().DriftResult)
				require.Contains(t, r.log.String(), "could not be compared")
			} else {
				require.LessOrEqual(t, r.gets(), asked+1, "only a probe")
				require.True(t, r.report().NextAttempt.After(r.time()))
				require.Contains(t, r.sent(), event.KeyRotateFail)
			}
			r.sim.Clear()
			r.advance(2 * time.Minute)
			r.runDue()
			require.Equal(t, w.cause, r.record().Cause)
		})
	}
}

func TestRunDueWhenStorageFails(t *testing.T) {
	r := configured(t, nil)
	for _, key := range []string{config.StorageKey, accesskey.StorageKey} {
		r.restart()
		r.storage.FailWhen(storagetest.Nth(1, "get", key))
		require.ErrorIs(t, r.manager.RunDue(r.ctx), storagetest.ErrBroken)
		r.restart()
		r.storage.FailWhen(storagetest.Nth(1, "get", key))
		require.ErrorIs(t, r.manager.RetireIfDue(r.ctx), storagetest.ErrBroken)
	}
}

func TestRetireIfDue(t *testing.T) {
	r := configured(t, map[string]any{schedule.FieldPeriod: "1m"})
	held := r.obtain(shared)
	r.advance(time.Minute)
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.True(t, r.works(held), "a rotation is due, and no retirement")
	r.revoke(held)
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.False(t, r.works(held))
	require.Equal(t, accesskey.CauseRetired, r.record().Cause)
	require.Equal(t, []string{event.KeyRotate, event.KeyRotate, event.KeyRetire}, r.sent())
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.Equal(t, 2, r.posts())
}

// A key that was made elsewhere is not fought: the one that was handed out is dead.
func TestRetirementFindsAKeyOfThePortal(t *testing.T) {
	r := configured(t, nil)
	r.revoke(r.obtain(shared))
	r.sim.RegenerateInPortal()
	require.NoError(t, r.manager.RetireIfDue(r.ctx))
	require.Equal(t, accesskey.CauseExternal, r.record().Cause)
	r.runDue()
	require.Equal(t, 1, r.posts())
	require.Zero(t, r.report().Failures)
	require.Contains(t, r.log.String(), "regenerated outside the engine")
	require.True(t, r.works(r.obtain(alone)))
}

func TestMissedRotationIsReportedOnce(t *testing.T) {
	r := configured(t, map[string]any{schedule.FieldCron: "0 20 * * *", schedule.FieldWindow: "1h", config.FieldTTL: "72h"})
	r.obtain(shared)
	r.advance(9 * time.Hour)
	for range 2 {
		r.runDue()
	}
	require.Equal(t, 1, r.posts())
	require.Equal(t, 1, r.report().MissedRotations)
	require.Equal(t, r.time().Add(-time.Hour), r.report().MissedRotation)
	require.Equal(t, []string{event.KeyRotate, event.RotationMiss}, r.sent())
	require.Contains(t, r.log.String(), "next_rotation=2027-03-01T20:00:00Z")
	r.configure(map[string]any{config.FieldDisableAutomatedRotation: true})
	r.advance(24 * time.Hour)
	r.runDue()
	require.Equal(t, 1, r.report().MissedRotations)
}

func TestRetireBeforeSwitch(t *testing.T) {
	r := configured(t, nil)
	require.Empty(t, r.turnAway())
	require.Zero(t, r.posts(), "nothing has been handed out")
	held := r.obtain(alone)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	warning := r.turnAway()
	require.Contains(t, warning, "lives on")
	require.Contains(t, warning, "403")
	require.NotContains(t, warning, accesskey.ErrNotDue.Error())
	require.Contains(t, r.log.String(), "[ERROR]")
	require.Equal(t, []string{event.KeyRotate, event.KeyRotateFail, event.KeyRetireFail, "mdi/key-lives-on"}, r.sent())
	require.True(t, r.works(held))
	r.sim.Clear()
	require.Empty(t, r.turnAway())
	require.False(t, r.works(held))
}

// The last chance is taken even while Graph wants the engine to stay away.
func TestRetireOnUnmount(t *testing.T) {
	r := configured(t, nil)
	held := r.obtain(alone)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 429, RetryAfter: "600"})
	r.manager.RetireOnUnmount(r.ctx)
	require.Contains(t, r.log.String(), "lives on")
	require.True(t, r.works(held))
	r.tainted = true
	require.ErrorIs(t, r.fails(shared), accesskey.ErrClosed)
	r.manager.RetireOnUnmount(r.ctx)
	require.False(t, r.works(held))
	require.Equal(t, accesskey.CauseRetired, r.record().Cause)

	r.tainted = false
	require.True(t, r.works(r.obtain(shared)), "the mount has been moved, and goes on")
	r.manager.RetireOnUnmount(r.ctx)
	r.runDue()
	r.tainted = true
	require.True(t, r.works(r.obtain(shared)))
}
