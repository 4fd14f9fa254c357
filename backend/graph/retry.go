// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	maxRepetitions = 2
	// maxWait is the longest wait before a repetition. If the other side asks for more,
	// the call fails at once instead of blocking its caller.
	maxWait = 5 * time.Second
)

// codeConcurrency comes with a 409 if two requests changed the same directory object, such
// as an app registration, at once: Graph has not carried out this one.
const codeConcurrency = "Directory_ConcurrencyViolation"

// retrier repeats attempts if that is proven to be harmless.
type retrier struct {
	// sleep waits, or returns an error if the context ends first.
	sleep func(ctx context.Context, d time.Duration) error
}

// do runs attempt until it succeeds or must not be repeated, and returns its last error,
// even if the context ends during a wait: the attempt's error says more. Idempotent
// attempts are repeated after more kinds of failure.
func (r retrier) do(ctx context.Context, idempotent bool, attempt func(context.Context) error) error {
	var answered error // by the attempt before
	for n := 0; ; n++ {
		err := attempt(ctx)
		e, ok := errors.AsType[*Error](err)
		if idempotent && answered != nil && ctx.Err() != nil {
			return answered // which says more than that time is up
		}
		if !ok || !repeatable(e, n, idempotent) {
			return err
		}
		answered = err
		wait := e.RetryAfter
		if wait < betweenPOSTs {
			wait = Backoff(betweenPOSTs, maxWait, n)
		}
		end, ends := ctx.Deadline()
		if wait > maxWait || ends && time.Until(end) <= wait || r.sleep(ctx, wait) != nil {
			return err
		}
	}
}

// repeatable reports whether an attempt that failed with e, after n repetitions, may be
// repeated. It may if it is idempotent, or if it is proven that Graph has not carried it
// out, and if the failure may pass.
func repeatable(e *Error, n int, idempotent bool) bool {
	switch {
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable,
		e.Status == http.StatusConflict && e.Code == codeConcurrency:
		return n < maxRepetitions && (idempotent || !e.MayHaveHappened())
	case e.managed && e.Op == OpSignIn && (e.Status == http.StatusNotFound || e.Status != 0 && e.Kind == Unavailable):
		// Azure's metadata service is being updated, or overloaded.
		return n < maxRepetitions
	case e.Status == http.StatusInternalServerError, e.Status == http.StatusBadGateway,
		e.Status == http.StatusGatewayTimeout, e.Reason == reasonConnLost:
		return n == 0 && idempotent
	}
	return false
}

// Backoff returns how long to wait after so many failures in succession: first, then twice
// as long each time up to last, and up to a fifth more, so that not all who failed
// together come back together.
func Backoff(first, last time.Duration, failures int) time.Duration {
	wait := min(last, first<<min(failures, 16))
	return wait + rand.N(wait/5) //nolint:gosec // nothing depends on this being hard to guess
}

// Sleep waits for d, or returns the error of the context if that ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
