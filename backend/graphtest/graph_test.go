// SPDX-License-Identifier: MPL-2.0

package graphtest

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
)

// claimsOf decodes the claims of a challenge.
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

// forge makes a token that is good but for what change does to it.
func (c *tester) forge(key *rsa.PrivateKey, change func(*jwt.Token, *tokenClaims)) string {
	c.t.Helper()
	s := c.sim.current()
	claims := tokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    issuer(s.tenantID),
			Audience:  jwt.ClaimStrings{s.audience},
			ExpiresAt: jwt.NewNumericDate(s.clock().Add(time.Hour)),
		},
		TenantID: s.tenantID,
		Roles:    s.roles,
	}
	token := jwt.New(signingMethod)
	token.Header["kid"] = c.sim.signer.id
	change(token, &claims)
	token.Claims = claims
	signed, err := token.SignedString(key)
	require.NoError(c.t, err)
	return signed
}

func TestGraphChecksToken(t *testing.T) {
	c := newTester(t)
	own := c.sim.signer.key
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	nothing := func(*jwt.Token, *tokenClaims) {}
	claims := func(change func(*tokenClaims)) func(*jwt.Token, *tokenClaims) {
		return func(_ *jwt.Token, claims *tokenClaims) { change(claims) }
	}
	require.Equal(t, c.sim.Key(), c.call(Get, c.forge(own, nothing)).key(t), "the forgery is good otherwise")

	for name, token := range map[string]string{
		"none":          "",
		"no JWT":        "abc",
		"bad signature": c.forge(foreign, nothing),
		"unknown kid":   c.forge(own, func(token *jwt.Token, _ *tokenClaims) { token.Header["kid"] = "other" }),
		"other method":  c.forge(own, func(token *jwt.Token, _ *tokenClaims) { token.Method = jwt.SigningMethodRS512 }),
		"audience":      c.forge(own, claims(func(c *tokenClaims) { c.Audience = jwt.ClaimStrings{"https://other"} })),
		"tenant":        c.forge(own, claims(func(c *tokenClaims) { c.TenantID = uuid.NewString() })),
		"issuer":        c.forge(own, claims(func(c *tokenClaims) { c.Issuer = issuer(uuid.NewString()) })),
		"no expiry":     c.forge(own, claims(func(c *tokenClaims) { c.ExpiresAt = nil })),
		"expired":       c.forge(own, claims(func(c *tokenClaims) { c.ExpiresAt = jwt.NewNumericDate(time.Now()) })),
		"other tenant's": func() string {
			other := newTester(t)
			return other.token()
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			before := c.sim.Key()
			for _, op := range []Operation{Regenerate, Get, Package} {
				r := c.call(op, token)
				require.Equal(t, http.StatusUnauthorized, r.status, r.body)
				require.Equal(t, "InvalidAuthenticationToken", r.graphCode(t))
				require.NotContains(t, r.header.Get("WWW-Authenticate"), "insufficient_claims")
			}
			require.Equal(t, before, c.sim.Key())
		})
	}
	require.Equal(t, Calls{Started: 11, Answered: 11}, c.sim.Calls(Regenerate))
}

func TestTokenExpires(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	c := newTester(t, WithTokenLifetime(5*time.Second), WithClock(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}))
	token := c.token()
	require.Equal(t, http.StatusOK, c.call(Get, token).status)
	mu.Lock()
	now = now.Add(6 * time.Second)
	mu.Unlock()
	require.Equal(t, http.StatusUnauthorized, c.call(Get, token).status)
}

// What a token may do is settled when it is issued.
func TestRoles(t *testing.T) {
	for name, test := range map[string]struct {
		roles   []string
		refused []Operation
	}{
		"both":       {[]string{RoleReadWrite, RoleRead}, nil},
		"read-write": {[]string{RoleReadWrite}, []Operation{Package}},
		"read":       {[]string{RoleRead}, []Operation{Regenerate, Get}},
		"none":       {nil, []Operation{Regenerate, Get, Package}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t, WithRoles(test.roles...))
			token := c.token()
			c.sim.Update(WithRoles(RoleReadWrite, RoleRead))
			refused := []Operation(nil)
			for _, op := range []Operation{Regenerate, Get, Package} {
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
	c := newTester(t, WithAudience("https://graph.microsoft.us/"))
	token := c.token()
	require.Equal(t, http.StatusOK, c.call(Get, token).status)
	c.sim.Update(WithAudience("https://graph.microsoft.com"))
	require.Equal(t, http.StatusUnauthorized, c.call(Get, token).status)
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
	for shape, test := range map[Shape]struct {
		wrapped bool
		field   string
	}{
		ShapeValueSensor: {true, "sensorDeploymentAccessKey"},
		ShapeValue:       {true, "deploymentAccessKey"},
		ShapeRootSensor:  {false, "sensorDeploymentAccessKey"},
		ShapeRoot:        {false, "deploymentAccessKey"},
	} {
		t.Run(string(shape), func(t *testing.T) {
			c := newTester(t, WithBodyShape(shape), WithPackage("https://host/file", "1.2.3"))
			token := c.token()
			expect := func(typeName string, fields map[string]any) map[string]any {
				if test.wrapped {
					fields["@odata.type"] = "microsoft.graph.security." + typeName
					return map[string]any{"value": fields}
				}
				fields["@odata.context"] = c.sim.URL() + "/beta/$metadata#microsoft.graph.security." + typeName
				return fields
			}
			regenerated := c.call(Regenerate, token)
			require.Equal(t, expect(key, map[string]any{test.field: c.sim.Key()}), regenerated.json(t))
			require.Equal(t, regenerated.body, c.call(Get, token).body)
			require.Equal(t, expect(pkg, map[string]any{"downloadUrl": "https://host/file", "version": "1.2.3"}),
				c.call(Package, token).json(t))
		})
	}
}

func TestPackageByDefault(t *testing.T) {
	c := newTester(t, WithBodyShape(ShapeRoot))
	require.Regexp(t, `^https://[^/]+\.mdi\.securitycenter\.microsoft\.com/`, c.call(Package, c.token()).json(t)["downloadUrl"])
}

func TestStaleReads(t *testing.T) {
	c := newTester(t, WithStaleReads(2))
	token := c.token()
	first := c.sim.Key()
	require.Equal(t, first, c.call(Get, token).key(t), "no key before, nothing stale")
	second := c.call(Regenerate, token).key(t)
	require.Equal(t, first, c.call(Get, token).key(t))
	require.Equal(t, first, c.call(Get, token).key(t))
	require.Equal(t, second, c.call(Get, token).key(t))
	require.False(t, c.sim.CanRegister(first), "stale is the read, not the key")
}

func TestPortal(t *testing.T) {
	c := newTester(t)
	old := c.sim.Key()
	key := c.sim.RegenerateInPortal()
	require.NotEqual(t, old, key)
	require.Equal(t, key, c.call(Get, c.token()).key(t))
	require.True(t, c.sim.CanRegister(key))
	require.False(t, c.sim.CanRegister(old))
	require.Contains(t, c.sim.Issued(), key)
	require.Zero(t, c.sim.Calls(Regenerate))
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
	require.Equal(t, Calls{Started: 8, Performed: 1, Answered: 8}, c.sim.Calls(Register))
}

// Concurrent regenerations come one after the other: as many keys as calls, and
// one of the answers is the key that counts.
func TestConcurrentCalls(t *testing.T) {
	const n = 40
	c := newTester(t)
	token := c.token()
	c.sim.Inject(Fault{Operation: Regenerate, Times: n / 4, Status: http.StatusServiceUnavailable})
	keys := make(chan string, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if r, err := c.graph(t.Context(), Regenerate, token); err == nil && r.status == http.StatusOK {
				keys <- r.key(t)
			}
		})
		wg.Go(func() { _, _ = c.graph(t.Context(), Get, token) })
	}
	wg.Wait()
	close(keys)
	distinct := map[string]bool{}
	for key := range keys {
		distinct[key] = true
	}
	require.Len(t, distinct, n-n/4)
	require.True(t, distinct[c.sim.Key()])
	require.Equal(t, Calls{Started: n, Performed: n - n/4, Answered: n}, c.sim.Calls(Regenerate))
	require.Equal(t, Calls{n, n, n}, c.sim.Calls(Get))
	require.Len(t, c.sim.Issued(), 4+len(distinct))
}
