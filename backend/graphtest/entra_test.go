// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestTokenRefused(t *testing.T) {
	set := func(field, value string) func(url.Values) {
		return func(form url.Values) { form.Set(field, value) }
	}
	del := func(field string) func(url.Values) {
		return func(form url.Values) { form.Del(field) }
	}
	for name, test := range map[string]struct {
		opts   []graphtest.Option
		form   func(url.Values)
		status int
		err    string
		code   int
	}{
		"wrong secret":          {nil, set("client_secret", "wrong"), 401, "invalid_client", 7000215},
		"wrong expired secret":  {[]graphtest.Option{graphtest.WithExpiredSecret()}, set("client_secret", "x"), 401, "invalid_client", 7000215},
		"expired secret":        {[]graphtest.Option{graphtest.WithExpiredSecret()}, set("x", "y"), 401, "invalid_client", 7000222},
		"two credentials":       {nil, set("client_assertion", "x"), 400, "invalid_request", 90023},
		"claims, no object":     {nil, set("claims", "[]"), 400, "invalid_request", 90023},
		"no credential":         {nil, del("client_secret"), 401, "invalid_client", 7000216},
		"unknown app":           {nil, set("client_id", "x"), 400, "unauthorized_client", 700016},
		"no app":                {nil, del("client_id"), 400, "invalid_request", 900144},
		"no grant":              {nil, del("grant_type"), 400, "invalid_request", 900144},
		"other grant":           {nil, set("grant_type", "password"), 400, "unsupported_grant_type", 70003},
		"no scope":              {nil, del("scope"), 400, "invalid_request", 900144},
		"only OpenID's scopes":  {nil, set("scope", "openid profile"), 400, "invalid_request", 900144},
		"scope without default": {nil, set("scope", "https://graph.microsoft.com"), 400, "invalid_scope", 1002012},
		"two scopes":            {nil, set("scope", "a/.default b/.default"), 400, "invalid_scope", 1002012},
		"another resource":      {nil, set("scope", "https://graph.microsoft.us/.default"), 400, "invalid_resource", 500011},
		"encoded claims":        {nil, set("claims", "eyJhY2Nlc3Nf"), 400, "invalid_request", 90023},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t, test.opts...)
			form := c.goodForm()
			test.form(form)
			r, err := c.signIn(form)
			require.NoError(t, err)
			require.Equal(t, test.status, r.status, r.body)
			body := r.json(t)
			require.Equal(t, test.err, body["error"])
			require.Equal(t, []any{float64(test.code)}, body["error_codes"])
			require.Regexp(t, fmt.Sprintf(
				`^AADSTS%d: .+ Trace ID: \S{36} Correlation ID: \S{36} Timestamp: [\d-]{10} [\d:]{8}Z$`, test.code),
				body["error_description"])
			require.NotContains(t, r.body, c.sim.App().ClientSecret)
			require.Equal(t, graphtest.Calls{Started: 1, Answered: 1}, c.sim.Calls(graphtest.Token))
		})
	}
}

func TestTenantUnknown(t *testing.T) {
	c := newTester(t)
	for _, path := range []string{"/other/v2.0/.well-known/openid-configuration", "/other/oauth2/v2.0/token"} {
		r, err := c.do(t.Context(), http.MethodGet, path, "", http.Header{"Client-Request-Id": {"my-id"}})
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, r.status)
		require.Equal(t, []any{float64(90002)}, r.json(t)["error_codes"])
		require.Equal(t, "my-id", r.json(t)["correlation_id"])
		require.Equal(t, "my-id", r.header.Get("client-request-id"))
	}
	r, err := c.do(t.Context(), http.MethodPost, "/other/oauth2/v2.0/token?client-request-id=in-the-query", "", http.Header{})
	require.NoError(t, err)
	require.Equal(t, "in-the-query", r.json(t)["correlation_id"])
	require.Equal(t, "in-the-query", r.header.Get("client-request-id"))
	r, err = c.do(t.Context(), http.MethodGet, "/other/discovery/v2.0/keys", "", http.Header{})
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, r.status)
}

func TestInstanceDiscovery(t *testing.T) {
	c := newTester(t)
	own := strings.TrimPrefix(c.sim.URL(), "https://")
	for endpoint, want := range map[string]any{
		"https://" + own + "/tenant/oauth2/v2.0/authorize":              "https://" + own + "/tenant/v2.0/.well-known/openid-configuration",
		"https://login.microsoftonline.us/t/oauth2/v2.0/authorize":      "https://login.microsoftonline.us/t/v2.0/.well-known/openid-configuration",
		"https://login.microsoftonline.us.test/t/oauth2/v2.0/authorize": "invalid_instance",
		"":    "invalid_request",
		"%zz": "invalid_request",
	} {
		r, err := c.do(t.Context(), http.MethodGet, "/common/discovery/instance?api-version=1.1&authorization_endpoint="+url.QueryEscape(endpoint), "", http.Header{})
		require.NoError(t, err)
		if r.status != http.StatusOK {
			require.Equal(t, want, r.json(t)["error"], endpoint)
			continue
		}
		require.Equal(t, want, r.json(t)["tenant_discovery_endpoint"], endpoint)
	}
	require.Equal(t, graphtest.Calls{Started: 5, Performed: 2, Answered: 5}, c.sim.Calls(graphtest.Instance))
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Instance, Status: http.StatusServiceUnavailable})
	r, err := c.do(t.Context(), http.MethodGet, "/common/discovery/instance", "", http.Header{})
	require.NoError(t, err)
	require.Equal(t, []any{float64(90033)}, r.json(t)["error_codes"])
}

func TestTokenRequestForm(t *testing.T) {
	c := newTester(t)
	path := "/" + c.sim.App().TenantID + "/oauth2/v2.0/token"
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	good := c.goodForm().Encode()
	for name, test := range map[string]struct {
		method, path, body string
		header             http.Header
		status             int
	}{
		"with charset":         {http.MethodPost, path, good, form, 200},
		"parameters in query":  {http.MethodPost, path + "?" + good, "", form, 400},
		"GET":                  {http.MethodGet, path, good, form, 400},
		"without content type": {http.MethodPost, path, good, http.Header{}, 400},
		"not a form":           {http.MethodPost, path, "%zz", form, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := c.do(t.Context(), test.method, test.path, test.body, test.header)
			require.NoError(t, err)
			require.Equal(t, test.status, r.status, r.body)
		})
	}
}

func TestDiscoveryIsGet(t *testing.T) {
	c := newTester(t)
	path := "/" + c.sim.App().TenantID + "/v2.0/.well-known/openid-configuration"
	r, err := c.do(t.Context(), http.MethodPost, path, "", http.Header{})
	require.NoError(t, err)
	require.Equal(t, http.StatusMethodNotAllowed, r.status)
	require.Equal(t, graphtest.Calls{Started: 1, Answered: 1}, c.sim.Calls(graphtest.Discovery))
}

// A token can be verified with the keys that the tenant publishes.
func TestTokenClaims(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	c := newTester(t, graphtest.WithClock(func() time.Time { return now }), graphtest.WithTokenLifetime(90*time.Second), graphtest.WithRoles("A", "B"))
	app := c.sim.App()
	r, err := c.signIn(c.goodForm())
	require.NoError(t, err)
	require.InDelta(t, 90, r.json(t)["expires_in"], 0)

	keys, err := c.do(t.Context(), http.MethodGet, "/"+app.TenantID+"/discovery/v2.0/keys", "", http.Header{})
	require.NoError(t, err)
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(r.json(t)["access_token"].(string), claims, func(*jwt.Token) (any, error) {
		return publicKeyOf(t, keys.json(t)), nil
	}, jwt.WithTimeFunc(func() time.Time { return now }))
	require.NoError(t, err)
	require.Equal(t, "RS256", token.Method.Alg())
	require.NotEmpty(t, token.Header["kid"])
	require.NotEmpty(t, claims["uti"])
	require.NoError(t, uuid.Validate(claims["oid"].(string)))
	require.NotEqual(t, c.sim.Info().ObjectID, claims["oid"], "it is that of the service principal")
	delete(claims, "uti")
	delete(claims, "oid")
	require.Equal(t, jwt.MapClaims{
		"iss":   "https://sts.windows.net/" + app.TenantID + "/",
		"aud":   []any{"https://graph.microsoft.com"},
		"tid":   app.TenantID,
		"appid": app.ClientID,
		"idtyp": "app",
		"ver":   "1.0",
		"roles": []any{"A", "B"},
		"iat":   float64(now.Unix()),
		"nbf":   float64(now.Unix()),
		"exp":   float64(now.Unix() + 90),
	}, claims)
}

func publicKeyOf(t *testing.T, keySet map[string]any) *rsa.PublicKey {
	t.Helper()
	key, ok := keySet["keys"].([]any)[0].(map[string]any)
	require.True(t, ok)
	number := func(name string) *big.Int {
		raw, err := base64.RawURLEncoding.DecodeString(key[name].(string))
		require.NoError(t, err)
		return new(big.Int).SetBytes(raw)
	}
	return &rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
}

func TestSecretReplaced(t *testing.T) {
	c := newTester(t, graphtest.WithExpiredSecret())
	c.sim.Update(graphtest.WithApp("", "new secret"))
	c.token()
	require.Contains(t, c.sim.Issued(), "new secret")
}
