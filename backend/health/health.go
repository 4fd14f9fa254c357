// SPDX-License-Identifier: MPL-2.0

// Package health remembers how the work with Microsoft Graph went, across restarts: for
// the operators who read mdi/status, for the back-off of unattended work, and for how long
// Graph has asked the engine to stay away.
//
// The report is never a reason to fail. What cannot be stored goes on in memory, and
// while the report cannot be read nothing is remembered.
package health

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// StorageKey is where the report is stored.
const StorageKey = "health"

// Unattended work that has failed is tried again after FirstRetry, then after twice as
// long each time, up to LastRetry: a night without Graph costs some twenty attempts.
const (
	FirstRetry = time.Minute
	LastRetry  = 30 * time.Minute

	// compareRetry is how long readers get the key with a warning, after a comparison
	// that has failed, before one of them waits for another comparison.
	compareRetry = time.Minute
)

var errUnreadable = errors.New("the stored report cannot be decoded")

// ThrottledError says that Graph has asked the engine to stay away.
type ThrottledError struct{ Until time.Time }

func (e *ThrottledError) Error() string {
	return "Microsoft Graph has asked to be left alone until " + e.Until.UTC().Format(time.RFC3339) + ", and this request needs it"
}

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

	mu     sync.Mutex
	report *Report // nil if it is not known
}

// New returns the tracker of a mount.
func New(storage logical.Storage, now func() time.Time) *Tracker {
	return &Tracker{storage: storage, now: now}
}

// Failed records a failed attempt to regenerate the key. Unattended work is not tried
// again before a time that grows with each failure and is no less than what Graph asks for.
func (t *Tracker) Failed(ctx context.Context, cause string, unattended bool, failure error) error {
	return t.change(ctx, func(r *Report) bool {
		now := t.now()
		remote := r.heedThrottling(failure, now)
		r.LastError, r.LastErrorAt, r.LastErrorCause = graph.Explain(failure), now, cause
		r.LastErrorCode, r.LastErrorRequestID = remote.Code, remote.RequestID
		r.Failures++
		if unattended {
			r.ProbeFailed = r.ProbeFailed || now.Before(r.NextAttempt)
			r.NextAttempt = now.Add(max(graph.Backoff(FirstRetry, LastRetry, r.Retries), remote.RetryAfter))
			r.Retries++
		}
		return true
	})
}

// heedThrottling remembers how long Graph has asked the engine to stay away. It returns
// Graph's part in the failure, an empty one if it has none.
func (r *Report) heedThrottling(failure error, now time.Time) *graph.Error {
	remote, ok := errors.AsType[*graph.Error](failure)
	if !ok {
		return &graph.Error{}
	}
	if until := now.Add(remote.RetryAfter); remote.RetryAfter > 0 && until.After(r.ThrottledUntil) {
		r.ThrottledAt, r.ThrottledUntil = now, until
	}
	return remote
}

// Succeeded records a regeneration. The last error stays to be read.
func (t *Tracker) Succeeded(ctx context.Context) error {
	return t.change(ctx, func(r *Report) bool {
		troubled := r.Failures != 0 || r.Retries != 0 || !r.ThrottledUntil.IsZero()
		r.LastSuccessAt = t.now()
		r.Failures, r.Retries, r.ProbeFailed = 0, 0, false
		r.NextAttempt, r.ThrottledUntil = time.Time{}, time.Time{}
		// In good times the time of the last success is in the key record.
		return troubled
	})
}

// Compared records the result of a comparison, or why it failed.
func (t *Tracker) Compared(ctx context.Context, result string, failure error) error {
	return t.change(ctx, func(r *Report) bool {
		now := t.now()
		r.DriftCheckedAt, r.DriftResult = now, result
		if failure == nil {
			r.CompareNext, r.CompareRetries, r.CompareProblem = time.Time{}, 0, ""
			return true
		}
		r.CompareProblem = graph.Explain(failure)
		r.CompareNext = now.Add(compareRetry)
		if r.CompareRetries > 0 {
			r.CompareNext = now.Add(graph.Backoff(FirstRetry, LastRetry, r.CompareRetries))
		}
		r.CompareRetries++
		_ = r.heedThrottling(failure, now)
		return true
	})
}

// SkipReason returns why readers do not wait for a comparison now, or "": Graph has asked
// the engine to stay away, or the last comparison has just failed.
func (t *Tracker) SkipReason(ctx context.Context) string {
	report, err := t.Report(ctx)
	now := t.now()
	if err != nil {
		return ""
	}
	if age := now.Sub(report.DriftCheckedAt); report.DriftResult == DriftUnknown && age >= 0 && age < compareRetry {
		return report.CompareProblem
	}
	if report.throttled(now) {
		return (&ThrottledError{report.ThrottledUntil}).Error()
	}
	return ""
}

// Missed records that the window of a rotation has passed, once for each.
func (t *Tracker) Missed(ctx context.Context, due time.Time) (isNew bool, err error) {
	err = t.change(ctx, func(r *Report) bool {
		if isNew = due.After(r.MissedRotation); isNew {
			r.MissedRotation = due
			r.MissedRotations++
		}
		return isNew
	})
	return isNew, err
}

// Reset forgets what keeps the engine from trying: another connection has just been found
// to work.
func (t *Tracker) Reset(ctx context.Context) error {
	return t.change(ctx, func(r *Report) bool {
		r.Retries, r.ProbeFailed, r.CompareRetries = 0, false, 0
		r.NextAttempt, r.CompareNext, r.ThrottledUntil = time.Time{}, time.Time{}, time.Time{}
		return true
	})
}

// Allowed reports whether unattended work may call Graph now. After a failure it waits,
// longer each time. While it waits it probes, which costs neither a token nor an entry in
// the tenant's audit log: work must not wait for half an hour after Graph has come back.
// Once Graph has answered a probe and the work has failed nevertheless, probes say nothing
// about the work, and the full time is waited. Comparisons wait on their own.
func (t *Tracker) Allowed(ctx context.Context, comparison bool, probe func(context.Context) bool) bool {
	report, err := t.Report(ctx)
	now := t.now()
	switch {
	case err != nil:
		return true
	case comparison && now.Before(report.CompareNext):
		return false
	case !now.Before(report.NextAttempt):
		return true
	case report.throttled(now), report.ProbeFailed:
		return false
	default:
		return probe(ctx)
	}
}

// Report returns the report.
func (t *Tracker) Report(ctx context.Context) (Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(ctx); err != nil {
		return Report{}, err
	}
	return *t.report, nil
}

// Throttled returns a [*ThrottledError] while Graph wants the engine to stay away. A
// report that cannot be read does not count.
func (t *Tracker) Throttled(ctx context.Context) error {
	report, err := t.Report(ctx)
	if err != nil || !report.throttled(t.now()) {
		return nil
	}
	return &ThrottledError{report.ThrottledUntil}
}

// throttled reports whether Graph wants the engine to stay away. A time that a clock ahead
// has noted does not count: it would be too late.
func (r *Report) throttled(now time.Time) bool {
	return now.Before(r.ThrottledUntil) && !r.ThrottledAt.After(now)
}

// Forget drops what the tracker remembers of a report that another node has written.
func (t *Tracker) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report = nil
}

// change stores what edit makes of the report. If that cannot be read, nothing is stored:
// an empty one with this change in it would wipe out all that came before.
func (t *Tracker) change(ctx context.Context, edit func(*Report) (changed bool)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch err := t.load(ctx); {
	case errors.Is(err, errUnreadable):
		t.report = &Report{} // nothing of the stored one will ever be read again
	case err != nil:
		return err
	}
	if !edit(t.report) {
		return nil
	}
	stored := *t.report
	stored.Deceived = stored.ProbeFailed
	entry, err := logical.StorageEntryJSON(StorageKey, stored)
	if err != nil {
		return err
	}
	return t.storage.Put(ctx, entry)
}

func (t *Tracker) load(ctx context.Context) error {
	if t.report != nil {
		return nil
	}
	entry, err := t.storage.Get(ctx, StorageKey)
	if err != nil {
		return err
	}
	report := &Report{}
	if entry != nil {
		if err := entry.DecodeJSON(report); err != nil {
			return errUnreadable // not err: it could quote the report
		}
	}
	report.ProbeFailed, report.Deceived = report.ProbeFailed || report.Deceived, false
	t.report = report
	return nil
}
