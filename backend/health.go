// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const healthStorageKey = "health"

var errUnreadableReport = errors.New("the stored report cannot be decoded")

// Scheduled work that has failed is tried again after firstRetry, then after twice
// as long each time, up to lastRetry: a night without Graph costs some twenty
// attempts.
const (
	firstRetry = time.Minute
	lastRetry  = 30 * time.Minute
)

// health remembers how the work with Graph went, across restarts: for the operators
// who read the status, for the back-off of scheduled work, and for how long Graph
// has asked to be left alone. What cannot be stored goes on in memory; while the report
// cannot be read, nothing is remembered.
type health struct {
	now func() time.Time

	mu     sync.Mutex
	report *healthReport // as stored; nil if not known
}

// healthReport is what health stores. Zero times mean never.
type healthReport struct {
	LastSuccessAt time.Time `json:"last_success_at"`

	LastError          string    `json:"last_error"` // never contains a secret: see graph.Error
	LastErrorAt        time.Time `json:"last_error_at"`
	LastErrorCause     cause     `json:"last_error_cause"`
	LastErrorCode      string    `json:"last_error_code"`
	LastErrorRequestID string    `json:"last_error_request_id"`
	Failures           int       `json:"consecutive_failures"`

	// NextAttempt is when scheduled work is tried again after it has failed.
	NextAttempt time.Time `json:"next_attempt"`
	// Retries is how often it has failed in succession.
	Retries int `json:"retries"`
	// Deceived tells that a retry was made early, because Graph seemed to be back,
	// and failed nevertheless.
	Deceived bool `json:"deceived"`

	ThrottledAt    time.Time `json:"throttled_at"`
	ThrottledUntil time.Time `json:"throttled_until"`

	// CompareNext is when a scheduled comparison is made again after it has failed,
	// CompareRetries how often it has in succession.
	CompareNext    time.Time `json:"compare_next"`
	CompareRetries int       `json:"compare_retries"`

	DriftCheckedAt  time.Time   `json:"drift_checked_at"`
	DriftResult     driftResult `json:"drift_result"`
	MissedRotation  time.Time   `json:"missed_rotation"`
	MissedRotations int         `json:"missed_rotations"`
}

// driftResult says what a comparison with the tenant's key has shown.
type driftResult string

const (
	driftNone     driftResult = "unchanged"
	driftStale    driftResult = "stale"    // Graph named a key that the engine has replaced
	driftExternal driftResult = "external" // somebody else has regenerated the key
	driftUnknown  driftResult = "failed"   // the tenant's key could not be read
)

// failed records an attempt to regenerate the key that failed. If it was scheduled
// work, it is not tried again before a time that grows with each failure and is no
// less than what Graph asks for; early tells that it was tried before that time.
func (h *health) failed(ctx context.Context, s logical.Storage, t task, failure error) error {
	return h.change(ctx, s, func(r *healthReport) bool {
		now := h.now()
		r.LastError, r.LastErrorAt, r.LastErrorCause = explain(failure), now, t.cause
		r.LastErrorCode, r.LastErrorRequestID = "", ""
		r.Failures++
		asked := r.heedThrottling(failure, now)
		if remote, ok := errors.AsType[*graph.Error](failure); ok {
			r.LastErrorCode, r.LastErrorRequestID = remote.Code, remote.RequestID
		}
		if t.unattended {
			r.Deceived = r.Deceived || now.Before(r.NextAttempt)
			r.NextAttempt = now.Add(max(retryAfter(r.Retries), asked))
			r.Retries++
		}
		return true
	})
}

// heedThrottling remembers how long Graph has asked to be left alone, and returns it.
func (r *healthReport) heedThrottling(failure error, now time.Time) time.Duration {
	remote, ok := errors.AsType[*graph.Error](failure)
	if !ok {
		return 0
	}
	if until := now.Add(remote.RetryAfter); remote.RetryAfter > 0 && until.After(r.ThrottledUntil) {
		r.ThrottledAt, r.ThrottledUntil = now, until
	}
	return remote.RetryAfter
}

// retryAfter is the time until scheduled work is tried again that has failed so many
// times before, and up to a fifth more, lest all mounts come back together.
func retryAfter(failures int) time.Duration {
	wait := lastRetry
	if failures < 5 {
		wait = firstRetry << failures
	}
	return wait + rand.N(wait/5) //nolint:gosec // nothing depends on this being hard to guess
}

// succeeded records an attempt that succeeded. The last error stays to be read.
func (h *health) succeeded(ctx context.Context, s logical.Storage) error {
	return h.change(ctx, s, func(r *healthReport) bool {
		troubled := r.Failures != 0 || r.Retries != 0 || !r.ThrottledUntil.IsZero()
		r.LastSuccessAt = h.now()
		r.Failures, r.Retries, r.Deceived = 0, 0, false
		r.NextAttempt, r.ThrottledUntil = time.Time{}, time.Time{}
		// In good times the key record tells when the last success was.
		return troubled
	})
}

// compared records what a comparison has shown, or why it could not be made.
func (h *health) compared(ctx context.Context, s logical.Storage, result driftResult, failure error) error {
	return h.change(ctx, s, func(r *healthReport) bool {
		r.DriftCheckedAt, r.DriftResult = h.now(), result
		if result == driftUnknown {
			r.CompareNext = h.now().Add(compareRetry)
			if r.CompareRetries > 0 {
				r.CompareNext = h.now().Add(retryAfter(r.CompareRetries))
			}
			r.CompareRetries++
		} else {
			r.CompareNext, r.CompareRetries = time.Time{}, 0
		}
		r.heedThrottling(failure, h.now())
		return true
	})
}

// missed records that the window of a rotation has passed, once for each.
func (h *health) missed(ctx context.Context, s logical.Storage, due time.Time) (isNew bool, err error) {
	err = h.change(ctx, s, func(r *healthReport) bool {
		if isNew = due.After(r.MissedRotation); isNew {
			r.MissedRotation = due
			r.MissedRotations++
		}
		return isNew
	})
	return isNew, err
}

// reconsider forgets what kept the engine from trying: another connection has just been
// found to work.
func (h *health) reconsider(ctx context.Context, s logical.Storage) error {
	return h.change(ctx, s, func(r *healthReport) bool {
		r.Retries, r.Deceived, r.CompareRetries = 0, false, 0
		r.NextAttempt, r.CompareNext, r.ThrottledUntil = time.Time{}, time.Time{}, time.Time{}
		return true
	})
}

// get returns the report.
func (h *health) get(ctx context.Context, s logical.Storage) (healthReport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.load(ctx, s)
	if err != nil {
		return healthReport{}, err
	}
	return *h.report, nil
}

// throttledUntil returns the end of the time for which Graph has asked to be left
// alone, or zero. What cannot be read does not keep anybody from trying.
func (h *health) throttledUntil(ctx context.Context, s logical.Storage) time.Time {
	report, err := h.get(ctx, s)
	if err != nil || !report.throttled(h.now()) {
		return time.Time{}
	}
	return report.ThrottledUntil
}

// throttled tells whether Graph is to be left alone. What a clock ahead has noted does
// not count: its end would be too late.
func (r *healthReport) throttled(now time.Time) bool {
	return now.Before(r.ThrottledUntil) && !r.ThrottledAt.After(now)
}

func (h *health) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.report = nil
}

// change stores what edit makes of the report. If that cannot be read, nothing is
// stored: an empty one with this change in it would wipe out all that came before.
func (h *health) change(ctx context.Context, s logical.Storage, edit func(*healthReport) (changed bool)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch err := h.load(ctx, s); {
	case errors.Is(err, errUnreadableReport):
		h.report = &healthReport{} // nothing of it will ever be read again
	case err != nil:
		return err
	}
	if !edit(h.report) {
		return nil
	}
	entry, err := logical.StorageEntryJSON(healthStorageKey, h.report)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}

func (h *health) load(ctx context.Context, s logical.Storage) error {
	if h.report != nil {
		return nil
	}
	entry, err := s.Get(ctx, healthStorageKey)
	if err != nil {
		return err
	}
	report := &healthReport{}
	if entry != nil {
		if err := entry.DecodeJSON(report); err != nil {
			return errUnreadableReport // not err: it could quote the report
		}
	}
	h.report = report
	return nil
}
