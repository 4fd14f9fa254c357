// SPDX-License-Identifier: MPL-2.0

package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
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
	log     strings.Builder
	ctx     context.Context // with the log
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, storage: storagetest.New(), now: noon}
	r.ctx = hclog.WithContext(t.Context(), hclog.New(&hclog.LoggerOptions{Output: &r.log}))
	r.restart()
	return r
}

// stores fails if what has just been noted could not be stored.
func (r *rig) stores() {
	r.t.Helper()
	require.Empty(r.t, r.log.String())
}

// storesNot fails unless what has just been noted could not be stored, and the log says so.
func (r *rig) storesNot() {
	r.t.Helper()
	require.Contains(r.t, r.log.String(), "storing the report of the last attempt")
	require.Contains(r.t, r.log.String(), storagetest.ErrBroken.Error())
	r.log.Reset()
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
	r.tracker.Failed(r.ctx, "rotation", unattended, failure)
	r.stores()
}

func (r *rig) succeeded() {
	r.t.Helper()
	r.tracker.Succeeded(r.ctx)
	r.stores()
}

// saved saves a connection that stays the same.
func saved() error { return nil }

func (r *rig) compared(result string, failure error) {
	r.t.Helper()
	before := r.report().DriftResult
	if failure == nil {
		r.tracker.Compared(r.ctx, result)
	} else {
		require.Equal(r.t, before != result, r.tracker.Uncompared(r.ctx, r.tracker.Connection(), failure))
	}
	r.stores()
}

// allowed asks whether work may call Graph, which answers a probe or not.
func (r *rig) allowed(kind health.Kind, answers bool) bool {
	return r.tracker.Allowed(r.t.Context(), kind, func(context.Context) bool {
		r.probes++
		return answers
	})
}

// waits returns how long the engine has to wait with an action, up to two days: to the
// minute, if it is longer than a minute.
func (r *rig) waits(may func() bool) time.Duration {
	start := r.now
	defer func() { r.now = start }()
	for step := time.Second; r.now.Sub(start) < 48*time.Hour; r.now = r.now.Add(step) {
		if may() {
			return r.now.Sub(start)
		}
		if r.now.Sub(start) >= time.Minute {
			step = time.Minute
		}
	}
	return 48 * time.Hour
}

func (r *rig) mayRead() bool    { return r.tracker.May(r.t.Context(), health.Reading) == nil }
func (r *rig) mayCompare() bool { return r.tracker.May(r.t.Context(), health.Comparison) == nil }
func (r *rig) mayRotate() bool {
	return r.allowed(health.Rotation, false) && r.tracker.May(r.t.Context(), health.Rotation) == nil
}
func (r *rig) mayCheck() bool { return r.allowed(health.Comparison, false) }

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

func (r *rig) store(value string) {
	r.t.Helper()
	require.NoError(r.t, r.storage.Put(r.t.Context(), &logical.StorageEntry{Key: health.StorageKey, Value: []byte(value)}))
	r.restart()
}

var (
	errDown      = errors.New("down")
	errForbidden = &graph.Error{Op: graph.OpRegenerate, Kind: graph.Refused, Status: 403, Code: "Forbidden", RequestID: "an-id"}
	errLost      = &graph.Error{Op: graph.OpRegenerate, Kind: graph.Unavailable, Reason: "the connection was lost"}
	errNoGET     = &graph.Error{Op: graph.OpGet, Kind: graph.Unavailable, Status: 503}
	errNoSignIn  = &graph.Error{Op: graph.OpSignIn, Kind: graph.Timeout}
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
	r.succeeded()
	want.Failures, want.LastSuccessAt = 0, r.now
	require.Equal(t, want, r.report())
	r.restart()
	require.Equal(t, want, r.report())
	r.failed(false, errDown)
	require.Equal(t, health.Report{LastError: "down", LastErrorAt: r.now, LastErrorCause: "rotation", Failures: 1, LastSuccessAt: r.now}, r.report())
}

// unsettled is an error that a caller gets, with more than what Graph has answered.
type unsettled struct{ error }

func (u unsettled) Error() string {
	return "it began 0s ago, so repeat the request: " + u.error.Error()
}
func (u unsettled) Unwrap() error { return u.error }

// What Graph has answered last is what an operator and Microsoft's support can work with.
// Until a success, no failure without an answer replaces it, and the text is Graph's part
// of it: what a caller is told of the moment is wrong an hour later.
func TestEvidenceIsKept(t *testing.T) {
	entra := &graph.Error{Op: graph.OpSignIn, Kind: graph.Refused, Status: 401, Code: "AADSTS7000215", RequestID: "of-entra"}
	page := &graph.Error{Op: graph.OpRegenerate, Kind: graph.Unavailable, Status: 502}
	for name, c := range map[string]struct {
		failures []error
		want     int // the failure that is reported
	}{
		"answers, the last counts":   {[]error{errForbidden, entra}, 1},
		"without an answer":          {[]error{errDown, errLost}, 1},
		"then an error of our own":   {[]error{errForbidden, errDown}, 0},
		"then a lost answer":         {[]error{errForbidden, errLost}, 0},
		"then a proxy's page":        {[]error{entra, page, errDown, errLost}, 0},
		"an answer after all that":   {[]error{errDown, errLost, page, errForbidden, errDown}, 3},
		"told in another way":        {[]error{unsettled{errForbidden}, unsettled{errLost}}, 0},
		"a page, when nothing else":  {[]error{errDown, page}, 1},
		"after a success, all count": {[]error{errForbidden, nil, errDown}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			n := 0
			for i, failure := range c.failures {
				r.now = noon.Add(time.Duration(i) * time.Minute)
				if n++; failure == nil {
					r.succeeded()
					n = 0
					continue
				}
				r.tracker.Failed(r.ctx, fmt.Sprint("cause ", i), i%2 == 0, failure)
				r.stores()
			}
			remote, _ := errors.AsType[*graph.Error](c.failures[c.want])
			text := c.failures[c.want]
			if remote != nil {
				text = remote
			} else {
				remote = &graph.Error{}
			}
			for range 2 {
				report := r.report()
				require.Equal(t, graph.Explain(text), report.LastError)
				require.Equal(t, noon.Add(time.Duration(c.want)*time.Minute), report.LastErrorAt)
				require.Equal(t, fmt.Sprint("cause ", c.want), report.LastErrorCause)
				require.Equal(t, remote.Code, report.LastErrorCode)
				require.Equal(t, remote.RequestID, report.LastErrorRequestID)
				require.Equal(t, n, report.Failures, "each counts")
				require.NotContains(t, report.LastError, "ago")
				r.restart()
			}
		})
	}
}

func TestSuccessAfterSuccessIsNotStored(t *testing.T) {
	r := newRig(t)
	r.storage.FailWhen(func(op, _ string) bool { return op == "put" })
	r.succeeded()
	require.Equal(t, noon, r.report().LastSuccessAt)
}

// Unattended work backs off, from a minute to half an hour and up to a fifth more.
func TestBackOffOfUnattendedWork(t *testing.T) {
	r := newRig(t)
	require.True(t, r.allowed(health.Rotation, false))
	r.failed(false, errDown)
	require.True(t, r.allowed(health.Rotation, false), "a request that fails keeps no work waiting")
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		want *= time.Minute
		r.failed(true, errDown)
		wait := r.report().NextAttempt.Sub(r.now)
		require.True(t, wait >= want && wait <= want*6/5, "%v instead of %v", wait, want)
		r.now = r.now.Add(wait - 1)
		for _, kind := range []health.Kind{health.Rotation, health.Retirement} {
			require.False(t, r.allowed(kind, false))
		}
		r.now = r.now.Add(1)
		for _, kind := range []health.Kind{health.Rotation, health.Retirement} {
			require.True(t, r.allowed(kind, false))
		}
	}
	require.Equal(t, 7, r.report().Retries)
	require.Equal(t, 7, r.probes, "a probe for each time that it has to wait, whoever asks")
	r.succeeded()
	require.Zero(t, r.report().NextAttempt)
	require.Zero(t, r.report().Retries)
}

// Work resumes early when Graph answers a probe. If it fails nevertheless, the full time
// is waited, until a probe fails: then the next that is answered counts again, so one that
// was answered at the start of an outage does not hide its end. Version 0.1.x stored that
// under the name deceived.
func TestProbes(t *testing.T) {
	for _, kind := range []health.Kind{health.Rotation, health.Retirement} {
		r := newRig(t)
		allowed := func(answers bool) bool {
			defer func() { r.now = r.now.Add(10 * time.Second) }() // an answer counts for as long
			got := r.allowed(kind, answers)
			require.False(t, r.allowed(kind, true), "one of those who ask may go on")
			return got
		}
		r.failed(true, errDown)
		require.Equal(t, false, r.stored()["probe_failed"])
		for range 3 { // Graph answers a probe each time, and only that
			require.True(t, allowed(true))
			r.failed(true, errDown)
			require.Equal(t, true, r.stored()["probe_failed"])
			require.Equal(t, true, r.stored()["deceived"])
			require.False(t, allowed(true))
			r.restart()
			require.False(t, allowed(true))
			require.False(t, allowed(false), "the outage goes on")
			require.True(t, allowed(true), "Graph has come back")
		}
		r.succeeded()
		require.Equal(t, false, r.stored()["probe_failed"])
		require.True(t, r.allowed(kind, false))
	}
}

// requireThrottled fails unless an error says that Graph has asked to be left alone until then.
func requireThrottled(t *testing.T, until time.Time, err error) {
	t.Helper()
	require.ErrorIs(t, err, health.ErrThrottled)
	require.Equal(t, "Microsoft Graph has asked to be left alone until "+until.Format(time.RFC3339)+", and this request needs it", err.Error())
}

// What Graph asks for is heeded by scheduled work for as long as it asks, a day at most,
// and by readers for five minutes at most. The longest counts.
func TestThrottling(t *testing.T) {
	for asked, readers := range map[time.Duration]time.Duration{
		30 * time.Second: 30 * time.Second, 5 * time.Minute: 5 * time.Minute, time.Hour: 5 * time.Minute, 24 * time.Hour: 5 * time.Minute,
	} {
		for _, unattended := range []bool{false, true} {
			r := newRig(t)
			require.NoError(t, r.tracker.May(t.Context(), health.Rotation))
			r.failed(unattended, throttled(asked))
			r.failed(unattended, throttled(asked/2))
			for range 2 {
				requireThrottled(t, noon.Add(asked), r.tracker.May(t.Context(), health.Rotation))
				requireThrottled(t, noon.Add(readers), r.tracker.May(t.Context(), health.Reading))
				require.Equal(t, asked, r.waits(func() bool { return r.tracker.May(t.Context(), health.Rotation) == nil }))
				require.GreaterOrEqual(t, r.waits(func() bool { return r.allowed(health.Rotation, false) }), asked, "also if it was a reader whom Graph has told so")
				require.Equal(t, readers, r.waits(r.mayRead))
				r.restart()
			}
			r.now = noon.Add(asked)
			require.NoError(t, r.tracker.May(t.Context(), health.Rotation))
			r.succeeded()
			require.Zero(t, r.report().ThrottledUntil)
		}
	}
}

// After a failure the next regeneration for readers waits, longer each time, until a
// success or another connection, whatever else goes well meanwhile.
func TestHold(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"success": (*rig).succeeded,
		"reset":   func(r *rig) { require.NoError(r.t, r.tracker.Replace(r.t.Context(), saved)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for range 2 {
				require.NoError(t, r.tracker.May(t.Context(), health.Reading))
				for i, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60, 60} {
					failure := []error{errForbidden, errLost, errNoSignIn}[i%3]
					r.failed(false, failure)
					r.compared(health.DriftNone, nil)
					var held *health.HeldError
					require.ErrorAs(t, r.tracker.May(t.Context(), health.Reading), &held)
					require.ErrorIs(t, held, failure)
					require.Contains(t, held.Error(), r.now.Add(want*time.Second).Format(time.RFC3339))
					require.Contains(t, held.Error(), graph.Explain(failure))
					require.Equal(t, want*time.Second, r.waits(r.mayRead))
					require.Zero(t, r.waits(func() bool { return r.tracker.May(t.Context(), health.Retirement) == nil }), "readers only")
					r.now = r.now.Add(want * time.Second)
				}
				r.failed(false, errLost)
				end(r)
			}
		})
	}
}

// A failure of unattended work holds readers only if it was the regeneration that failed:
// they may fare better with what comes before it. One that is not Graph's or Entra's holds
// nobody.
func TestWhatHoldsReaders(t *testing.T) {
	for name, c := range map[string]struct {
		unattended bool
		failure    error
		holds      bool
	}{
		"reader, lost":           {false, errLost, true},
		"reader, storage":        {false, errDown, false}, // nothing was sent
		"reader, sign-in":        {false, errNoSignIn, true},
		"engine, regeneration":   {true, errForbidden, true},
		"engine, lost":           {true, unsettled{errLost}, true},
		"engine, comparison":     {true, errNoGET, false},
		"engine, sign-in":        {true, errNoSignIn, false},
		"engine, storage":        {true, errDown, false},
		"engine, held GET":       {true, health.ErrThrottled, false},
		"engine, nothing at all": {true, context.DeadlineExceeded, false},
	} {
		r := newRig(t)
		r.failed(c.unattended, c.failure)
		require.Equal(t, !c.holds, r.mayRead(), name)
	}
}

// A retirement tries in spite of a throttling, once: that Graph asks for more time then is
// no other one.
func TestRetirementTriesOnceForEachThrottling(t *testing.T) {
	mayRetire := func(r *rig) bool {
		allowed := r.allowed(health.Retirement, false)
		err := r.tracker.May(r.t.Context(), health.Retirement)
		require.Equal(r.t, allowed, err == nil, "what may be tried is not refused, nor the other way round")
		return allowed
	}
	for name, failure := range map[string]error{
		"refused":         errForbidden,
		"lost":            unsettled{errLost},
		"throttled again": throttled(3 * time.Hour),
		"less long":       throttled(time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			require.True(t, mayRetire(r))
			r.failed(false, throttled(time.Hour))
			require.True(t, mayRetire(r))
			require.True(t, mayRetire(r), "asking costs nothing")
			r.now = r.now.Add(time.Second)
			r.failed(true, failure)
			for range 59 {
				r.now = r.now.Add(time.Minute)
				require.False(t, mayRetire(r))
				require.False(t, r.mayRotate())
			}
			r.now = r.report().ThrottledUntil
			if r.now.Before(r.report().NextAttempt) {
				r.now = r.report().NextAttempt
			}
			require.True(t, mayRetire(r), "it is over")
			r.failed(false, throttled(time.Hour))
			require.True(t, mayRetire(r), "another one")
			r.failed(true, errForbidden)
			require.False(t, mayRetire(r))
		})
	}
}

// The one time is spent by asking Graph to regenerate the key. A retirement that failed
// before, since it could not sign in or Graph does not name the key, tries again as often
// as a comparison.
func TestRetirementThatSentNothingTriesAgain(t *testing.T) {
	for name, failure := range map[string]error{"no key named": errNoGET, "no sign-in": errNoSignIn} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.failed(false, throttled(time.Hour))
			for range 3 {
				require.True(t, r.allowed(health.Retirement, false))
				r.compared(health.DriftUnknown, failure)
				r.failed(true, failure)
				require.False(t, r.allowed(health.Retirement, false))
				r.now = r.report().CompareNext
			}
			r.compared(health.DriftNone, nil)
			r.failed(true, errForbidden)
			require.False(t, r.allowed(health.Retirement, false))
		})
	}
}

// A comparison that failed is made again by the engine after a time that grows, and no
// sooner than Graph asks for. Who needs one now waits only for what Graph asks for, five
// minutes at most.
func TestComparisons(t *testing.T) {
	r := newRig(t)
	require.Empty(t, r.report().CompareProblem)
	r.compared(health.DriftNone, nil)
	for _, want := range []time.Duration{1, 2, 4} {
		want *= time.Minute
		r.compared(health.DriftUnknown, errDown)
		wait := r.report().CompareNext.Sub(r.now)
		require.True(t, wait >= want && wait <= want*6/5, "%v instead of %v", wait, want)
		require.Equal(t, "down", r.report().CompareProblem)
		require.True(t, r.mayCompare())
		require.True(t, r.allowed(health.Rotation, false), "other work does not wait for it")
		r.now = r.now.Add(wait - 1)
		require.False(t, r.mayCheck())
		r.now = r.now.Add(1)
		require.True(t, r.mayCheck())
	}
	for asked, held := range map[time.Duration]time.Duration{time.Minute: time.Minute, time.Hour: 5 * time.Minute} {
		r.compared(health.DriftNone, nil)
		r.compared(health.DriftUnknown, throttled(asked))
		requireThrottled(t, r.now.Add(held), r.tracker.May(t.Context(), health.Comparison))
		require.Equal(t, held, r.waits(r.mayCompare))
		require.GreaterOrEqual(t, r.waits(r.mayCheck), asked)
		require.Error(t, r.tracker.May(t.Context(), health.Rotation))
		r.restart()
		require.Equal(t, held, r.waits(r.mayCompare))
		require.NoError(t, r.tracker.Replace(t.Context(), saved))
	}
	r.compared(health.DriftExternal, nil)
	require.Equal(t, health.Report{DriftCheckedAt: r.now, DriftResult: health.DriftExternal, ThrottledAt: r.now}, r.report())
}

// That a key was made elsewhere is reported until the engine has made one of its own. What
// else a comparison has shown stays until the next one.
func TestResultOfTheComparisonAfterASuccess(t *testing.T) {
	for result, want := range map[string]string{
		health.DriftExternal: health.DriftNone, health.DriftNone: health.DriftNone, health.DriftStale: health.DriftStale, health.DriftUnknown: health.DriftUnknown,
	} {
		r := newRig(t)
		r.compared(result, nil)
		r.failed(false, errDown)
		require.Equal(t, result, r.report().DriftResult)
		r.succeeded()
		for range 2 {
			require.Equal(t, want, r.report().DriftResult)
			r.restart()
		}
	}
	r := newRig(t)
	r.compared(health.DriftExternal, nil)
	r.succeeded()
	r.restart()
	require.Equal(t, health.DriftNone, r.report().DriftResult, "also without a trouble that ends")
}

func TestMissedRotationIsReportedOnce(t *testing.T) {
	r := newRig(t)
	r.now = noon.Add(2 * time.Hour)
	for i, due := range []time.Time{noon, noon, noon.Add(-time.Hour), noon.Add(time.Hour)} {
		require.Equal(t, i == 0 || i == 3, r.tracker.Missed(r.ctx, due))
		r.stores()
	}
	require.Equal(t, health.Report{MissedRotation: noon.Add(time.Hour), MissedRotations: 2}, r.report())
}

// Another connection owes nothing to the one before, whenever that fails, and if the process
// dies as soon as the new one is stored.
func TestAnotherConnectionForgetsWhatKeepsWorkWaiting(t *testing.T) {
	for name, during := range map[string]func(*rig){
		"nothing happens":  func(*rig) {},
		"the process dies": func(r *rig) { r.restart(); r.report() }, // the next one finds what is stored by then
		"the old one fails": func(r *rig) {
			r.failed(true, throttled(time.Hour))
			r.compared(health.DriftUnknown, throttled(time.Hour))
		},
		"storage fails then": func(r *rig) { r.storage.FailWhen(storagetest.Nth(1, "put", health.StorageKey)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.failed(true, throttled(time.Hour))
			r.failed(true, throttled(time.Hour))
			r.compared(health.DriftUnknown, throttled(time.Hour))
			before := r.report()
			require.NoError(t, r.tracker.Replace(t.Context(), func() error { during(r); return nil }))
			for name, may := range map[string]func() bool{"read": r.mayRead, "compare": r.mayCompare, "rotate": r.mayRotate, "check": r.mayCheck} {
				require.True(t, may(), name)
			}
			before.Retries, before.ProbeFailed, before.CompareRetries = 0, false, 0
			before.NextAttempt, before.CompareNext, before.CompareHeld, before.ThrottledUntil = time.Time{}, time.Time{}, time.Time{}, time.Time{}
			before.Failures = r.report().Failures
			require.Equal(t, before, r.report(), "what operators read stays")
		})
	}
}

func TestConnectionThatIsNotSavedKeepsItsNumber(t *testing.T) {
	r := newRig(t)
	number := r.tracker.Connection()
	require.ErrorIs(t, r.tracker.Replace(t.Context(), func() error { return errDown }), errDown)
	require.Equal(t, number, r.tracker.Connection())
	r.failed(true, throttled(time.Hour))
	r.storage.FailWhen(storagetest.Nth(1, "put", health.StorageKey))
	require.ErrorIs(t, r.tracker.Replace(t.Context(), func() error { t.Error("it is saved"); return nil }), storagetest.ErrBroken)
	require.Equal(t, number, r.tracker.Connection())
}

func TestForgetReadsWhatAnotherNodeHasWritten(t *testing.T) {
	r := newRig(t)
	require.Zero(t, r.report().Failures)
	other := newRig(t)
	other.storage = r.storage
	other.restart()
	other.failed(false, errDown)
	require.Zero(t, r.report().Failures)
	r.tracker.Forget()
	require.Equal(t, 1, r.report().Failures)
}

// wrong is what a node may note while its clock is wrong.
var wrong = map[string]func(*rig){
	"failures of unattended work":      func(r *rig) { r.failed(true, errForbidden); r.failed(true, errForbidden) },
	"one of its own, after an answer":  func(r *rig) { r.failed(true, errDown) },
	"throttling of unattended work":    func(r *rig) { r.failed(true, throttled(asked)) },
	"throttling of a reader":           func(r *rig) { r.failed(false, throttled(asked)) },
	"comparisons that fail":            func(r *rig) { r.compared(health.DriftUnknown, errDown) },
	"a throttled comparison":           func(r *rig) { r.compared(health.DriftUnknown, throttled(asked)) },
	"a failure after many":             func(r *rig) { many(r, 8) },
	"a success, and then a failure":    func(r *rig) { r.succeeded(); r.failed(true, errLost) },
	"a rotation that was missed":       func(r *rig) { r.tracker.Missed(r.ctx, r.now) },
	"a comparison that found it apart": func(r *rig) { r.compared(health.DriftExternal, nil) },
}

// The longest that work waits without having been asked to, and how long Graph asks it to.
const (
	longest = health.LastRetry * 6 / 5
	asked   = 24 * time.Hour
)

func many(r *rig, n int) {
	for range n {
		r.failed(true, errNoGET)
		r.compared(health.DriftUnknown, errNoGET)
	}
}

// What a node has noted while its clock was ahead or behind keeps nobody waiting longer
// than usual once the clock is right, on the node itself and on the next one, and a
// throttling that has been noted since is heeded in full.
func TestClockThatWasWrong(t *testing.T) {
	for name, note := range wrong {
		for _, off := range []time.Duration{time.Hour, 24 * time.Hour, 400 * 24 * time.Hour, -time.Hour, -24 * time.Hour, -400 * 24 * time.Hour} {
			for _, restarts := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " ", off, " ", restarts), func(t *testing.T) {
					r := newRig(t)
					r.failed(true, errForbidden) // while the clock is right
					r.now = noon.Add(off)
					note(r)
					r.now = noon.Add(time.Minute)
					if restarts {
						r.restart()
					}
					for what, may := range map[string]func() bool{"rotate": r.mayRotate, "check": r.mayCheck} {
						if off < 0 {
							require.LessOrEqual(t, r.waits(may), max(longest, asked+off), what)
						} else {
							require.LessOrEqual(t, r.waits(may), longest, what)
						}
					}
					require.LessOrEqual(t, r.waits(r.mayRead), time.Minute)
					require.LessOrEqual(t, r.waits(r.mayCompare), 5*time.Minute)
					requireNothingAhead(t, r)

					require.True(t, r.tracker.Missed(r.ctx, noon), "the next that is missed is reported")
					r.stores()
					r.failed(true, throttled(asked))
					require.Equal(t, asked, r.waits(r.mayRotate))
					require.Equal(t, 5*time.Minute, r.waits(r.mayRead))
				})
			}
		}
	}
}

// requireNothingAhead fails if the report names a time of the past that is still to come.
func requireNothingAhead(t *testing.T, r *rig) {
	t.Helper()
	report := r.report()
	for name, at := range map[string]time.Time{
		"last_success_at": report.LastSuccessAt, "last_error_at": report.LastErrorAt, "throttled_at": report.ThrottledAt,
		"drift_checked_at": report.DriftCheckedAt, "missed_rotation": report.MissedRotation,
	} {
		require.False(t, at.After(r.now), name)
	}
}

// What cannot be stored goes on in memory.
func TestReportThatCannotBeStored(t *testing.T) {
	r := newRig(t)
	r.storage.FailWhen(storagetest.Nth(1, "put", health.StorageKey))
	r.tracker.Failed(r.ctx, "rotation", true, errDown)
	r.storesNot()
	require.Equal(t, 1, r.report().Failures)
	require.False(t, r.allowed(health.Rotation, false))
}

// A report that cannot be read for a moment keeps no work waiting, and is not replaced by
// one that knows nothing of what came before. Readers wait all the same after a failure,
// and no longer than until a success: that takes no storage.
func TestReportThatCannotBeReadIsKept(t *testing.T) {
	r := newRig(t)
	r.failed(true, throttled(time.Hour))
	r.failed(false, errDown)
	r.compared(health.DriftUnknown, throttled(time.Hour))
	before := r.report()
	r.restart()
	r.storage.FailWhen(func(op, _ string) bool { return op == "get" })
	require.NoError(t, r.tracker.May(t.Context(), health.Reading))
	r.tracker.Failed(r.ctx, "read", true, errForbidden)
	r.storesNot()
	require.NoError(t, r.tracker.May(t.Context(), health.Rotation))
	for _, kind := range []health.Kind{health.Rotation, health.Retirement, health.Comparison} {
		require.True(t, r.allowed(kind, false))
	}
	require.NoError(t, r.tracker.May(t.Context(), health.Comparison))
	require.NoError(t, r.tracker.May(t.Context(), health.Retirement))
	require.Equal(t, health.FirstHold, r.waits(r.mayRead))
	r.tracker.Succeeded(r.ctx)
	r.storesNot()
	require.NoError(t, r.tracker.May(t.Context(), health.Reading))
	r.storage.FailWhen(nil)
	require.Equal(t, before, r.report())
	r.restart()
	require.Equal(t, before, r.report(), "nor has it been stored")
}

// A report that can never be read keeps no work waiting, gives way to a new one, and is
// not quoted.
func TestReportThatCannotBeDecodedIsReplaced(t *testing.T) {
	r := newRig(t)
	r.store(`{"last_error": "a-secret`)
	_, err := r.tracker.Report(t.Context())
	require.ErrorIs(t, err, health.ErrUnreadable)
	require.NotContains(t, err.Error(), "a-secret")
	require.Contains(t, err.Error(), "storage entry "+health.StorageKey)
	for name, may := range map[string]func() bool{"read": r.mayRead, "compare": r.mayCompare, "rotate": r.mayRotate, "check": r.mayCheck} {
		require.True(t, may(), name)
	}
	r.failed(false, errDown)
	r.restart()
	require.Equal(t, 1, r.report().Failures)
}

// While storage is slow for one, nobody else waits for the report for longer than they
// may.
func TestSlowStorage(t *testing.T) {
	for _, takes := range []time.Duration{3 * time.Second, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			tracker := health.New(&storagetest.Slow{Storage: storagetest.New(), Takes: takes}, time.Now)
			r := newRig(t) // for its log
			go func() { tracker.Failed(r.ctx, "rotation", true, errDown) }()
			synctest.Wait()
			storagetest.EndWithContext(t, map[string]func(context.Context) error{
				"report":    func(ctx context.Context) error { _, err := tracker.Report(ctx); return err },
				"failed":    func(ctx context.Context) error { tracker.Failed(ctx, "read", false, errDown); return ctx.Err() },
				"succeeded": func(ctx context.Context) error { tracker.Succeeded(ctx); return ctx.Err() },
				"replace":   func(ctx context.Context) error { return tracker.Replace(ctx, saved) },
			})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			require.NoError(t, tracker.May(ctx, health.Rotation), "what is not known keeps nobody waiting")
			time.Sleep(2 * takes)
			synctest.Wait()
			r.stores()
		})
	}
}

// ofVersion01 is the report of version 0.1.x, as it was stored and is read again by it
// after a downgrade.
type ofVersion01 struct {
	LastSuccessAt      time.Time `json:"last_success_at"`
	LastError          string    `json:"last_error"`
	LastErrorAt        time.Time `json:"last_error_at"`
	LastErrorCause     string    `json:"last_error_cause"`
	LastErrorCode      string    `json:"last_error_code"`
	LastErrorRequestID string    `json:"last_error_request_id"`
	Failures           int       `json:"consecutive_failures"`
	NextAttempt        time.Time `json:"next_attempt"`
	Retries            int       `json:"retries"`
	Deceived           bool      `json:"deceived"`
	ThrottledAt        time.Time `json:"throttled_at"`
	ThrottledUntil     time.Time `json:"throttled_until"`
	CompareNext        time.Time `json:"compare_next"`
	CompareRetries     int       `json:"compare_retries"`
	DriftCheckedAt     time.Time `json:"drift_checked_at"`
	DriftResult        string    `json:"drift_result"`
	MissedRotation     time.Time `json:"missed_rotation"`
	MissedRotations    int       `json:"missed_rotations"`
}

// What version 0.1.x has stored is read, and what is written can be read by it.
func TestReportOfVersion01(t *testing.T) {
	old := ofVersion01{
		LastSuccessAt: noon.Add(-2 * time.Hour), LastError: "x", LastErrorAt: noon.Add(-time.Minute), LastErrorCause: "rotation", LastErrorCode: "c", LastErrorRequestID: "id",
		Failures: 1, NextAttempt: noon.Add(time.Minute), Retries: 2, Deceived: true, ThrottledAt: noon.Add(-time.Minute), ThrottledUntil: noon.Add(time.Hour),
		CompareNext: noon.Add(2 * time.Minute), CompareRetries: 3, DriftCheckedAt: noon.Add(-time.Minute), DriftResult: health.DriftUnknown,
		MissedRotation: noon.Add(-time.Hour), MissedRotations: 4,
	}
	encoded, err := json.Marshal(old)
	require.NoError(t, err)
	r := newRig(t)
	r.store(string(encoded))
	require.Equal(t, time.Hour, r.waits(r.mayRotate))
	require.Equal(t, 4*time.Minute, r.waits(r.mayRead), "five minutes from when it was noted")
	require.True(t, r.report().ProbeFailed)

	// A change of something else leaves the rest as it was.
	require.True(t, r.tracker.Missed(r.ctx, noon))
	r.stores()
	entry, err := r.storage.Get(t.Context(), health.StorageKey)
	require.NoError(t, err)
	var back ofVersion01
	require.NoError(t, entry.DecodeJSON(&back))
	old.MissedRotation, old.MissedRotations = noon, 5
	require.Equal(t, old, back)

	r.store(strings.ReplaceAll(string(encoded), `"throttled_until":"2027-02-28T13:00:00Z"`, `"throttled_until":"0001-01-01T00:00:00Z"`))
	require.False(t, r.allowed(health.Rotation, true), "what it called deceived")
	r.succeeded()
	require.Equal(t, false, r.stored()["probe_failed"])
	require.Equal(t, false, r.stored()["deceived"])
}

// A throttling that another node has noted is not the one that a retirement has tried in
// spite of.
func TestRetirementTriesOnceForTheThrottlingOfAnotherNode(t *testing.T) {
	r := newRig(t)
	r.failed(false, throttled(time.Hour))
	r.failed(true, throttled(time.Hour))
	require.ErrorIs(t, r.tracker.May(t.Context(), health.Retirement), health.ErrThrottled)
	r.now = r.now.Add(3 * time.Hour)
	other := health.New(r.storage, func() time.Time { return r.now })
	other.Failed(t.Context(), "read", false, throttled(24*time.Hour))
	r.tracker.Forget()
	require.NoError(t, r.tracker.May(t.Context(), health.Retirement))
}
