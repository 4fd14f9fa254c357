// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A latency passes by itself, and what then happens is up to the other fields.
func TestFaultLatency(t *testing.T) {
	const latency = 30 * time.Millisecond
	for _, fault := range []Fault{
		{Latency: latency},
		{Latency: latency, AfterWork: true},
		{Latency: latency, Status: 503},
		{Latency: latency, AfterWork: true, Status: 503},
	} {
		c := newTester(t)
		token := c.token()
		c.sim.Inject(fault)
		start := time.Now()
		require.Equal(t, max(fault.Status, 200), c.call(Regenerate, token).status)
		require.GreaterOrEqual(t, time.Since(start), latency)
	}
}

func TestClearReleases(t *testing.T) {
	c := newTester(t)
	token := c.token()
	c.sim.Inject(Fault{Operation: Regenerate, Latency: time.Hour})
	answer := make(chan result, 1)
	go func() {
		r, _ := c.graph(t.Context(), Regenerate, token)
		answer <- r
	}()
	c.wait(Regenerate, func(n Calls) bool { return n.Started == 1 })
	require.Zero(t, c.sim.Calls(Regenerate).Performed)
	c.sim.Clear()
	key := (<-answer).key(t)
	require.Equal(t, c.sim.Key(), key)
}

// hangUp makes a call that is held and goes away from it.
func (c *tester) hangUp(op Operation, token string, reached func(Calls) bool) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.graph(ctx, op, token)
		failed <- err
	}()
	c.wait(op, reached)
	cancel()
	require.ErrorIs(c.t, <-failed, context.Canceled)
}

func TestClientGoesAway(t *testing.T) {
	performed := func(n Calls) bool { return n.Performed == 1 }

	t.Run("before the work, which is stubborn", func(t *testing.T) {
		c := newTester(t)
		token, before := c.token(), c.sim.Key()
		c.sim.Inject(Fault{Operation: Regenerate, Times: 1, Latency: time.Hour, Stubborn: true})
		c.hangUp(Regenerate, token, func(n Calls) bool { return n.Started == 1 })
		require.Equal(t, before, c.call(Get, token).key(t), "still on its way")
		c.sim.Clear()
		c.wait(Regenerate, performed)
		require.NotEqual(t, before, c.call(Get, token).key(t))
		require.Zero(t, c.sim.Calls(Regenerate).Answered)
	})
	t.Run("after the work", func(t *testing.T) {
		c := newTester(t)
		token, before := c.token(), c.sim.Key()
		c.sim.Inject(Fault{Operation: Regenerate, Times: 1, Latency: time.Hour, AfterWork: true})
		c.hangUp(Regenerate, token, performed)
		require.NotEqual(t, before, c.sim.Key())
		require.Zero(t, c.sim.Calls(Regenerate).Answered)
	})
}

// Without a network in between, the end of the request is certain.
func TestRequestEndsBeforeWork(t *testing.T) {
	c := newTester(t)
	token, before := c.token(), c.sim.Key()
	c.sim.Inject(Fault{Operation: Regenerate, Times: 1, Latency: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "/beta"+graphCalls()[0].path, nil)
	request.Header.Set("Authorization", "Bearer "+token)
	ended := make(chan any, 1)
	go func() {
		defer func() { ended <- recover() }()
		c.sim.Handler().ServeHTTP(httptest.NewRecorder(), request)
	}()
	c.wait(Regenerate, func(n Calls) bool { return n.Started == 1 })
	cancel()
	require.Equal(t, http.ErrAbortHandler, <-ended, "a recorder has no connection to drop")
	c.sim.Clear()
	require.Equal(t, before, c.sim.Key())
	require.Equal(t, Calls{Started: 1}, c.sim.Calls(Regenerate))
}

// The client knows at once that the connection is broken; the work comes later.
func TestStubbornAfterBreak(t *testing.T) {
	c := newTester(t)
	token, before := c.token(), c.sim.Key()
	c.sim.Inject(Fault{Operation: Regenerate, Latency: time.Hour, Stubborn: true, Reset: true})
	_, err := c.graph(t.Context(), Regenerate, token)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, before, c.call(Get, token).key(t))
	c.sim.Clear()
	c.wait(Regenerate, func(n Calls) bool { return n.Performed == 1 })
	require.NotEqual(t, before, c.sim.Key())
	require.Equal(t, Calls{Started: 1, Performed: 1}, c.sim.Calls(Regenerate))
}

// A request that never arrives in full is a call without an answer.
func TestRequestTooLarge(t *testing.T) {
	c := newTester(t)
	_, err := c.do(t.Context(), http.MethodPost, "/sensors/register", strings.Repeat("x", maxRequest+1), http.Header{})
	require.Error(t, err)
	require.Equal(t, Calls{Started: 1}, c.sim.Calls(Register))
}

// brokenWriter takes everything and cannot send it.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) FlushError() error { return io.ErrClosedPipe }

func TestAnswerNotSent(t *testing.T) {
	sim, err := New()
	require.NoError(t, err)
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sensors/register", nil)
	sim.Handler().ServeHTTP(brokenWriter{httptest.NewRecorder()}, request)
	require.Equal(t, Calls{Started: 1}, sim.Calls(Register))
}
