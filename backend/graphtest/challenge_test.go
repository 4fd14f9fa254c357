// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestChallengeNeedsCapability(t *testing.T) {
	c := newTester(t)
	plain := c.token()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})
	for range 2 {
		r := c.call(graphtest.Get, plain)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.NotContains(t, r.header.Get("WWW-Authenticate"), "insufficient_claims")
	}
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, c.token()).status, "any new token will do")

	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(c.capableToken(""), claims)
	require.NoError(t, err)
	require.Equal(t, []any{"cp1"}, claims["xms_cc"])
}

// Microsoft's libraries do not agree on how to write the capability.
func TestCapabilityInAnyCase(t *testing.T) {
	for _, name := range []string{"cp1", "CP1", "Cp1"} {
		c := newTester(t)
		form := c.goodForm()
		form.Set("claims", `{"access_token":{"xms_cc":{"values":["`+name+`"]}}}`)
		c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})
		require.Contains(t, claimsOf(t, c.call(graphtest.Get, c.tokenFor(form))), "nbf", name)
		require.Equal(t, graphtest.Challenges{Sent: 1}, c.sim.Challenges())
	}
}

// While a challenge is open, Graph accepts only a token that was requested with its claims.
// Once there has been one, it accepts every new token.
func TestChallengeIsAnswered(t *testing.T) {
	now := time.Now()
	c := newTester(t, graphtest.WithClock(func() time.Time { return now }))
	token, other := c.capableToken(""), c.capableToken("")
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 2, Claims: true})
	claims := claimsOf(t, c.call(graphtest.Get, token))
	now = now.Add(time.Minute)
	require.Equal(t, claims, claimsOf(t, c.call(graphtest.Get, token)), "the second challenge is the same")

	careless := c.capableToken("")
	require.Equal(t, claims, claimsOf(t, c.call(graphtest.Get, careless)))
	stale := c.capableToken(`{"access_token":{"nbf":{"essential":true,"value":"1"}}}`)
	require.Equal(t, claims, claimsOf(t, c.call(graphtest.Get, stale)))
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, c.token()).status, "a client without the capability is not challenged")
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, other).status, "nor is a token that was not revoked")

	require.Equal(t, graphtest.Challenges{Sent: 4}, c.sim.Challenges())
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, c.capableToken(claims)).status)
	require.Equal(t, graphtest.Challenges{Sent: 4, Answered: 1}, c.sim.Challenges())
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, c.capableToken("")).status)
	require.Equal(t, claims, claimsOf(t, c.call(graphtest.Get, careless)))
}

// Two tokens of one client are revoked a second apart, because one replaced the other. A
// token that is requested with the claims of either is newer than both.
func TestChallengesOfTwoTokensAreAnsweredTogether(t *testing.T) {
	now := time.Now()
	c := newTester(t, graphtest.WithClock(func() time.Time { return now }))
	tokens := []string{c.capableToken(""), c.capableToken("")}
	for which := range tokens {
		c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: len(tokens), Claims: true})
		var claims [2]string
		for n, token := range tokens {
			claims[n] = claimsOf(t, c.call(graphtest.Get, token))
			now = now.Add(time.Second)
		}
		require.NotEqual(t, claims[0], claims[1])
		require.Equal(t, http.StatusOK, c.call(graphtest.Get, c.capableToken(claims[which])).status, which)
		tokens = []string{c.capableToken(""), c.capableToken("")}
	}
}

func TestChallengeWithoutToken(t *testing.T) {
	c := newTester(t)
	c.sim.Inject(graphtest.Fault{Claims: true})
	for _, token := range []string{"", "no token"} {
		r := c.call(graphtest.Get, token)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.NotContains(t, r.header.Get("WWW-Authenticate"), "claims")
	}
}
