// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestFromSignInToRegistration(t *testing.T) {
	for _, shape := range graphtest.Shapes() {
		for _, version := range []string{graph.Beta, graph.V1} {
			t.Run(string(shape)+" "+version, func(t *testing.T) {
				sim := graphtest.Start(t, graphtest.WithBodyShape(shape))
				client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.APIVersion = version })
				before := sim.Key()
				require.NoError(t, client.SignIn(t.Context()))

				current, _, err := client.DeploymentAccessKey(t.Context())
				require.NoError(t, err)
				require.Equal(t, before, current)

				replaced, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
				require.NoError(t, err)
				require.True(t, sim.CanRegister(replaced))
				require.False(t, sim.CanRegister(before))

				require.Equal(t, 1, sim.Calls(graphtest.Token).Started, "the token is cached")
			})
		}
	}
}

// TestTokenIsForTheCloud: an overridden endpoint relays to a cloud's Graph, so the token
// must be for that Graph.
func TestTokenIsForTheCloud(t *testing.T) {
	for _, name := range graph.CloudNames {
		cloud, err := graph.CloudNamed(name)
		require.NoError(t, err)
		sim := graphtest.Start(t, graphtest.WithAudience(cloud.GraphRoot))
		client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.Cloud = cloud })
		_, _, err = client.DeploymentAccessKey(t.Context())
		require.NoError(t, err)
	}
}

func TestRequest(t *testing.T) {
	var mu sync.Mutex
	var seen []*http.Request
	client := graph.Served(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r)
		first := len(seen) == 1
		mu.Unlock()
		if first {
			graph.Sign(w, r)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(`{"deploymentAccessKey":"k"}`))
	}, func(c *graph.Config) { c.UserAgent = "vault-plugin-secrets-mdi/1.2.3" })

	key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, "k", key)
	require.Len(t, seen, 2)
	ids := map[string]bool{}
	for _, r := range seen {
		require.Equal(t, "POST", r.Method)
		require.Equal(t, "/beta/security/identities/sensors/regenerateDeploymentAccessKey", r.URL.String())
		require.Equal(t, []string{"0"}, r.Header["Content-Length"])
		require.Empty(t, r.TransferEncoding)
		require.Equal(t, "Bearer test.access.token", r.Header.Get("Authorization"))
		require.Equal(t, "application/json", r.Header.Get("Accept"))
		require.Equal(t, "no-cache, no-store", r.Header.Get("Cache-Control"))
		require.Equal(t, "vault-plugin-secrets-mdi/1.2.3", r.UserAgent())
		require.NoError(t, uuid.Validate(r.Header.Get("client-request-id")))
		ids[r.Header.Get("client-request-id")] = true
	}
	require.Len(t, ids, 2, "each attempt has its own id")
	require.NotEqual(t, seen[0].RemoteAddr, seen[1].RemoteAddr, "a 503 is repeated on a new connection")
}

func TestFailedRegenerations(t *testing.T) {
	regenerate := func(f graphtest.Fault) graphtest.Fault {
		f.Operation = graphtest.Regenerate
		return f
	}
	const (
		connLost   = "the connection was lost before the answer was complete"
		unreadable = "the answer could not be understood"
	)
	for name, test := range map[string]struct {
		fault     graphtest.Fault
		want      graph.Error
		started   int
		performed int
	}{
		"bad request":          {graphtest.Fault{Status: 400}, graph.Error{Kind: graph.Refused, Code: "BadRequest"}, 1, 0},
		"forbidden":            {graphtest.Fault{Status: 403}, graph.Error{Kind: graph.Refused, Code: "Forbidden"}, 1, 0},
		"unauthorised":         {graphtest.Fault{Status: 401}, graph.Error{Kind: graph.Refused, Code: "InvalidAuthenticationToken"}, 2, 0},
		"redirect":             {graphtest.Fault{Status: 307}, graph.Error{Kind: graph.Refused, Code: "TemporaryRedirect", Reason: "a redirect was refused"}, 1, 0},
		"throttled":            {graphtest.Fault{Status: 429}, graph.Error{Kind: graph.Throttled, Code: "TooManyRequests"}, 3, 0},
		"throttled, advised":   {graphtest.Fault{Status: 429, RetryAfter: "315"}, graph.Error{Kind: graph.Throttled, Code: "TooManyRequests", RetryAfter: 315 * time.Second}, 1, 0},
		"unavailable":          {graphtest.Fault{Status: 503, Code: "serviceNotAvailable"}, graph.Error{Kind: graph.Unavailable, Code: "serviceNotAvailable"}, 3, 0},
		"error before":         {graphtest.Fault{Status: 500}, graph.Error{Kind: graph.Unavailable, Code: "InternalServerError"}, 1, 0},
		"error after":          {graphtest.Fault{Status: 500, AfterWork: true}, graph.Error{Kind: graph.Unavailable, Code: "InternalServerError"}, 1, 1},
		"bad gateway":          {graphtest.Fault{Status: 502, AfterWork: true, Body: graphtest.BodyHTML}, graph.Error{Kind: graph.Unavailable}, 1, 1},
		"gateway timeout":      {graphtest.Fault{Status: 504, AfterWork: true}, graph.Error{Kind: graph.Unavailable, Code: "GatewayTimeout"}, 1, 1},
		"reset after":          {graphtest.Fault{Reset: true, AfterWork: true}, graph.Error{Kind: graph.Unavailable, Reason: connLost}, 1, 1},
		"reset before":         {graphtest.Fault{Reset: true}, graph.Error{Kind: graph.Unavailable, Reason: connLost}, 1, 0},
		"lost after":           {graphtest.Fault{Lost: true, AfterWork: true}, graph.Error{Kind: graph.Unavailable, Reason: connLost}, 1, 1},
		"page instead of key":  {graphtest.Fault{Body: graphtest.BodyHTML}, graph.Error{Kind: graph.Unreadable, Status: 200, Reason: unreadable}, 1, 1},
		"nothing at all":       {graphtest.Fault{Body: graphtest.BodyEmpty}, graph.Error{Kind: graph.Unreadable, Status: 200, Reason: unreadable}, 1, 1},
		"malformed":            {graphtest.Fault{Body: graphtest.BodyMalformed}, graph.Error{Kind: graph.Unreadable, Status: 200, Reason: unreadable}, 1, 1},
		"two keys":             {graphtest.Fault{Body: graphtest.BodyDisagreeing}, graph.Error{Kind: graph.Unreadable, Status: 200, Reason: "the answer contains two different keys"}, 1, 1},
		"half a body":          {graphtest.Fault{Body: graphtest.BodyTruncated}, graph.Error{Kind: graph.Unavailable, Status: 200, Reason: connLost}, 1, 1},
		"half an error's body": {graphtest.Fault{Status: 403, Body: graphtest.BodyTruncated}, graph.Error{Kind: graph.Refused}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t)
			var log graph.SafeBuffer
			client, _ := graph.Simulated(t, sim, nil)
			sim.Inject(regenerate(test.fault))

			key, _, err := client.RegenerateDeploymentAccessKey(graph.Logging(t, &log), nil)
			require.Empty(t, key)
			got := graph.Failed(t, err)
			require.Equal(t, test.started, sim.Calls(graphtest.Regenerate).Started)
			require.Equal(t, test.performed, sim.Calls(graphtest.Regenerate).Performed)
			if test.performed > 0 {
				require.True(t, got.MayHaveHappened())
			}
			graph.RequireNoSecrets(t, sim, graph.EverythingAbout(err)+log.String())

			if test.fault.Body == "" && (test.fault.Status != 0) {
				require.NotEmpty(t, got.RequestID)
			}
			test.want.Op, test.want.RequestID = graph.OpRegenerate, got.RequestID
			if test.want.Status == 0 {
				test.want.Status = test.fault.Status
			}
			test.want.Signed = test.want.Status != 0 && test.fault.Body != graphtest.BodyHTML
			require.Equal(t, &test.want, got)
		})
	}
}

func TestContentTypeIsNotTrusted(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := graph.Simulated(t, sim, nil)
	sim.Inject(graphtest.Fault{Body: graphtest.BodyWrongContentType})
	key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
}

func TestAMissingRoleIsNamed(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithRoles(graphtest.RoleRead))
	client, _ := graph.Simulated(t, sim, nil)
	_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	e := graph.Failed(t, err)
	require.Equal(t, graph.Refused, e.Kind)
	require.Contains(t, e.Hint(), graphtest.RoleReadWrite)
	require.False(t, e.MayHaveHappened())
}

func TestGETIsRepeatedWhereThePOSTIsNot(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"500": {Status: 500}, "502": {Status: 502}, "504": {Status: 504, AfterWork: true},
		"reset": {Reset: true}, "lost": {Lost: true}, "truncated": {Body: graphtest.BodyTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t)
			client, waited := graph.Simulated(t, sim, nil)
			fault.Operation, fault.Times = graphtest.Get, 1
			sim.Inject(fault)
			key, _, err := client.DeploymentAccessKey(t.Context())
			require.NoError(t, err)
			require.Equal(t, sim.Key(), key)
			require.Equal(t, 2, sim.Calls(graphtest.Get).Started)
			require.Len(t, waited.All, 1)

			fault.Times = 0
			sim.Inject(fault)
			_, _, err = client.DeploymentAccessKey(t.Context())
			require.Error(t, err)
			require.Equal(t, 4, sim.Calls(graphtest.Get).Started, "repeated once, not forever")
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	sim := graphtest.Start(t)
	client, waited := graph.Simulated(t, sim, nil)
	sim.Inject(
		graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 429, RetryAfter: "2"},
		graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 503, RetryAfter: "3"},
	)
	key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
	require.Equal(t, []time.Duration{2 * time.Second, 3 * time.Second}, waited.All)

	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 429, RetryAfter: "2"})
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err = client.RegenerateDeploymentAccessKey(short, nil)
	e := graph.Failed(t, err)
	require.Equal(t, graph.Throttled, e.Kind)
	require.Equal(t, 2*time.Second, e.RetryAfter)
	require.Len(t, waited.All, 2, "it does not wait longer than the caller")
}

func TestA401IsRepeatedOnceWithANewToken(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := graph.Simulated(t, sim, nil)
	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 401})
	key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
	require.Equal(t, 2, sim.Calls(graphtest.Token).Performed)

	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 401})
	sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 400, Code: "53003"})
	_, _, err = client.RegenerateDeploymentAccessKey(t.Context(), nil)
	require.Equal(t, "AADSTS53003", graph.Failed(t, err).Code, "the failed sign-in is reported, not the 401")
}

// TestManyRefusedTokensAreOneSignIn: Graph refuses the same token to many calls.
func TestManyRefusedTokensAreOneSignIn(t *testing.T) {
	const callers = 20
	sim := graphtest.Start(t)
	client, _ := graph.Simulated(t, sim, nil)
	require.NoError(t, client.SignIn(t.Context()))
	sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: callers, Status: 401, Latency: time.Hour})

	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { _, _, errs[i] = client.DeploymentAccessKey(t.Context()) })
	}
	require.NoError(t, sim.Wait(t.Context(), graphtest.Get, func(c graphtest.Calls) bool { return c.Started == callers }))
	sim.Clear()
	wg.Wait()
	require.Equal(t, make([]error, callers), errs)
	require.Equal(t, 2, sim.Calls(graphtest.Token).Started)
	require.Equal(t, 2, sim.Calls(graphtest.Discovery).Started)
}

func TestAnEndedContextSendsNothing(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := graph.Simulated(t, sim, nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, client.SignIn(gone))
	_, _, err := client.RegenerateDeploymentAccessKey(gone, nil)
	require.Equal(t, context.Canceled, err)
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, _, err = client.DeploymentAccessKey(late)
	require.Equal(t, context.DeadlineExceeded, err)
	for _, op := range graphtest.Operations() {
		require.Zero(t, sim.Calls(op).Started, op)
	}
}

// What has to happen before a regeneration happens once, beside the connecting, and nothing is
// sent unless it succeeds.
func TestNothingIsSentBeforeItMayBe(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := graph.Simulated(t, sim, nil)
	began := 0
	held := errors.New("the intent cannot be stored")
	_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), func() error {
		began++
		return held
	})
	require.Equal(t, held, err)
	require.Equal(t, 1, began)
	require.Zero(t, sim.Calls(graphtest.Regenerate).Started)

	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 401}, graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 503, RetryAfter: "1"})
	key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), func() error {
		began++
		time.Sleep(50 * time.Millisecond) // by then the connection has been made
		require.Zero(t, sim.Calls(graphtest.Regenerate).Started)
		return nil
	})
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
	require.Equal(t, 2, began)
	require.Equal(t, 3, sim.Calls(graphtest.Regenerate).Started)

	t.Run("no token", func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := client.RegenerateDeploymentAccessKey(gone, func() error { panic("there is no token") })
		require.Equal(t, context.Canceled, err)
	})
	t.Run("no connection", func(t *testing.T) {
		ended := false
		unreachable, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.GraphEndpoint = "https://127.0.0.1:1" })
		_, _, err := unreachable.RegenerateDeploymentAccessKey(t.Context(), func() error {
			time.Sleep(50 * time.Millisecond) // by then the connection has been refused
			ended = true
			return nil
		})
		require.False(t, graph.Failed(t, err).MayHaveHappened())
		require.True(t, ended)
	})
}

func TestACallerThatLeavesAfterThePOST(t *testing.T) {
	for name, body := range map[string]graphtest.Fault{
		"before the work": {Latency: time.Hour, Stubborn: true},
		"after the work":  {Latency: time.Hour, AfterWork: true},
	} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t)
			client, _ := graph.Simulated(t, sim, nil)
			body.Operation = graphtest.Regenerate
			sim.Inject(body)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				defer cancel()
				_ = sim.Wait(ctx, graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Started == 1 })
			}()
			_, _, err := client.RegenerateDeploymentAccessKey(ctx, nil)
			e := graph.Failed(t, err)
			require.Equal(t, graph.Timeout, e.Kind)
			require.True(t, e.MayHaveHappened())
			require.NotErrorIs(t, err, context.Canceled)
			sim.Clear()
			require.NoError(t, sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == 1 }))
			require.Equal(t, 1, sim.Calls(graphtest.Regenerate).Started)
		})
	}
}

// TestACallerThatLeavesDuringTheBody needs an answer that begins and does not end.
func TestACallerThatLeavesDuringTheBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := graph.Served(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"deployment`))
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // returning would complete the answer
	}, nil)
	_, _, err := client.RegenerateDeploymentAccessKey(ctx, nil)
	e := graph.Failed(t, err)
	require.Equal(t, graph.Timeout, e.Kind)
	require.True(t, e.MayHaveHappened())
}

func TestLogLines(t *testing.T) {
	sim := graphtest.Start(t)
	var log graph.SafeBuffer
	client, _ := graph.Simulated(t, sim, nil)
	_, _, err := client.RegenerateDeploymentAccessKey(graph.Logging(t, &log), nil)
	require.NoError(t, err)
	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	_, _, err = client.RegenerateDeploymentAccessKey(graph.Logging(t, &log), nil)
	require.Error(t, err)

	text := log.String()
	for _, want := range []string{"client_request_id=", " graph_request_id=", "status=200", "duration_ms=", "/oauth2/v2.0/token", graph.OpRegenerate, "no answer"} {
		require.Contains(t, text, want)
	}
	issued := slices.Concat(sim.Issued(), []string{"Bearer", "client_secret"})
	for _, secret := range issued {
		require.NotContains(t, text, secret)
	}
}
