// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const someClaims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`

func TestChallengedClaims(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString
	documented := `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", ` +
		`error="insufficient_claims", claims="%s"`
	long := `{"access_token":{"x":"` + strings.Repeat("x", maxClaims) + `"}}`
	for name, test := range map[string]struct {
		headers []string
		want    string
	}{
		"documented":       {[]string{fmt.Sprintf(documented, encoded([]byte(someClaims)))}, someClaims},
		"without padding":  {[]string{fmt.Sprintf(documented, strings.TrimRight(encoded([]byte(someClaims)), "="))}, someClaims},
		"other alphabet":   {[]string{fmt.Sprintf(documented, base64.URLEncoding.EncodeToString([]byte(`{"access_token":{"x":"???>>>"}}`)))}, `{"access_token":{"x":"???>>>"}}`},
		"other order":      {[]string{`bearer CLAIMS="` + encoded([]byte(someClaims)) + `" , Error = insufficient_claims`}, someClaims},
		"a second header":  {[]string{`Basic realm="x"`, fmt.Sprintf(documented, encoded([]byte(someClaims)))}, someClaims},
		"another error":    {[]string{`Bearer error="invalid_token", claims="` + encoded([]byte(someClaims)) + `"`}, ""},
		"within a string":  {[]string{`Bearer realm="\", error=\"insufficient_claims\", claims=\"` + encoded([]byte(someClaims)) + `\""`}, ""},
		"no header":        {nil, ""},
		"no claims":        {[]string{`Bearer error="insufficient_claims"`}, ""},
		"not base64":       {[]string{fmt.Sprintf(documented, "{}")}, ""},
		"not JSON":         {[]string{fmt.Sprintf(documented, encoded([]byte("hunter2")))}, ""},
		"not an object":    {[]string{fmt.Sprintf(documented, encoded([]byte(`[]`)))}, ""},
		"for no token":     {[]string{fmt.Sprintf(documented, encoded([]byte(`{"id_token":{}}`)))}, ""},
		"for half a token": {[]string{fmt.Sprintf(documented, encoded([]byte(`{"access_token":"x"}`)))}, ""},
		"far too long":     {[]string{fmt.Sprintf(documented, encoded([]byte(long)))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, challengedClaims(http.Header{"Www-Authenticate": test.headers}))
		})
	}
}

func TestAChallengeIsAnswered(t *testing.T) {
	sim := graphtest.Start(t)
	client, waited := simulated(t, sim, nil)
	for n := range 3 {
		sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Claims: true})
		key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
		require.NoError(t, err)
		require.True(t, sim.CanRegister(key))
		require.Equal(t, n+2, sim.Calls(graphtest.Token).Started, "one token for each challenge")
		require.Equal(t, n+1, sim.Calls(graphtest.Regenerate).Performed)
		require.Len(t, waited.All, n+1)
		require.Equal(t, betweenPOSTs, waited.All[n], "a POST is a second apart from the one before")
	}
	sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})
	_, _, err := client.DeploymentAccessKey(t.Context())
	require.NoError(t, err)
	require.Len(t, waited.All, 3, "a GET is not")
}

func TestAChallengeIsAnsweredOnce(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	sim.Inject(graphtest.Fault{Operation: graphtest.Get, Claims: true})
	_, _, err := client.DeploymentAccessKey(t.Context())
	e := failed(t, err)
	require.Equal(t, http.StatusUnauthorized, e.Status)
	require.Equal(t, 2, sim.Calls(graphtest.Get).Started)
	require.NotContains(t, everythingAbout(err), "nbf")

	sim.Clear()
	_, _, err = client.DeploymentAccessKey(t.Context())
	require.NoError(t, err, "the next call answers the challenge again")
}

func TestManyChallengesAreOneSignIn(t *testing.T) {
	const callers = 50
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	_, _, err := client.DeploymentAccessKey(t.Context())
	require.NoError(t, err)

	// All callers have the old token before the first challenge.
	sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: callers, Claims: true, Latency: time.Hour})
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { _, _, errs[i] = client.DeploymentAccessKey(t.Context()) })
	}
	require.NoError(t, sim.Wait(t.Context(), graphtest.Get, func(c graphtest.Calls) bool { return c.Started == callers+1 }))
	sim.Clear()
	wg.Wait()
	require.Equal(t, make([]error, callers), errs)
	require.Equal(t, 2, sim.Calls(graphtest.Token).Started)
}

// TestRefusedClaimsDoNotStick: if Entra does not grant what Graph demands, later calls
// fail only for as long as Graph demands it.
func TestRefusedClaimsDoNotStick(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	require.NoError(t, client.SignIn(t.Context()))
	require.NoError(t, client.renew(client.session.Load(), `{"access_token":{"xms_cc":"not what MSAL can merge"}}`))
	require.Equal(t, reasonUnreadable, failed(t, client.SignIn(t.Context())).Reason)
	require.NoError(t, client.SignIn(t.Context()))
}

// TestMalformedClaims: a malformed challenge is an ordinary 401.
func TestMalformedClaims(t *testing.T) {
	var calls atomic.Int32
	client := served(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_claims", claims="hunter2"`)
		w.WriteHeader(http.StatusUnauthorized)
	}, nil)
	claims := fixedToken(t, client)
	_, _, err := client.DeploymentAccessKey(t.Context())
	require.Equal(t, &Error{Op: OpGet, Kind: Refused, Status: 401}, failed(t, err))
	require.Equal(t, []string{"", ""}, *claims, "it is dropped, and none are asked for")
	require.EqualValues(t, 2, calls.Load())
	require.NotContains(t, everythingAbout(err), "hunter2")
}
