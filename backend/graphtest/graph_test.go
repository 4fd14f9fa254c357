// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// claimsOf returns the decoded claims of a challenge.
func claimsOf(t *testing.T, r result) string {
	t.Helper()
	challenge := r.header.Get("WWW-Authenticate")
	require.True(t, strings.HasPrefix(challenge, "Bearer "), challenge)
	require.Contains(t, challenge, `error="insufficient_claims"`)
	match := regexp.MustCompile(`claims="([^"]+)"`).FindStringSubmatch(challenge)
	require.Len(t, match, 2)
	claims, err := base64.StdEncoding.DecodeString(match[1])
	require.NoError(t, err)
	require.True(t, json.Valid(claims))
	return string(claims)
}

// forge makes a valid token, changed by change.
func (c *tester) forge(key *rsa.PrivateKey, change func(*jwt.Token, jwt.MapClaims)) string {
	c.t.Helper()
	tenant := c.sim.App().TenantID
	claims := jwt.MapClaims{
		"iss": "https://sts.windows.net/" + tenant + "/", "aud": "https://graph.microsoft.com", "tid": tenant,
		"exp": time.Now().Add(time.Hour).Unix(), "roles": []string{graphtest.RoleReadWrite, graphtest.RoleRead},
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	_, token.Header["kid"] = c.sim.SigningKey()
	change(token, claims)
	signed, err := token.SignedString(key)
	require.NoError(c.t, err)
	return signed
}

// claimsIn returns the claims of a token.
func claimsIn(t *testing.T, token string) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(token, claims)
	require.NoError(t, err)
	return claims
}

func TestGraphChecksToken(t *testing.T) {
	c := newTester(t)
	own, _ := c.sim.SigningKey()
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	nothing := func(*jwt.Token, jwt.MapClaims) {}
	claim := func(name string, value any) func(*jwt.Token, jwt.MapClaims) {
		return func(_ *jwt.Token, claims jwt.MapClaims) { claims[name] = value }
	}
	require.Equal(t, c.sim.Key(), c.call(graphtest.Get, c.forge(own, nothing)).key(t), "the forged token is valid without a change")

	for name, token := range map[string]string{
		"none":          "",
		"no JWT":        "abc",
		"bad signature": c.forge(foreign, nothing),
		"unknown kid":   c.forge(own, func(token *jwt.Token, _ jwt.MapClaims) { token.Header["kid"] = "other" }),
		"other method":  c.forge(own, func(token *jwt.Token, _ jwt.MapClaims) { token.Method = jwt.SigningMethodRS512 }),
		"audience":      c.forge(own, claim("aud", "https://other")),
		"tenant":        c.forge(own, claim("tid", uuid.NewString())),
		"issuer":        c.forge(own, claim("iss", "https://sts.windows.net/"+uuid.NewString()+"/")),
		"no expiry":     c.forge(own, claim("exp", nil)),
		"expired":       c.forge(own, claim("exp", time.Now().Unix())),
		"other tenant's": func() string {
			other := newTester(t)
			return other.token()
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			before := c.sim.Key()
			for _, op := range []graphtest.Operation{graphtest.Regenerate, graphtest.Get, graphtest.Package} {
				r := c.call(op, token)
				require.Equal(t, http.StatusUnauthorized, r.status, r.body)
				require.Equal(t, "InvalidAuthenticationToken", r.graphCode(t))
				require.NotContains(t, r.header.Get("WWW-Authenticate"), "insufficient_claims")
			}
			require.Equal(t, before, c.sim.Key())
		})
	}
	require.Equal(t, graphtest.Calls{Started: 11, Answered: 11}, c.sim.Calls(graphtest.Regenerate))
}

func TestTokenExpires(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	c := newTester(t, graphtest.WithTokenLifetime(5*time.Second), graphtest.WithClock(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}))
	token := c.token()
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, token).status)
	mu.Lock()
	now = now.Add(6 * time.Second)
	mu.Unlock()
	require.Equal(t, http.StatusUnauthorized, c.call(graphtest.Get, token).status)
}

// A token's roles are those at the time when it is issued.
func TestRoles(t *testing.T) {
	for name, test := range map[string]struct {
		roles   []string
		refused []graphtest.Operation
	}{
		"both":       {[]string{graphtest.RoleReadWrite, graphtest.RoleRead}, nil},
		"read-write": {[]string{graphtest.RoleReadWrite}, []graphtest.Operation{graphtest.Package}},
		"read":       {[]string{graphtest.RoleRead}, []graphtest.Operation{graphtest.Regenerate, graphtest.Get}},
		"none":       {nil, []graphtest.Operation{graphtest.Regenerate, graphtest.Get, graphtest.Package}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t, graphtest.WithRoles(test.roles...))
			token := c.token()
			c.sim.Update(graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleRead))
			refused := []graphtest.Operation(nil)
			for _, op := range []graphtest.Operation{graphtest.Regenerate, graphtest.Get, graphtest.Package} {
				if r := c.call(op, token); r.status != http.StatusOK {
					require.Equal(t, http.StatusForbidden, r.status)
					require.Equal(t, "Forbidden", r.graphCode(t))
					require.Contains(t, r.body, "valid permissions")
					require.Zero(t, c.sim.Calls(op).Performed)
					refused = append(refused, op)
				}
			}
			require.Equal(t, test.refused, refused)
		})
	}
}

func TestAudience(t *testing.T) {
	c := newTester(t, graphtest.WithAudience("https://graph.microsoft.us/"))
	form := c.goodForm()
	form.Set("scope", "https://graph.microsoft.us/.default")
	token := c.tokenFor(form)
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, token).status)
	c.sim.Update(graphtest.WithAudience("https://graph.microsoft.com"))
	require.Equal(t, http.StatusUnauthorized, c.call(graphtest.Get, token).status)
}

func TestGraphRequest(t *testing.T) {
	c := newTester(t)
	auth := http.Header{"Authorization": {"bearer " + c.token()}, "Client-Request-Id": {"my-id"}}
	before := c.sim.Key()
	for name, test := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"regenerate is a POST": {http.MethodGet, "beta/security/identities/sensors/regenerateDeploymentAccessKey", "", 405, "MethodNotAllowed"},
		"reading is a GET":     {http.MethodPost, "v1.0/security/identities/sensors/getDeploymentAccessKey", "", 405, "MethodNotAllowed"},
		"the package too":      {http.MethodPost, "beta/security/identities/sensors/getDeploymentPackageUri", "", 405, "MethodNotAllowed"},
		"POST takes no body":   {http.MethodPost, "beta/security/identities/sensors/regenerateDeploymentAccessKey", "{}", 400, "BadRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := c.do(t.Context(), test.method, "/"+test.path, test.body, auth)
			require.NoError(t, err)
			require.Equal(t, test.status, r.status)
			require.Equal(t, test.code, r.graphCode(t))
			detail := r.json(t)["error"].(map[string]any)
			require.NotEmpty(t, detail["message"])
			inner := detail["innerError"].(map[string]any)
			require.NoError(t, uuid.Validate(r.header.Get("request-id")))
			require.Equal(t, r.header.Get("request-id"), inner["request-id"])
			require.Equal(t, "my-id", inner["client-request-id"])
			require.Equal(t, "my-id", r.header.Get("client-request-id"))
			_, err = time.Parse("2006-01-02T15:04:05", inner["date"].(string))
			require.NoError(t, err)
			require.Equal(t, before, c.sim.Key())
		})
	}
	t.Run("v1.0", func(t *testing.T) {
		r, err := c.do(t.Context(), http.MethodPost, "/v1.0/security/identities/sensors/regenerateDeploymentAccessKey", "", auth)
		require.NoError(t, err)
		require.Equal(t, c.sim.Key(), r.key(t))
		require.NotEqual(t, before, c.sim.Key())
		require.Equal(t, "my-id", r.header.Get("client-request-id"))
	})
}

func TestShapes(t *testing.T) {
	const key, pkg = "deploymentAccessKeyType", "sensorDeploymentPackage"
	for shape, test := range map[graphtest.Shape]struct {
		wrapped bool
		field   string
	}{
		graphtest.ShapeValueSensor: {true, "sensorDeploymentAccessKey"},
		graphtest.ShapeValue:       {true, "deploymentAccessKey"},
		graphtest.ShapeRootSensor:  {false, "sensorDeploymentAccessKey"},
		graphtest.ShapeRoot:        {false, "deploymentAccessKey"},
	} {
		t.Run(string(shape), func(t *testing.T) {
			c := newTester(t, graphtest.WithBodyShape(shape), graphtest.WithPackage("https://host/file", "1.2.3"))
			token := c.token()
			expect := func(typeName string, fields map[string]any) map[string]any {
				if test.wrapped {
					fields["@odata.type"] = "microsoft.graph.security." + typeName
					return map[string]any{"value": fields}
				}
				fields["@odata.context"] = c.sim.URL() + "/beta/$metadata#microsoft.graph.security." + typeName
				return fields
			}
			regenerated := c.call(graphtest.Regenerate, token)
			require.Equal(t, expect(key, map[string]any{test.field: c.sim.Key()}), regenerated.json(t))
			require.Equal(t, regenerated.body, c.call(graphtest.Get, token).body)
			require.Equal(t, expect(pkg, map[string]any{"downloadUrl": "https://host/file", "version": "1.2.3"}),
				c.call(graphtest.Package, token).json(t))
		})
	}
}

// Microsoft's SDKs send the qualified names, and functions with parentheses.
func TestNamesOfCalls(t *testing.T) {
	c := newTester(t)
	header := http.Header{"Authorization": {"Bearer " + c.token()}}
	for op, call := range map[graphtest.Operation]string{
		graphtest.Regenerate: "POST regenerateDeploymentAccessKey",
		graphtest.Get:        "GET getDeploymentAccessKey",
		graphtest.Package:    "GET getDeploymentPackageUri",
	} {
		method, name, _ := strings.Cut(call, " ")
		for i, name := range []string{name, "microsoft.graph.security." + name, name + "()", "microsoft.graph.security." + name + "%28%29"} {
			r, err := c.do(t.Context(), method, sensors+name, "", header)
			require.NoError(t, err)
			if isFunction := op != graphtest.Regenerate; isFunction || i < 2 {
				require.Equal(t, http.StatusOK, r.status, name)
			} else {
				require.Equal(t, http.StatusBadRequest, r.status, "an action takes no parentheses")
			}
		}
	}
}

// Graph explains itself wherever one knocks.
func TestUnknownPath(t *testing.T) {
	c := newTester(t)
	for _, path := range []string{"/", "/beta", "/v1.0/me", "/beta/security/identities/x", sensors + "x", "/v2.0/security", "/v1.0/applications/x/delete"} {
		r, err := c.do(t.Context(), http.MethodGet, path, "", http.Header{"Client-Request-Id": {"my-id"}})
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, r.status, path)
		require.Equal(t, "BadRequest", r.graphCode(t), path)
		require.NoError(t, uuid.Validate(r.header.Get("request-id")), path)
		require.Equal(t, "my-id", r.header.Get("client-request-id"), path)
	}
}

func TestPackageByDefault(t *testing.T) {
	c := newTester(t, graphtest.WithBodyShape(graphtest.ShapeRoot))
	require.Regexp(t, `^https://[^/]+\.mdi\.securitycenter\.microsoft\.com/`, c.call(graphtest.Package, c.token()).json(t)["downloadUrl"])
}

func TestStaleReads(t *testing.T) {
	c := newTester(t, graphtest.WithStaleReads(2))
	token := c.token()
	first := c.sim.Key()
	require.Equal(t, first, c.call(graphtest.Get, token).key(t), "without a previous key, reads are not stale")
	second := c.call(graphtest.Regenerate, token).key(t)
	require.Equal(t, first, c.call(graphtest.Get, token).key(t))
	require.Equal(t, first, c.call(graphtest.Get, token).key(t))
	require.Equal(t, second, c.call(graphtest.Get, token).key(t))
	require.False(t, c.sim.CanRegister(first), "only the read is stale")
}

func TestPortal(t *testing.T) {
	c := newTester(t)
	old := c.sim.Key()
	key := c.sim.RegenerateInPortal()
	require.NotEqual(t, old, key)
	require.Equal(t, key, c.call(graphtest.Get, c.token()).key(t))
	require.True(t, c.sim.CanRegister(key))
	require.False(t, c.sim.CanRegister(old))
	require.Contains(t, c.sim.Issued(), key)
	require.Zero(t, c.sim.Calls(graphtest.Regenerate))
}

func TestRegisterByteForByte(t *testing.T) {
	c := newTester(t)
	key := c.sim.Key()
	for _, wrong := range []string{"", key + "\n", " " + key, strings.TrimRight(key, "="), strings.ToLower(key)} {
		require.Equal(t, http.StatusForbidden, c.register(wrong))
		require.False(t, c.sim.CanRegister(wrong))
	}
	require.Equal(t, http.StatusCreated, c.register(key))
	for _, test := range []struct {
		method, body string
		status       int
	}{{http.MethodGet, "{}", 405}, {http.MethodPost, "no JSON", 400}} {
		r, err := c.do(t.Context(), test.method, "/sensors/register", test.body, http.Header{})
		require.NoError(t, err)
		require.Equal(t, test.status, r.status)
	}
	require.Equal(t, graphtest.Calls{Started: 8, Performed: 1, Answered: 8}, c.sim.Calls(graphtest.Register))
}

// Concurrent regenerations run one after the other: each makes a key, and one of these is
// the current one.
func TestConcurrentCalls(t *testing.T) {
	const n = 40
	c := newTester(t)
	token := c.token()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: n / 4, Status: http.StatusServiceUnavailable})
	keys := make(chan string, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if r, err := c.graph(t.Context(), graphtest.Regenerate, token); err == nil && r.status == http.StatusOK {
				keys <- r.key(t)
			}
		})
		wg.Go(func() { _, _ = c.graph(t.Context(), graphtest.Get, token) })
	}
	wg.Wait()
	close(keys)
	distinct := map[string]bool{}
	for key := range keys {
		distinct[key] = true
	}
	require.Len(t, distinct, n-n/4)
	require.True(t, distinct[c.sim.Key()])
	require.Equal(t, graphtest.Calls{Started: n, Performed: n - n/4, Answered: n}, c.sim.Calls(graphtest.Regenerate))
	require.Equal(t, graphtest.Calls{n, n, n}, c.sim.Calls(graphtest.Get))
	require.Len(t, c.sim.Issued(), 4+len(distinct))
}
