// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetry(t *testing.T) {
	const forever = 100
	for name, test := range map[string]struct {
		failure    error
		times      int
		idempotent bool
		deadline   time.Duration

		attempts  int
		waits     [2]time.Duration // at least, at most
		succeeded bool
	}{
		"throttled":              {failure: refusal(429, 0), times: 1, attempts: 2, waits: around(time.Second), succeeded: true},
		"throttled, advised":     {failure: refusal(429, 2*time.Second), times: 1, attempts: 2, waits: exactly(2 * time.Second), succeeded: true},
		"throttled, for a blink": {failure: refusal(429, time.Millisecond), times: 1, attempts: 2, waits: around(time.Second), succeeded: true},
		"throttled forever":      {failure: refusal(429, 0), times: forever, attempts: 3, waits: around(3 * time.Second)},
		"unavailable":            {failure: refusal(503, 0), times: 2, attempts: 3, waits: around(3 * time.Second), succeeded: true},
		"asked to wait long":     {failure: refusal(429, 6*time.Second), times: 1, attempts: 1},
		"asked to wait 5 s":      {failure: refusal(503, 5*time.Second), times: 1, attempts: 2, waits: exactly(5 * time.Second), succeeded: true},
		"no time to wait":        {failure: refusal(503, 2*time.Second), times: 1, deadline: time.Second, attempts: 1},
		"time for one wait":      {failure: refusal(503, 2*time.Second), times: forever, deadline: 3 * time.Second, attempts: 2, waits: exactly(2 * time.Second)},
		"POST, 429 of a proxy":   {failure: &Error{Status: 429}, times: 1, attempts: 1},
		"POST, 503 of a proxy":   {failure: &Error{Status: 503, RetryAfter: time.Second}, times: 1, attempts: 1},
		"POST, 500":              {failure: refusal(500, 0), times: 1, attempts: 1},
		"POST, 502":              {failure: refusal(502, 0), times: 1, attempts: 1},
		"POST, 504":              {failure: refusal(504, 0), times: 1, attempts: 1},
		"POST, 408":              {failure: refusal(408, 0), times: 1, attempts: 1},
		"POST, lost":             {failure: &Error{Reason: reasonConnLost}, times: 1, attempts: 1},
		"POST, not connected":    {failure: &Error{Reason: reasonConnLost, unsent: true}, times: 1, attempts: 1},
		"POST, timeout":          {failure: &Error{Kind: Timeout, Reason: reasonNoAnswer}, times: 1, attempts: 1},
		"GET, 429 of a proxy":    {failure: &Error{Status: 429}, times: 1, idempotent: true, attempts: 2, waits: around(time.Second), succeeded: true},
		"GET, 503 of a proxy":    {failure: &Error{Status: 503}, times: forever, idempotent: true, attempts: 3, waits: around(3 * time.Second)},
		"GET, 500":               {failure: &Error{Status: 500}, times: 1, idempotent: true, attempts: 2, waits: around(time.Second), succeeded: true},
		"GET, 504":               {failure: &Error{Status: 504}, times: forever, idempotent: true, attempts: 2, waits: around(time.Second)},
		"GET, 502":               {failure: &Error{Status: 502}, times: 1, idempotent: true, attempts: 2, waits: around(time.Second), succeeded: true},
		"GET, lost":              {failure: &Error{Reason: reasonConnLost}, times: 1, idempotent: true, attempts: 2, waits: around(time.Second), succeeded: true},
		"GET, other 5xx":         {failure: &Error{Status: 501}, times: 1, idempotent: true, attempts: 1},
		"GET, timeout":           {failure: &Error{Kind: Timeout, Reason: reasonNoAnswer}, times: 1, idempotent: true, attempts: 1},
		"GET, refused":           {failure: &Error{Status: 403}, times: 1, idempotent: true, attempts: 1},
		"POST, conflict":         {failure: conflict(OpAddPassword, true), times: 2, attempts: 3, waits: around(3 * time.Second), succeeded: true},
		"POST, conflict forever": {failure: conflict(OpAddKey, true), times: forever, attempts: 3, waits: around(3 * time.Second)},
		"POST, a proxy's":        {failure: conflict(OpAddPassword, false), times: 1, attempts: 1},
		"POST of the key":        {failure: conflict(OpRegenerate, true), times: 1, attempts: 1},
		"POST, other conflict":   {failure: &Error{Op: OpAddPassword, Status: 409, Code: "x", Signed: true}, times: 1, attempts: 1},
		"GET, not found":         {failure: &Error{Status: 404}, times: 1, idempotent: true, attempts: 1},
		"metadata, 404":          {failure: metadata(404), times: 1, idempotent: true, attempts: 2, waits: around(time.Second), succeeded: true},
		"metadata, 408":          {failure: metadata(408), times: 2, idempotent: true, attempts: 3, waits: around(3 * time.Second), succeeded: true},
		"metadata, 410":          {failure: metadata(410), times: forever, idempotent: true, attempts: 3, waits: around(3 * time.Second)},
		"metadata, 500":          {failure: metadata(500), times: 2, idempotent: true, attempts: 3, waits: around(3 * time.Second), succeeded: true},
		"metadata, 511":          {failure: metadata(511), times: 2, idempotent: true, attempts: 3, waits: around(3 * time.Second), succeeded: true},
		"metadata, 400":          {failure: metadata(400), times: 1, idempotent: true, attempts: 1},
		"metadata, nobody":       {failure: &Error{Op: OpSignIn, Kind: Unavailable, managed: true}, times: 1, idempotent: true, attempts: 1},
		"Graph, 404":             {failure: &Error{Op: OpGet, Status: 404, managed: true}, times: 1, idempotent: true, attempts: 1},
		"a context's own":        {failure: context.Canceled, times: 1, idempotent: true, attempts: 1},
		"immediate success":      {times: 0, attempts: 1, succeeded: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				attempts, start := 0, time.Now()
				client, op := &Client{sleep: Sleep}, ""
				if e, ok := errors.AsType[*Error](test.failure); ok {
					client.managed, op = e.managed, e.Op
				}
				err := client.retry(ctx, op, test.idempotent, func() error {
					attempts++
					if attempts <= test.times {
						return test.failure
					}
					return nil
				})
				waited := time.Since(start)
				require.Equal(t, test.attempts, attempts)
				require.GreaterOrEqual(t, waited, test.waits[0])
				require.LessOrEqual(t, waited, test.waits[1])
				if test.succeeded {
					require.NoError(t, err)
				} else {
					require.Equal(t, test.failure, err)
				}
			})
		})
	}
}

// refusal is one that Graph itself has signed.
func refusal(status int, after time.Duration) *Error {
	return &Error{Op: OpRegenerate, Status: status, RetryAfter: after, Signed: true}
}

// metadata is a refusal of Azure's metadata service.
func metadata(status int) *Error {
	return &Error{Op: OpSignIn, Kind: kindOf(status), Status: status, managed: true}
}

func conflict(op string, signed bool) *Error {
	return &Error{Op: op, Status: 409, Code: codeConcurrency, Signed: signed}
}

func exactly(d time.Duration) [2]time.Duration { return [2]time.Duration{d, d} }
func around(d time.Duration) [2]time.Duration  { return [2]time.Duration{d, d + d/4} }

func TestRetryKeepsTheErrorIfTheCallerLeavesDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		refusal := refusal(429, 0)
		start := time.Now()
		err := (&Client{sleep: Sleep}).retry(ctx, OpRegenerate, false, func() error { return refusal })
		require.Equal(t, refusal, err)
		require.False(t, errors.Is(err, context.Canceled))
		require.Equal(t, 500*time.Millisecond, time.Since(start))
	})
}
