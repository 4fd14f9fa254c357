// SPDX-License-Identifier: MPL-2.0

package graphtest_test

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

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// After the latency, the other fields of the fault take effect.
func TestFaultLatency(t *testing.T) {
	const latency = 30 * time.Millisecond
	for _, fault := range []graphtest.Fault{
		{Latency: latency},
		{Latency: latency, AfterWork: true},
		{Latency: latency, Status: 503},
		{Latency: latency, AfterWork: true, Status: 503},
	} {
		c := newTester(t)
		token := c.token()
		c.sim.Inject(fault)
		start := time.Now()
		require.Equal(t, max(fault.Status, 200), c.call(graphtest.Regenerate, token).status)
		require.GreaterOrEqual(t, time.Since(start), latency)
	}
}

func TestClearReleases(t *testing.T) {
	c := newTester(t)
	token := c.token()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Latency: time.Hour})
	answer := make(chan result, 1)
	go func() {
		r, _ := c.graph(t.Context(), graphtest.Regenerate, token)
		answer <- r
	}()
	c.wait(graphtest.Regenerate, func(n graphtest.Calls) bool { return n.Started == 1 })
	require.Zero(t, c.sim.Calls(graphtest.Regenerate).Performed)
	c.sim.Clear()
	key := (<-answer).key(t)
	require.Equal(t, c.sim.Key(), key)
}

// hangUp makes a call, waits until it is held, and cancels it.
func (c *tester) hangUp(op graphtest.Operation, token string, reached func(graphtest.Calls) bool) {
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
	performed := func(n graphtest.Calls) bool { return n.Performed == 1 }

	t.Run("before the work, which is stubborn", func(t *testing.T) {
		c := newTester(t)
		token, before := c.token(), c.sim.Key()
		c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour, Stubborn: true})
		c.hangUp(graphtest.Regenerate, token, func(n graphtest.Calls) bool { return n.Started == 1 })
		require.Equal(t, before, c.call(graphtest.Get, token).key(t), "the request has not arrived yet")
		c.sim.Clear()
		c.wait(graphtest.Regenerate, performed)
		require.NotEqual(t, before, c.call(graphtest.Get, token).key(t))
		require.Zero(t, c.sim.Calls(graphtest.Regenerate).Answered)
	})
	t.Run("after the work", func(t *testing.T) {
		c := newTester(t)
		token, before := c.token(), c.sim.Key()
		c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour, AfterWork: true})
		c.hangUp(graphtest.Regenerate, token, performed)
		require.NotEqual(t, before, c.sim.Key())
		require.Zero(t, c.sim.Calls(graphtest.Regenerate).Answered)
	})
}

// Without a network, the server notices the end of the request for certain.
func TestRequestEndsBeforeWork(t *testing.T) {
	c := newTester(t)
	token, before := c.token(), c.sim.Key()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, sensors+"regenerateDeploymentAccessKey", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	ended := make(chan any, 1)
	go func() {
		defer func() { ended <- recover() }()
		c.sim.Handler().ServeHTTP(httptest.NewRecorder(), request)
	}()
	c.wait(graphtest.Regenerate, func(n graphtest.Calls) bool { return n.Started == 1 })
	cancel()
	require.Equal(t, http.ErrAbortHandler, <-ended, "a recorder has no connection to break")
	c.sim.Clear()
	require.Equal(t, before, c.sim.Key())
	require.Equal(t, graphtest.Calls{Started: 1}, c.sim.Calls(graphtest.Regenerate))
}

// The connection breaks at once; the work is done later.
func TestStubbornAfterBreak(t *testing.T) {
	c := newTester(t)
	token, before := c.token(), c.sim.Key()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Latency: time.Hour, Stubborn: true, Reset: true})
	_, err := c.graph(t.Context(), graphtest.Regenerate, token)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, before, c.call(graphtest.Get, token).key(t))
	c.sim.Clear()
	c.wait(graphtest.Regenerate, func(n graphtest.Calls) bool { return n.Performed == 1 })
	require.NotEqual(t, before, c.sim.Key())
	require.Equal(t, graphtest.Calls{Started: 1, Performed: 1}, c.sim.Calls(graphtest.Regenerate))
}

// A request that does not arrive completely gets no answer.
func TestRequestTooLarge(t *testing.T) {
	c := newTester(t)
	_, err := c.do(t.Context(), http.MethodPost, "/sensors/register", strings.Repeat("x", 1<<20+1), http.Header{})
	require.Error(t, err)
	require.Equal(t, graphtest.Calls{Started: 1}, c.sim.Calls(graphtest.Register))
}

// brokenWriter accepts everything and cannot send it.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) FlushError() error { return io.ErrClosedPipe }

func TestAnswerNotSent(t *testing.T) {
	sim, err := graphtest.New()
	require.NoError(t, err)
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sensors/register", nil)
	sim.Handler().ServeHTTP(brokenWriter{httptest.NewRecorder()}, request)
	require.Equal(t, graphtest.Calls{Started: 1}, sim.Calls(graphtest.Register))
}
