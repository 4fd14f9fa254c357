// SPDX-License-Identifier: MPL-2.0

package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

var noon = time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)

// rig is a tracker on a storage that fails on demand, and its clock.
type rig struct {
	t       *testing.T
	storage *storagetest.Storage
	tracker *health.Tracker
	now     time.Time
	probes  int
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, storage: storagetest.New(), now: noon}
	r.restart()
	return r
}

func (r *rig) restart() {
	r.tracker = health.New(r.storage, func() time.Time { return r.now })
}

func (r *rig) report() health.Report {
	r.t.Helper()
	report, err := r.tracker.Report(r.t.Context())
	require.NoError(r.t, err)
	return report
}

// failed records a failure of unattended work, or of a request.
func (r *rig) failed(unattended bool, failure error) {
	r.t.Helper()
	require.NoError(r.t, r.tracker.Failed(r.t.Context(), "rotation", unattended, failure))
}

func (r *rig) compared(result string, failure error) {
	r.t.Helper()
	require.NoError(r.t, r.tracker.Compared(r.t.Context(), result, failure))
}

// allowed asks whether work may call Graph, which answers a probe or not.
func (r *rig) allowed(comparison, answers bool) bool {
	return r.tracker.Allowed(r.t.Context(), comparison, func(context.Context) bool {
		r.probes++
		return answers
	})
}

// stored returns the fields of the storage entry.
func (r *rig) stored() map[string]any {
	r.t.Helper()
	entry, err := r.storage.Get(r.t.Context(), health.StorageKey)
	require.NoError(r.t, err)
	require.NotNil(r.t, entry)
	var fields map[string]any
	require.NoError(r.t, json.Unmarshal(entry.Value, &fields))
	return fields
}

var (
	errDown      = errors.New("down")
	errForbidden = &graph.Error{Op: graph.OpRegenerate, Kind: graph.Refused, Status: 403, Code: "Forbidden", RequestID: "an-id"}
)

func throttled(d time.Duration) error {
	return &graph.Error{Op: graph.OpRegenerate, Kind: graph.Throttled, Status: 429, RetryAfter: d}
}

func TestFailureIsReportedAndStaysAfterASuccess(t *testing.T) {
	r := newRig(t)
	r.failed(false, errForbidden)
	r.failed(false, errForbidden)
	want := health.Report{
		LastError: graph.Explain(errForbidden), LastErrorAt: noon, LastErrorCause: "rotation", LastErrorCode: "Forbidden", LastErrorRequestID: "an-id", Failures: 2,
	}
	require.Equal(t, want, r.report())
	r.restart()
	require.Equal(t, want, r.report())
	r.now = noon.Add(time.Hour)
	require.NoError(t, r.tracker.Succeeded(t.Context()))
	want.Failures, want.LastSuccessAt = 0, r.now
	require.Equal(t, want, r.report())
	r.restart()
	require.Equal(t, want, r.report())
	r.failed(false, errDown)
	require.Equal(t, health.Report{LastError: "down", LastErrorAt: r.now, LastErrorCause: "rotation", Failures: 1, LastSuccessAt: r.now}, r.report())
}

func TestSuccessAfterSuccessIsNotStored(t *testing.T) {
	r := newRig(t)
	r.storage.FailWhen(func(op, _ string) bool { return op == "put" })
	require.NoError(t, r.tracker.Succeeded(t.Context()))
	require.Equal(t, noon, r.report().LastSuccessAt)
}

// Unattended work backs off, from a minute to half an hour and up to a fifth more.
func TestBackOffOfUnattendedWork(t *testing.T) {
	r := newRig(t)
	require.True(t, r.allowed(false, false))
	r.failed(false, errDown)
	require.True(t, r.allowed(false, false), "a request that fails keeps no work waiting")
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		want *= time.Minute
		r.failed(true, errDown)
		wait := r.report().NextAttempt.Sub(r.now)
		require.True(t, wait >= want && wait <= want*6/5, "%v instead of %v", wait, want)
		r.now = r.now.Add(wait - 1)
		require.False(t, r.allowed(false, false))
		r.now = r.now.Add(1)
		require.True(t, r.allowed(false, false))
	}
	require.Equal(t, 7, r.report().Retries)
	require.Equal(t, 7, r.probes, "a probe for each time that it has to wait")
	require.NoError(t, r.tracker.Succeeded(t.Context()))
	require.Zero(t, r.report().NextAttempt)
	require.Zero(t, r.report().Retries)
}

// Work resumes early when Graph answers a probe. If it fails nevertheless, probes say
// nothing about the work. Version 0.1.x stored that under the name deceived.
func TestProbes(t *testing.T) {
	r := newRig(t)
	r.failed(true, errDown)
	require.True(t, r.allowed(false, true))
	require.Equal(t, false, r.stored()["probe_failed"])
	require.Equal(t, false, r.stored()["deceived"])
	r.failed(true, errDown)
	for range 2 {
		require.Equal(t, true, r.stored()["probe_failed"])
		require.Equal(t, true, r.stored()["deceived"])
		require.False(t, r.allowed(false, true))
		require.Equal(t, 1, r.probes)
		r.restart()
	}
	old, err := logical.StorageEntryJSON(health.StorageKey, map[string]any{"deceived": true, "next_attempt": noon.Add(time.Minute), "retries": 1})
	require.NoError(t, err)
	require.NoError(t, r.storage.Put(t.Context(), old))
	r.restart()
	require.True(t, r.report().ProbeFailed)
	require.False(t, r.allowed(false, true))
	require.NoError(t, r.tracker.Succeeded(t.Context()))
	require.Equal(t, false, r.stored()["probe_failed"])
	require.Equal(t, false, r.stored()["deceived"])
}

func TestThrottling(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.tracker.Throttled(t.Context()))
	r.failed(true, throttled(5*time.Minute))
	r.compared(health.DriftUnknown, throttled(time.Minute))
	r.restart()
	until := noon.Add(5 * time.Minute)
	var refusal *health.ThrottledError
	require.ErrorAs(t, r.tracker.Throttled(t.Context()), &refusal)
	require.Equal(t, until, refusal.Until, "the longest counts")
	require.Contains(t, refusal.Error(), "2027-02-28T12:05:00Z")
	require.Equal(t, until, r.report().NextAttempt)
	require.False(t, r.allowed(false, true), "Graph wants no probe either")

	r.now = noon.Add(-time.Hour)
	require.NoError(t, r.tracker.Throttled(t.Context()), "a clock was ahead")
	r.now = noon.Add(2 * time.Minute)
	require.Equal(t, refusal.Error(), r.tracker.SkipReason(t.Context()))
	r.now = until
	require.NoError(t, r.tracker.Throttled(t.Context()))
	require.Empty(t, r.tracker.SkipReason(t.Context()))
	require.NoError(t, r.tracker.Succeeded(t.Context()))
	require.Zero(t, r.report().ThrottledUntil)
}

// After a failed comparison readers get the key with the reason for a minute. Comparisons
// by the engine back off on their own.
func TestComparisons(t *testing.T) {
	r := newRig(t)
	r.compared(health.DriftNone, nil)
	require.Empty(t, r.tracker.SkipReason(t.Context()))
	for _, want := range []time.Duration{1, 2, 4} {
		want *= time.Minute
		r.compared(health.DriftUnknown, errDown)
		wait := r.report().CompareNext.Sub(r.now)
		require.True(t, wait >= want && wait <= want*6/5, "%v instead of %v", wait, want)
		require.Equal(t, "down", r.tracker.SkipReason(t.Context()))
		r.now = r.now.Add(time.Minute - 1)
		require.Equal(t, "down", r.tracker.SkipReason(t.Context()))
		require.False(t, r.allowed(true, true))
		require.True(t, r.allowed(false, true), "other work does not wait for it")
		r.now = r.now.Add(wait - time.Minute + 1)
		require.Empty(t, r.tracker.SkipReason(t.Context()))
		require.True(t, r.allowed(true, true))
	}
	r.compared(health.DriftExternal, nil)
	require.Equal(t, health.Report{DriftCheckedAt: r.now, DriftResult: health.DriftExternal}, r.report())
	r.now = r.now.Add(-time.Hour)
	r.compared(health.DriftUnknown, errDown)
	r.now = r.now.Add(-time.Hour)
	require.Empty(t, r.tracker.SkipReason(t.Context()), "it failed by a clock that was ahead")
}

func TestMissedRotationIsReportedOnce(t *testing.T) {
	r := newRig(t)
	for i, due := range []time.Time{noon, noon, noon.Add(-time.Hour), noon.Add(time.Hour)} {
		isNew, err := r.tracker.Missed(t.Context(), due)
		require.NoError(t, err)
		require.Equal(t, i == 0 || i == 3, isNew)
	}
	require.Equal(t, health.Report{MissedRotation: noon.Add(time.Hour), MissedRotations: 2}, r.report())
}

func TestResetForgetsWhatKeepsWorkWaiting(t *testing.T) {
	r := newRig(t)
	r.failed(true, throttled(time.Hour))
	r.failed(true, throttled(time.Hour))
	r.compared(health.DriftUnknown, throttled(time.Hour))
	before := r.report()
	require.NoError(t, r.tracker.Reset(t.Context()))
	require.True(t, r.allowed(true, false))
	require.NoError(t, r.tracker.Throttled(t.Context()))
	before.Retries, before.ProbeFailed, before.CompareRetries = 0, false, 0
	before.NextAttempt, before.CompareNext, before.ThrottledUntil = time.Time{}, time.Time{}, time.Time{}
	require.Equal(t, before, r.report(), "what operators read stays")
}

func TestForgetReadsWhatAnotherNodeHasWritten(t *testing.T) {
	r := newRig(t)
	require.Zero(t, r.report().Failures)
	other := &rig{t: t, storage: r.storage, now: noon}
	other.restart()
	other.failed(false, errDown)
	require.Zero(t, r.report().Failures)
	r.tracker.Forget()
	require.Equal(t, 1, r.report().Failures)
}

// What cannot be stored goes on in memory.
func TestReportThatCannotBeStored(t *testing.T) {
	r := newRig(t)
	r.storage.FailWhen(storagetest.Nth(1, "put", health.StorageKey))
	require.ErrorIs(t, r.tracker.Failed(t.Context(), "rotation", true, errDown), storagetest.ErrBroken)
	require.Equal(t, 1, r.report().Failures)
	require.False(t, r.allowed(false, false))
}

// A report that cannot be read for a moment keeps no work waiting, and is not replaced by
// one that knows nothing of what came before.
func TestReportThatCannotBeReadIsKept(t *testing.T) {
	r := newRig(t)
	r.failed(true, throttled(time.Hour))
	r.failed(false, errDown)
	before := r.report()
	r.restart()
	r.storage.FailWhen(func(op, _ string) bool { return op == "get" })
	require.ErrorIs(t, r.tracker.Failed(t.Context(), "read", true, errDown), storagetest.ErrBroken)
	require.NoError(t, r.tracker.Throttled(t.Context()))
	require.Empty(t, r.tracker.SkipReason(t.Context()))
	require.True(t, r.allowed(false, false))
	r.storage.FailWhen(nil)
	require.Equal(t, before, r.report())
	r.restart()
	require.Equal(t, before, r.report(), "nor has it been stored")
}

// A report that can never be read gives way to a new one, and is not quoted.
func TestReportThatCannotBeDecodedIsReplaced(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: health.StorageKey, Value: []byte(`{"last_error": "a-secret`)}))
	_, err := r.tracker.Report(t.Context())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "a-secret")
	r.failed(false, errDown)
	r.restart()
	require.Equal(t, 1, r.report().Failures)
}
