// SPDX-License-Identifier: MPL-2.0

// Package health remembers how the work with Microsoft Graph went, across restarts: for
// the operators who read mdi/status, for the back-off of unattended work, and for how long
// Graph has asked the engine to stay away.
//
// The report is never a reason to fail. What cannot be stored goes on in memory, and
// while the report cannot be read nothing is remembered.
package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/store"
)

// StorageKey is where the report is stored.
const StorageKey = "health"

// Unattended work that has failed is tried again after FirstRetry, then after twice as
// long each time, up to LastRetry: a night without Graph costs some twenty attempts.
const (
	FirstRetry = time.Minute
	LastRetry  = 30 * time.Minute

	// After a failed regeneration, the next one for readers waits for FirstHold, then for
	// twice as long each time, up to lastHold.
	FirstHold = 2 * time.Second
	lastHold  = time.Minute

	// heededByReaders is how long readers leave Graph alone at most, however long it asks.
	heededByReaders = 5 * time.Minute
)

// Kind is a kind of work that asks Graph for something.
type Kind int

// The kinds.
const (
	Rotation Kind = iota
	Retirement
	Comparison
	Reading // regenerating the key for a reader
)

// probeEach is how long the answer to a probe counts, whoever else would like to know.
const probeEach = 10 * time.Second

// ErrUnreadable says that the stored report is damaged. It does not wrap the decoder's
// error, which could quote the report.
var ErrUnreadable = errors.New("the storage entry " + StorageKey + " of this mount cannot be decoded: the next regeneration or comparison replaces it")

// ErrThrottled says that Graph has asked the engine to stay away.
var ErrThrottled = errors.New("Microsoft Graph has asked to be left alone") //nolint:staticcheck // a name

// HeldError says that a regeneration has just failed, and that readers have to wait for
// the next one.
type HeldError struct {
	until    time.Time
	reason   error
	failures int // in succession
}

func (e *HeldError) Error() string {
	return "the last regeneration has failed, and none is tried for readers until " + e.until.UTC().Format(time.RFC3339) + ": " + graph.Explain(e.reason)
}

func (e *HeldError) Unwrap() error { return e.reason }

// The results of a comparison of the key with the tenant's.
const (
	DriftNone     = "unchanged"
	DriftStale    = "stale"    // Graph named a key that the engine has replaced
	DriftExternal = "external" // the key was regenerated outside the engine
	DriftUnknown  = "failed"   // the tenant's key could not be read
)

// Report is what the tracker stores. A zero time means never.
type Report struct {
	LastSuccessAt time.Time `json:"last_success_at"`

	LastError          string    `json:"last_error"` // never contains a secret: see graph.Error
	LastErrorAt        time.Time `json:"last_error_at"`
	LastErrorCause     string    `json:"last_error_cause"`
	LastErrorCode      string    `json:"last_error_code"`
	LastErrorRequestID string    `json:"last_error_request_id"`
	Failures           int       `json:"consecutive_failures"`

	// NextAttempt is when unattended work is tried again, after Retries failures in
	// succession.
	NextAttempt time.Time `json:"next_attempt"`
	Retries     int       `json:"retries"`
	// ProbeFailed says that a retry was made early, because Graph had answered a probe,
	// and failed nevertheless.
	ProbeFailed bool `json:"probe_failed"`
	// Deceived is ProbeFailed for version 0.1.x, which has to be able to read the report.
	Deceived bool `json:"deceived"`

	ThrottledAt    time.Time `json:"throttled_at"`
	ThrottledUntil time.Time `json:"throttled_until"`
	// CompareHeld is until when Graph has asked comparisons to stay away.
	CompareHeld time.Time `json:"compare_held"`

	// CompareNext is when an unattended comparison is made again, after CompareRetries
	// failures in succession, and CompareProblem why the last one failed.
	CompareNext    time.Time `json:"compare_next"`
	CompareRetries int       `json:"compare_retries"`
	CompareProblem string    `json:"compare_problem"`

	DriftCheckedAt  time.Time `json:"drift_checked_at"`
	DriftResult     string    `json:"drift_result"`
	MissedRotation  time.Time `json:"missed_rotation"`
	MissedRotations int       `json:"missed_rotations"`
}

// Tracker keeps the report.
type Tracker struct {
	storage logical.Storage
	now     func() time.Time

	lock   store.Lock
	report *Report // nil if it is not known

	connection atomic.Int64 // see Connection

	held   atomic.Pointer[HeldError] // what readers get after a failure
	tried  atomic.Bool               // a retirement has tried in spite of the throttling
	probed atomic.Pointer[time.Time] // when Graph was last probed
}

// New returns the tracker of a mount.
func New(storage logical.Storage, now func() time.Time) *Tracker {
	return &Tracker{storage: storage, now: now, lock: store.NewLock()}
}

// Failed records a failed attempt to regenerate the key. Unattended work is not tried
// again before a time that grows with each failure and is no less than what Graph asks for.
func (t *Tracker) Failed(ctx context.Context, cause string, unattended bool, failure error) {
	now, remote := t.now(), ofGraph(failure)
	if remote.Op == graph.OpRegenerate || remote.Op != "" && !unattended {
		t.hold(remote, now) // whatever becomes of the report
	}
	t.note(ctx, func(r *Report) {
		if unattended && remote.Op == graph.OpRegenerate && r.throttled(now) { // nothing but a retirement tries then
			t.tried.Store(true)
		}
		t.heedThrottling(r, remote, now)
		r.keepEvidence(cause, failure, now)
		r.Failures++
		if unattended {
			r.ProbeFailed = r.ProbeFailed || now.Before(r.NextAttempt)
			r.NextAttempt = now.Add(max(graph.Backoff(FirstRetry, LastRetry, r.Retries), remote.RetryAfter))
			r.Retries++
		}
	})
}

// ofGraph returns Graph's or Entra's part in a failure, an empty one if it has none.
func ofGraph(failure error) *graph.Error {
	remote, _ := errors.AsType[*graph.Error](failure)
	return cmp.Or(remote, &graph.Error{})
}

// hold keeps readers from the next regeneration for a while. Regenerations fail one at a time.
func (t *Tracker) hold(failure error, now time.Time) {
	before := cmp.Or(t.held.Load(), &HeldError{}).failures
	wait := min(lastHold, FirstHold<<min(before, 5))
	t.held.Store(&HeldError{until: now.Add(wait), reason: failure, failures: before + 1})
}

// keepEvidence records what failed. What Graph or Entra has answered is not replaced by a
// failure without an answer of theirs before a success.
func (r *Report) keepEvidence(cause string, failure error, now time.Time) {
	remote := ofGraph(failure)
	if remote.Op != "" {
		failure = remote // what else the caller is told is of the moment
	}
	if remote.RequestID == "" && r.Failures > 0 && r.LastErrorRequestID != "" {
		return
	}
	r.LastError, r.LastErrorAt, r.LastErrorCause = graph.Explain(failure), now, cause
	r.LastErrorCode, r.LastErrorRequestID = remote.Code, remote.RequestID
}

// heedThrottling remembers how long Graph has asked the engine to stay away. To ask for
// more time is the same throttling: a retirement that has tried in spite of it does not try
// again.
func (t *Tracker) heedThrottling(r *Report, remote *graph.Error, now time.Time) {
	if until := now.Add(remote.RetryAfter); remote.RetryAfter > 0 && until.After(r.ThrottledUntil) {
		if !r.throttled(now) {
			t.tried.Store(false)
		}
		r.ThrottledAt, r.ThrottledUntil = now, until
	}
}

// Succeeded records a regeneration. The last error stays to be read.
func (t *Tracker) Succeeded(ctx context.Context) {
	t.held.Store(nil)
	t.note(ctx, func(r *Report) {
		r.LastSuccessAt = t.now()
		r.Failures, r.Retries, r.ProbeFailed = 0, 0, false
		r.NextAttempt, r.ThrottledUntil = time.Time{}, time.Time{}
		if r.DriftResult == DriftExternal { // the key is the engine's own again
			r.DriftResult = DriftNone
		}
	})
}

// Compared records the result of a comparison.
func (t *Tracker) Compared(ctx context.Context, result string) {
	t.note(ctx, func(r *Report) {
		r.DriftCheckedAt, r.DriftResult = t.now(), result
		r.CompareNext, r.CompareHeld, r.CompareRetries, r.CompareProblem = time.Time{}, time.Time{}, 0, ""
	})
}

// Uncompared records why a comparison failed, and reports whether it is the first failure
// of a row. One over a connection that has been replaced since does not count, see
// [Tracker.Connection].
func (t *Tracker) Uncompared(ctx context.Context, connection int64, failure error) (isNew bool) {
	t.note(ctx, func(r *Report) {
		if connection != t.Connection() {
			return
		}
		now, remote := t.now(), ofGraph(failure)
		isNew = r.DriftResult != DriftUnknown
		r.DriftCheckedAt, r.DriftResult = now, DriftUnknown
		r.CompareProblem = graph.Explain(failure)
		t.heedThrottling(r, remote, now)
		r.CompareHeld = now.Add(min(remote.RetryAfter, heededByReaders))
		r.CompareNext = now.Add(max(graph.Backoff(FirstRetry, LastRetry, r.CompareRetries), remote.RetryAfter))
		r.CompareRetries++
	})
	return isNew
}

// Connection returns the number of the connection with Graph that failures are of. Who
// asks Graph beside the changes of the configuration gets it before the connection, since
// [Tracker.Replace] counts it up after the connection has been replaced.
func (t *Tracker) Connection() int64 { return t.connection.Load() }

// May returns why work of a kind must not ask Graph now: ErrThrottled while Graph wants it
// to stay away, and for readers a [*HeldError] after a failure. A retirement may
// regenerate the key once in spite of what Graph wants: nobody holds it. A report that
// cannot be read does not count.
func (t *Tracker) May(ctx context.Context, kind Kind) error {
	report, _ := t.Report(ctx)
	now, until := t.now(), report.ThrottledUntil
	switch kind {
	case Reading:
		until = earlier(until, report.ThrottledAt.Add(heededByReaders))
	case Comparison:
		until = report.CompareHeld
	case Retirement:
		if !t.tried.Load() {
			return nil
		}
	}
	if now.Before(until) {
		return fmt.Errorf("%w until %s, and this request needs it", ErrThrottled, until.UTC().Format(time.RFC3339))
	}
	if held := t.held.Load(); kind == Reading && held != nil {
		if left := held.until.Sub(now); left > 0 && left <= lastHold {
			return held
		}
	}
	return nil
}

func earlier(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// Missed records that the window of a rotation has passed, once for each.
func (t *Tracker) Missed(ctx context.Context, due time.Time) (isNew bool) {
	t.note(ctx, func(r *Report) {
		if isNew = due.After(r.MissedRotation); isNew {
			r.MissedRotation = due
			r.MissedRotations++
		}
	})
	return isNew
}

// Replace has save put another connection in place, and forgets what keeps the engine from
// trying. It does so before, because the process may die in between: the new connection must
// not wait as long as the old one was told to. It does so again afterwards, because the old
// one may have failed meanwhile. The error is that of storing the former, or of save.
func (t *Tracker) Replace(ctx context.Context, save func() error) error {
	if err := t.forget(ctx); err != nil {
		return err
	}
	if err := save(); err != nil {
		return err
	}
	t.connection.Add(1)
	_ = t.forget(ctx) // in memory, and stored with the next change
	return nil
}

func (t *Tracker) forget(ctx context.Context) error {
	t.held.Store(nil)
	return t.change(ctx, func(r *Report) {
		r.Retries, r.ProbeFailed, r.CompareRetries = 0, false, 0
		r.NextAttempt, r.CompareNext, r.CompareHeld, r.ThrottledUntil = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	})
}

// Allowed reports whether unattended work may call Graph now. After a failure it waits,
// longer each time. While it waits it probes, which costs neither a token nor an entry in
// the tenant's audit log: work must not wait for half an hour after Graph has come back.
// Once Graph has answered a probe and the work has failed nevertheless, the full time is
// waited, until a probe fails: then the next that is answered counts again. Comparisons
// wait on their own.
func (t *Tracker) Allowed(ctx context.Context, kind Kind, probe func(context.Context) bool) bool {
	report, _ := t.Report(ctx) // one that cannot be read keeps no work waiting
	now := t.now()
	switch {
	case t.May(ctx, kind) != nil: // also if it was a reader whom Graph has told so
		return false
	case kind == Comparison, report.throttled(now): // a retirement asks for the key first, perhaps in vain
		return !now.Before(report.CompareNext)
	case !now.Before(report.NextAttempt):
		return true
	case !t.mayProbe(now):
		return false
	case !probe(ctx):
		_ = t.change(ctx, func(r *Report) { r.ProbeFailed = false })
		return false
	default:
		return !report.ProbeFailed
	}
}

// mayProbe keeps those who would probe Graph at once from doing so: each revocation asks
// whether the key may be retired.
func (t *Tracker) mayProbe(now time.Time) bool {
	last := t.probed.Load()
	if age := now.Sub(*cmp.Or(last, &time.Time{})); age >= 0 && age < probeEach {
		return false
	}
	return t.probed.CompareAndSwap(last, &now)
}

// Report returns the report.
func (t *Tracker) Report(ctx context.Context) (Report, error) {
	unlock, err := t.load(ctx)
	defer unlock()
	if err != nil {
		return Report{}, err
	}
	return *t.report, nil
}

// correct drops what a clock ahead has left: what was noted at a time that is still to
// come keeps nobody waiting.
func (r *Report) correct(now time.Time) {
	if r.ThrottledAt.After(now) {
		r.ThrottledAt, r.ThrottledUntil = time.Time{}, time.Time{}
	}
	// Nothing else lets unattended work wait for longer. The time of the last error says
	// nothing about it, since that may be an earlier one.
	if longest := now.Add(LastRetry + LastRetry/5); r.NextAttempt.After(longest) && r.NextAttempt.After(r.ThrottledUntil) {
		r.NextAttempt = time.Time{}
	}
	if r.DriftCheckedAt.After(now) {
		r.DriftCheckedAt, r.CompareNext, r.CompareHeld = now, time.Time{}, time.Time{}
	}
	if r.MissedRotation.After(now) {
		r.MissedRotation = time.Time{}
	}
	r.LastErrorAt, r.LastSuccessAt = earlier(r.LastErrorAt, now), earlier(r.LastSuccessAt, now)
}

// throttled reports whether Graph wants the engine to stay away.
func (r *Report) throttled(now time.Time) bool { return now.Before(r.ThrottledUntil) }

// Forget drops what the tracker remembers of a report that another node has written.
func (t *Tracker) Forget() {
	unlock, _ := t.lock.Write(context.Background()) // never fails: who holds it has a budget
	defer unlock()
	t.report = nil
	t.tried.Store(false) // it was about another throttling
}

// note makes a change that is not worth failing for. What cannot be stored goes on in memory.
func (t *Tracker) note(ctx context.Context, edit func(*Report)) {
	if err := t.change(ctx, edit); err != nil {
		hclog.FromContext(ctx).Warn("storing the report of the last attempt", graph.LogArgs(err)...)
	}
}

// change stores what edit makes of the report, if that differs. If it cannot be read, nothing is
// stored: an empty one with this change in it would wipe out all that came before. Two fields
// are worth no write of their own: in good times the key record has the time of the last
// success, and a probe that fails says nothing that the next one would not.
func (t *Tracker) change(ctx context.Context, edit func(*Report)) error {
	unlock, err := t.load(ctx)
	defer unlock()
	switch {
	case errors.Is(err, ErrUnreadable):
		t.report = &Report{} // nothing of the stored one will ever be read again
	case err != nil:
		return err
	}
	before := *t.report
	edit(t.report)
	before.LastSuccessAt, before.ProbeFailed = t.report.LastSuccessAt, t.report.ProbeFailed
	if *t.report == before {
		return nil
	}
	stored := *t.report
	stored.Deceived = stored.ProbeFailed
	return store.Save(ctx, t.storage, StorageKey, stored)
}

// load sees to it that the report is known and makes sense, and holds the lock until unlock is
// called. That is also to be called after an error.
func (t *Tracker) load(ctx context.Context) (unlock func(), err error) {
	if unlock, err = t.lock.Write(ctx); err != nil {
		return func() {}, err
	}
	if t.report == nil {
		report := &Report{}
		if _, err := store.Load(ctx, t.storage, StorageKey, report, ErrUnreadable); err != nil {
			return unlock, err
		}
		report.ProbeFailed, report.Deceived = report.ProbeFailed || report.Deceived, false
		t.report = report
	}
	t.report.correct(t.now())
	return unlock, nil
}
