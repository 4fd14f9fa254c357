// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// joiner is a context that reports when a caller starts to wait for its end. A caller of a
// sign-in does so when it has joined the flight.
type joiner struct {
	context.Context
	joined func()
}

func (j joiner) Done() <-chan struct{} {
	j.joined()
	return j.Context.Done()
}

// signInTogether lets callers share one sign-in and returns their errors. The simulator
// holds op until all have joined.
func signInTogether(t *testing.T, sim *graphtest.Simulator, op graphtest.Operation, client *Client, callers int) []error {
	t.Helper()
	sim.Inject(graphtest.Fault{Operation: op, Times: 1, Latency: time.Hour})
	errs := make([]error, callers)
	var joined, done sync.WaitGroup
	joined.Add(callers)
	for i := range callers {
		done.Go(func() {
			errs[i] = client.SignIn(joiner{t.Context(), sync.OnceFunc(joined.Done)})
		})
	}
	joined.Wait()
	sim.Clear()
	done.Wait()
	return errs
}

func TestManyCallersAreOneSignIn(t *testing.T) {
	const callers = 50
	for name, lifetime := range map[string]time.Duration{
		"cold":    time.Hour,
		"expired": time.Second, // MSAL does not use a token's last five minutes
	} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t, graphtest.WithTokenLifetime(lifetime))
			client, _ := simulated(t, sim, nil)
			before := 0
			if name == "expired" {
				require.NoError(t, client.SignIn(t.Context()))
				before = 1
			}
			errs := signInTogether(t, sim, graphtest.Token, client, callers)
			require.Equal(t, make([]error, callers), errs)
			require.Equal(t, 1, sim.Calls(graphtest.Discovery).Started)
			require.Equal(t, before+1, sim.Calls(graphtest.Token).Started)
		})
	}
}

func TestASignInOutlivesACallerThatLeaves(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	sim.Inject(graphtest.Fault{Operation: graphtest.Discovery, Times: 1, Latency: time.Hour})

	// The first caller starts the sign-in and is the first to leave.
	hasty, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, _, err := client.RegenerateDeploymentAccessKey(hasty, nil)
	e := failed(t, err)
	require.Equal(t, &Error{Op: OpSignIn, Kind: Timeout, Reason: reasonNoAnswer}, e)
	require.False(t, e.MayHaveHappened())

	patient := make(chan error, 1)
	var joined sync.WaitGroup
	joined.Add(1)
	go func() { patient <- client.SignIn(joiner{t.Context(), sync.OnceFunc(joined.Done)}) }()
	joined.Wait()
	sim.Clear()
	require.NoError(t, <-patient)
	require.Equal(t, 1, sim.Calls(graphtest.Discovery).Started)
	require.Equal(t, 1, sim.Calls(graphtest.Token).Started)
	require.Zero(t, sim.Calls(graphtest.Regenerate).Started)
}

func TestSignInRefused(t *testing.T) {
	other := "7e2c0a4e-6f3c-4a55-9a5b-0c9d0d5e7f11"
	for code, change := range map[string]func(*Config){
		"AADSTS7000215": func(c *Config) { c.Credential = ClientSecret("another") },
		"AADSTS700016":  func(c *Config) { c.ClientID = other },
		"AADSTS90002":   func(c *Config) { c.TenantID = other },
		"AADSTS500011":  func(c *Config) { c.Cloud = clouds[1] },
	} {
		t.Run(code, func(t *testing.T) {
			sim := graphtest.Start(t)
			client, _ := simulated(t, sim, change)
			e := failed(t, client.SignIn(t.Context()))
			require.Equal(t, Refused, e.Kind)
			require.Equal(t, code, e.Code)
			require.NotEmpty(t, e.RequestID)
			require.NotEmpty(t, e.Hint())
			requireNoSecrets(t, sim, everythingAbout(e))
		})
	}
	t.Run("AADSTS7000222", func(t *testing.T) {
		sim := graphtest.Start(t, graphtest.WithExpiredSecret())
		client, _ := simulated(t, sim, nil)
		require.Equal(t, "AADSTS7000222", failed(t, client.SignIn(t.Context())).Code)
	})
}

func TestSignInFailures(t *testing.T) {
	for name, test := range map[string]struct {
		fault   graphtest.Fault
		want    Error
		started int
	}{
		"throttled":     {graphtest.Fault{Status: 429, RetryAfter: "41"}, Error{Kind: Throttled, Code: "AADSTS90055", RetryAfter: 41 * time.Second}, 1},
		"unavailable":   {graphtest.Fault{Status: 503}, Error{Kind: Unavailable, Code: "AADSTS90033"}, 3},
		"gateway":       {graphtest.Fault{Status: 502, Body: graphtest.BodyHTML}, Error{Kind: Unavailable}, 2},
		"redirect":      {graphtest.Fault{Status: 302}, Error{Kind: Refused, Code: "AADSTS90023", Reason: "a redirect was refused"}, 1},
		"page":          {graphtest.Fault{Body: graphtest.BodyHTML}, Error{Kind: Unreadable, Reason: reasonUnreadable}, 1},
		"nothing":       {graphtest.Fault{Body: graphtest.BodyEmpty}, Error{Kind: Unreadable, Reason: reasonUnreadable}, 1},
		"broken JSON":   {graphtest.Fault{Body: graphtest.BodyMalformed}, Error{Kind: Unreadable, Reason: reasonUnreadable}, 1},
		"half a body":   {graphtest.Fault{Body: graphtest.BodyTruncated}, Error{Kind: Unavailable, Reason: reasonConnLost}, 2},
		"reset":         {graphtest.Fault{Reset: true}, Error{Kind: Unavailable, Reason: reasonConnLost}, 2},
		"lost":          {graphtest.Fault{Lost: true, AfterWork: true}, Error{Kind: Unavailable, Reason: reasonConnLost}, 2},
		"another error": {graphtest.Fault{Status: 400, Code: "700027"}, Error{Kind: Refused, Code: "AADSTS700027"}, 1},
	} {
		for _, op := range []graphtest.Operation{graphtest.Token, graphtest.Discovery} {
			t.Run(fmt.Sprint(op, " ", name), func(t *testing.T) {
				sim := graphtest.Start(t)
				var log safeBuffer
				client, _ := simulated(t, sim, nil)
				test.fault.Operation = op
				sim.Inject(test.fault)

				_, _, err := client.RegenerateDeploymentAccessKey(logging(t, &log), nil)
				got := failed(t, err)
				require.False(t, got.MayHaveHappened())
				require.Equal(t, test.started, sim.Calls(op).Started)
				require.Zero(t, sim.Calls(graphtest.Regenerate).Started)
				requireNoSecrets(t, sim, everythingAbout(err)+log.String())
				want := test.want
				want.Op, want.Status, want.RequestID = OpSignIn, test.fault.Status, got.RequestID
				require.Equal(t, &want, got)

				sim.Clear()
				require.NoError(t, client.SignIn(t.Context()), "a failure is not cached")
			})
		}
	}
}

// TestSecretIsNotSentInTheClear: the token endpoint comes from a document of the
// authority.
func TestSecretIsNotSentInTheClear(t *testing.T) {
	asked := false
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(plain.Close)
	var authority *httptest.Server
	authority = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q}`, authority.URL, authority.URL, plain.URL)
	}))
	t.Cleanup(authority.Close)
	client, err := New(validConfig(func(c *Config) {
		c.AuthorityHost, c.CACertificates = authority.URL, encodeCertificate(authority)
	}))
	require.NoError(t, err)
	require.Equal(t, &Error{Op: OpSignIn, Kind: Refused, Reason: "an address without https was refused"}, failed(t, client.SignIn(t.Context())))
	require.False(t, asked)
}

func TestSignInReadsNoEndlessAnswer(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat(" ", maxBodyBytes+1)))
	}))
	t.Cleanup(server.Close)
	client, err := New(validConfig(func(c *Config) {
		c.AuthorityHost, c.CACertificates = server.URL, encodeCertificate(server)
	}))
	require.NoError(t, err)
	require.Equal(t, "the answer is larger than 1 MiB", failed(t, client.SignIn(t.Context())).Reason)
}

func TestDroppingATokenTwiceDropsOne(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	old, session, err := client.token(t.Context())
	require.NoError(t, err)
	require.NoError(t, client.renew(session, ""))
	fresh, _, err := client.token(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, old, fresh)
	require.NoError(t, client.renew(session, ""))
	again, _, err := client.token(t.Context())
	require.NoError(t, err)
	require.Equal(t, fresh, again)
}

// TestAfterADropTheOldSignInIsNotJoined: it may be about to deliver the very token that
// Graph has refused.
func TestAfterADropTheOldSignInIsNotJoined(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	sim.Inject(graphtest.Fault{Operation: graphtest.Token, Times: 1, Latency: time.Hour})
	old := make(chan error, 1)
	go func() { old <- client.SignIn(t.Context()) }()
	require.NoError(t, sim.Wait(t.Context(), graphtest.Token, func(c graphtest.Calls) bool { return c.Started == 1 }))

	require.NoError(t, client.renew(client.session.Load(), ""))
	require.NoError(t, client.SignIn(t.Context()), "while the old sign-in is still held")
	require.Equal(t, 2, sim.Calls(graphtest.Token).Started)
	sim.Clear()
	require.NoError(t, <-old)
}
