// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// asserting returns a credential that gets assertions from the simulator's own issuer,
// and the number of assertions.
func asserting(sim *graphtest.Simulator, request graphtest.AssertionRequest) (ClientAssertion, *atomic.Int32) {
	var asked atomic.Int32
	return func(context.Context) (string, error) {
		asked.Add(1)
		return sim.Assertion(request)
	}, &asked
}

func TestSignInWithAnAssertion(t *testing.T) {
	sim := graphtest.Start(t)
	assertion, asked := asserting(sim, graphtest.AssertionRequest{})
	var log safeBuffer
	client, _ := simulated(t, sim, func(c *Config) { c.Credential = assertion })
	key, _, err := client.RegenerateDeploymentAccessKey(logging(t, &log), nil)
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
	_, _, err = client.DeploymentAccessKey(logging(t, &log))
	require.NoError(t, err)
	require.EqualValues(t, 1, asked.Load(), "no new assertion while there is a token")

	sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})
	_, _, err = client.DeploymentAccessKey(logging(t, &log))
	require.NoError(t, err)
	require.EqualValues(t, 2, asked.Load(), "one assertion for each token")
	requireNoSecrets(t, sim, log.String())
}

func TestAssertionsThatEntraRefuses(t *testing.T) {
	for code, test := range map[string]struct {
		request graphtest.AssertionRequest
		hint    string
	}{
		"AADSTS700211": {graphtest.AssertionRequest{Issuer: "https://other.example.com"}, "issuer"},
		"AADSTS700213": {graphtest.AssertionRequest{Subject: "another"}, "subject"},
		"AADSTS700212": {graphtest.AssertionRequest{Audience: "another"}, "audience"},
		"AADSTS700024": {graphtest.AssertionRequest{Lifetime: -time.Hour}, "clock"},
		"AADSTS50013":  {graphtest.AssertionRequest{Forged: true}, "signature"},
	} {
		t.Run(code, func(t *testing.T) {
			sim := graphtest.Start(t)
			assertion, _ := asserting(sim, test.request)
			client, _ := simulated(t, sim, func(c *Config) { c.Credential = assertion })
			e := failed(t, client.SignIn(t.Context()))
			require.Equal(t, Refused, e.Kind)
			require.Equal(t, code, e.Code)
			require.NotEmpty(t, e.RequestID)
			require.Contains(t, e.Hint(), test.hint)
			requireNoSecrets(t, sim, everythingAbout(e))
		})
	}
}

func TestNoAssertion(t *testing.T) {
	for name, test := range map[string]struct {
		assertion ClientAssertion
		want      Error
	}{
		"an error": {
			func(context.Context) (string, error) { return "", errors.New("hunter2") },
			Error{Kind: Refused, Reason: "no client assertion could be obtained"},
		},
		"an error with words": {
			func(context.Context) (string, error) {
				return "", fmt.Errorf("hunter2: %w", &Error{Kind: Unavailable, Reason: "the file is not there"})
			},
			Error{Kind: Unavailable, Reason: "the file is not there"},
		},
		"an error beside an assertion": {
			func(context.Context) (string, error) {
				return "hunter2", &Error{Kind: Refused, Reason: "it is not set"}
			},
			Error{Kind: Refused, Reason: "it is not set"},
		},
		"nothing": {
			func(context.Context) (string, error) { return "", nil },
			Error{Kind: Refused, Reason: "the client assertion is empty"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t)
			client, waited := simulated(t, sim, func(c *Config) { c.Credential = test.assertion })
			err := client.SignIn(t.Context())
			test.want.Op, test.want.unsent = OpSignIn, true
			require.Equal(t, &test.want, failed(t, err))
			require.NotContains(t, everythingAbout(err), "hunter2")
			require.False(t, failed(t, err).FoundNobody(), "no request was sent")
			require.Zero(t, sim.Calls(graphtest.Token).Started)
			require.Empty(t, waited.All)
		})
	}
}

// TestAnAssertionThatTakesTooLong: the sign-in times out, not the caller.
func TestAnAssertionThatTakesTooLong(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	slow := ClientAssertion(func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	_, err := slow.checked(ctx, confidential.AssertionRequestOptions{})
	require.Equal(t, &Error{Kind: Timeout, Reason: reasonNoAnswer, unsent: true}, failed(t, err))
}
