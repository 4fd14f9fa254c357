// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

// tickFor is core's periodic call each minute for as long as d.
func (r *rig) tickFor(d time.Duration) {
	r.t.Helper()
	for range int(d / time.Minute) {
		r.clock.advance(time.Minute)
		r.tick()
	}
}

func scheduled(t *testing.T, fields map[string]any) *rig {
	t.Helper()
	r := configured(t)
	r.write(configPath, fields)
	r.write("roles/hosts", map[string]any{config.FieldTTL: "168h"})
	return r
}

func TestKeyIsRotatedPeriodically(t *testing.T) {
	r := scheduled(t, map[string]any{schedule.FieldPeriod: "24h"})
	require.Equal(t, "2027-03-01T12:00:00Z", r.status()[fieldNextRotation])
	held := r.read(hosts)
	r.tickFor(24*time.Hour - time.Minute)
	require.True(t, r.works(held))
	r.tickFor(time.Minute)
	require.False(t, r.works(held))
	status := r.status()
	require.Equal(t, "rotation", status[fieldCause])
	require.Equal(t, "2027-03-02T12:00:00Z", status[fieldNextRotation])
	require.Equal(t, 2, r.posts())
}

func TestKeyIsRotatedByCron(t *testing.T) {
	r := scheduled(t, map[string]any{schedule.FieldCron: "0 3 * * *"})
	r.read(hosts)
	r.tickFor(15 * time.Hour) // to 03:00
	require.Equal(t, 2, r.posts())
	require.Equal(t, "rotation", r.status()[fieldCause])
	require.Equal(t, "2027-03-02T03:00:00Z", r.status()[fieldNextRotation])
	r.tickFor(24 * time.Hour)
	require.Equal(t, 3, r.posts())
}

// One night without Graph costs some twenty attempts, and the rotation happens soon
// after Graph has come back.
func TestNightWithoutGraph(t *testing.T) {
	r := scheduled(t, map[string]any{schedule.FieldCron: "0 20 * * *"})
	held := r.read(hosts)
	r.tickFor(8*time.Hour - time.Minute)
	tokens := r.sim.Calls(graphtest.Token).Started
	r.restart()
	lines := len(r.log.String())
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 503, RetryAfter: "6"})
	failures := 0
	for range 10 * 60 {
		r.tickFor(time.Minute)
		status := r.status()
		require.Equal(t, accesskey.WorkRotate, status[fieldDue].([]string)[0])
		require.Equal(t, "2027-02-28T20:00:00Z", status[fieldNextRotation], "it stays due")
		require.Equal(t, "rotation", status[fieldLastErrorCause])
		failures = status[fieldConsecutiveFailures].(int)
	}
	require.Greater(t, failures, 15)
	require.Less(t, failures, 30)
	require.Equal(t, tokens+1, r.sim.Calls(graphtest.Token).Started)
	require.LessOrEqual(t, strings.Count(r.log.String()[lines:], "[WARN]"), 2*failures, "one line for each attempt, and for each comparison")
	require.Equal(t, 1, r.posts())
	require.True(t, r.works(held))
	require.Equal(t, 1, r.status()[fieldLiveLeases], "no lease is lost")

	r.sim.Clear()
	r.tickFor(time.Minute)
	status := r.status()
	require.Equal(t, "rotation", status[fieldCause])
	require.Equal(t, 0, status[fieldConsecutiveFailures])
	require.NotContains(t, status, fieldNextAttempt)
	require.Empty(t, status[fieldDue])
	require.False(t, r.works(held))
}

// Graph answers probes and refuses the work: then the back-off alone decides.
func TestProbesThatAreAnsweredInVain(t *testing.T) {
	besideOthers(t)
	r := scheduled(t, map[string]any{schedule.FieldPeriod: "1h"})
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	r.tickFor(10 * time.Hour)
	require.Less(t, r.sim.Calls(graphtest.Regenerate).Started, 30)
}

func TestWindowThatHasPassedIsMissedOnce(t *testing.T) {
	r := scheduled(t, map[string]any{schedule.FieldCron: "0 20 * * *", schedule.FieldWindow: "1h"})
	r.read(hosts)
	r.tickFor(8*time.Hour - time.Minute)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403})
	r.tickFor(2 * time.Hour)
	status := r.status()
	require.Equal(t, 1, status[fieldMissedRotations])
	require.Equal(t, "2027-02-28T20:00:00Z", status[fieldMissedRotation])
	require.Equal(t, "2027-03-01T20:00:00Z", status[fieldNextRotation])
	require.NotContains(t, status[fieldDue], accesskey.WorkRotate)
	require.Contains(t, r.log.String(), "window of a rotation has passed")
	r.sim.Clear()
	r.tickFor(30 * time.Minute)
	require.NotEqual(t, "rotation", r.status()[fieldCause])
}

func TestDisabledAutomationPausesScheduleAndRetirement(t *testing.T) {
	r := scheduled(t, map[string]any{schedule.FieldPeriod: "1h", fieldDisableAutomatedRotation: true})
	held := r.read(hosts)
	r.revoke(held)
	r.tickFor(2 * time.Hour)
	require.True(t, r.works(held))
	require.Equal(t, 1, r.posts())
	require.Equal(t, true, r.status()[fieldDisableAutomatedRotation])
	r.write(configPath, map[string]any{fieldDisableAutomatedRotation: false})
	r.tickFor(time.Minute)
	require.False(t, r.works(held))
}

func TestThrottlingIsSharedByAllWhoNeedGraph(t *testing.T) {
	r := scheduled(t, nil)
	held := r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 429, RetryAfter: "300"})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	calls := r.sim.Calls(graphtest.Regenerate).Started + r.sim.Calls(graphtest.Get).Started
	for range 5 {
		require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "2027-02-28T12:05:01Z")
		require.True(t, r.works(r.read(hosts)), "who can do without goes on")
	}
	r.restart()
	require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "2027-02-28T12:05:01Z")
	require.Equal(t, "2027-02-28T12:05:01Z", r.status()[fieldThrottledUntil])
	r.tickFor(4 * time.Minute)
	require.Equal(t, calls, r.sim.Calls(graphtest.Regenerate).Started+r.sim.Calls(graphtest.Get).Started)
	require.True(t, r.works(held))
	r.clock.advance(time.Minute)
	require.True(t, r.works(r.key()))
	require.False(t, r.works(held))
}

func TestKeyIsComparedWhileItIsLeased(t *testing.T) {
	r := scheduled(t, map[string]any{config.FieldTTL: "24h"})
	held := r.read(hosts)
	r.sim.RegenerateInPortal()
	r.tickFor(9 * time.Minute)
	require.Equal(t, "read", r.status()[fieldCause])
	r.tickFor(time.Minute)
	status := r.status()
	require.Equal(t, "external", status[fieldCause])
	require.Equal(t, "external", status[fieldDriftResult])
	require.Equal(t, "2027-02-28T12:10:00Z", status[fieldDriftCheckedAt])
	r.revoke(held)
	r.tickFor(time.Hour)
	require.Equal(t, 1, r.posts())
}

// However often it is asked for during a check, one more is made.
func TestChecksAreCoalesced(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	begun, ends := make(chan struct{}), make(chan struct{})
	wake := coalesced(ctx, func(context.Context) {
		begun <- struct{}{}
		<-ends
	})
	wake()
	<-begun
	for range 3 {
		wake()
	}
	select {
	case <-begun:
		t.Fatal("two at a time")
	case ends <- struct{}{}:
	}
	<-begun
	stop()
	wake()
	ends <- struct{}{}
	select {
	case <-begun:
		t.Fatal("once more than asked for, or after the end")
	case <-time.After(10 * time.Millisecond):
	}
}
