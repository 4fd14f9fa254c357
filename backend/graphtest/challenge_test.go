// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func TestChallengeNeedsCapability(t *testing.T) {
	c := newTester(t)
	plain := c.token()
	c.sim.Inject(Fault{Operation: Get, Times: 1, Claims: true})
	for range 2 {
		r := c.call(Get, plain)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.NotContains(t, r.header.Get("WWW-Authenticate"), "insufficient_claims")
	}
	require.Equal(t, http.StatusOK, c.call(Get, c.token()).status, "any new token will do")

	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(c.capableToken(""), claims)
	require.NoError(t, err)
	require.Equal(t, []any{"cp1"}, claims["xms_cc"])
}

// While a challenge is open, only a token that was asked for with its claims is
// of use; once there has been one, every new token is.
func TestChallengeIsAnswered(t *testing.T) {
	now := time.Now()
	c := newTester(t, WithClock(func() time.Time { return now }))
	token, other := c.capableToken(""), c.capableToken("")
	c.sim.Inject(Fault{Operation: Get, Times: 2, Claims: true})
	claims := claimsOf(t, c.call(Get, token))
	now = now.Add(time.Minute)
	require.Equal(t, claims, claimsOf(t, c.call(Get, token)), "a second time, the challenge is the same")

	careless := c.capableToken("")
	require.Equal(t, claims, claimsOf(t, c.call(Get, careless)))
	stale := c.capableToken(`{"access_token":{"nbf":{"essential":true,"value":"1"}}}`)
	require.Equal(t, claims, claimsOf(t, c.call(Get, stale)))
	require.Equal(t, http.StatusOK, c.call(Get, c.token()).status, "a client without the capability is not concerned")
	require.Equal(t, http.StatusOK, c.call(Get, other).status, "nor is a token that nobody has revoked")

	require.Equal(t, Challenges{Sent: 4}, c.sim.Challenges())
	require.Equal(t, http.StatusOK, c.call(Get, c.capableToken(claims)).status)
	require.Equal(t, Challenges{Sent: 4, Answered: 1}, c.sim.Challenges())
	require.Equal(t, http.StatusOK, c.call(Get, c.capableToken("")).status)
	require.Equal(t, claims, claimsOf(t, c.call(Get, careless)))
}

func TestChallengeWithoutToken(t *testing.T) {
	c := newTester(t)
	c.sim.Inject(Fault{Claims: true})
	for _, token := range []string{"", "no token"} {
		r := c.call(Get, token)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.NotContains(t, r.header.Get("WWW-Authenticate"), "claims")
	}
}
