// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"crypto/sha1" //nolint:gosec // the thumbprint is a SHA-1
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// application makes a call about the application.
func (c *tester) application(method, token, path string, body any) result {
	c.t.Helper()
	text, err := json.Marshal(body)
	require.NoError(c.t, err)
	if body == nil {
		text = nil
	}
	r, err := c.do(c.t.Context(), method, path, string(text), http.Header{"Authorization": {"Bearer " + token}})
	require.NoError(c.t, err)
	return r
}

// byAppID returns the path of an action, with the client id.
func (c *tester) byAppID(action string) string {
	return "/v1.0/applications(appId='" + c.sim.App().ClientID + "')" + action
}

type added struct{ keyID, secret string }

func (c *tester) addPassword(name string, end time.Time) added {
	c.t.Helper()
	r := c.application(http.MethodPost, c.token(), c.byAppID("/addPassword"), passwordRequest(name, end))
	require.Equal(c.t, http.StatusOK, r.status, r.body)
	body := r.json(c.t)
	return added{body["keyId"].(string), body["secretText"].(string)}
}

func passwordRequest(name string, end time.Time) map[string]any {
	return map[string]any{"passwordCredential": map[string]any{"displayName": name, "endDateTime": end}}
}

// proof returns a proof of possession of a certificate, changed by change.
func (c *tester) proof(p pair, change func(*jwt.Token, jwt.MapClaims)) string {
	c.t.Helper()
	now := time.Now()
	return p.sign(c.t, jwt.MapClaims{
		"aud": "00000002-0000-0000-c000-000000000000", "iss": c.sim.Info().ObjectID,
		"nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}, change)
}

func keyRequest(p pair, proof string) map[string]any {
	return map[string]any{
		"keyCredential": map[string]any{
			"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(p.cert.Raw),
		},
		"passwordCredential": nil,
		"proof":              proof,
	}
}

func TestPasswordLife(t *testing.T) {
	now := time.Now()
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy), graphtest.WithForeignPassword("another client's"), graphtest.WithClock(func() time.Time { return now }))
	before := c.sim.Credentials()
	p := c.addPassword("mine", now.Add(time.Hour))
	require.Contains(t, c.sim.Issued(), p.secret)
	all := c.sim.Credentials()
	require.Len(t, all, 3)
	require.Equal(t, before, all[:2])
	require.Equal(t, graphtest.Credential{Type: "secret", KeyID: p.keyID, DisplayName: "mine", End: all[2].End}, all[2])
	require.True(t, all[2].End.Equal(now.Add(time.Hour)))

	form := c.goodForm()
	form.Set("client_secret", p.secret)
	token := c.tokenFor(form)
	now = now.Add(time.Hour)
	r, err := c.signIn(form)
	require.NoError(t, err)
	require.Equal(t, 7000222, r.code(t))
	now = now.Add(-time.Minute)

	remove := func() result {
		return c.application(http.MethodPost, token, "/beta/applications/"+c.sim.Info().ObjectID+"/removePassword",
			map[string]string{"keyId": p.keyID})
	}
	r = remove()
	require.Equal(t, http.StatusNoContent, r.status, r.body)
	require.Empty(t, r.body)
	require.Empty(t, r.header.Get("Content-Type"))
	r = remove()
	require.Equal(t, http.StatusBadRequest, r.status, "not found is a 400 here")
	require.Equal(t, "Request_BadRequest", r.graphCode(t))
	require.Equal(t, before, c.sim.Credentials())
	r, err = c.signIn(form)
	require.NoError(t, err)
	require.Equal(t, 7000215, r.code(t))
	require.Equal(t, graphtest.Calls{2, 1, 2}, c.sim.Calls(graphtest.RemovePassword))
	require.Equal(t, graphtest.Calls{1, 1, 1}, c.sim.Calls(graphtest.AddPassword))
}

func TestForeignPasswordStays(t *testing.T) {
	c := newTester(t, graphtest.WithForeignPassword("another client's"))
	foreign := c.sim.Credentials()[1]
	form := c.goodForm()
	c.sim.Update(graphtest.WithApp("", "new"), graphtest.WithExpiredSecret())
	require.Equal(t, foreign, c.sim.Credentials()[0])
	form.Set("client_secret", c.sim.Issued()[2])
	c.tokenFor(form)
	require.Contains(t, c.sim.Issued(), form.Get("client_secret"))
}

func TestGetApplication(t *testing.T) {
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy))
	p := c.registered("vault")
	token := c.token()
	r := c.application(http.MethodGet, token, c.byAppID("?$select=id,passwordCredentials,keyCredentials"), nil)
	require.Equal(t, http.StatusOK, r.status, r.body)
	body := r.json(t)
	require.Len(t, body, 4)
	require.Equal(t, c.sim.Info().ObjectID, body["id"])
	require.Equal(t, c.sim.URL()+"/v1.0/$metadata#applications/$entity", body["@odata.context"])
	password := body["passwordCredentials"].([]any)[0].(map[string]any)
	require.Equal(t, c.sim.Credentials()[0].KeyID, password["keyId"])
	require.Nil(t, password["secretText"])
	require.NotContains(t, r.body, c.sim.App().ClientSecret)
	key := body["keyCredentials"].([]any)[0].(map[string]any)
	require.Equal(t, c.sim.Credentials()[1].KeyID, key["keyId"])
	thumbprint := fmt.Sprintf("%X", sha1.Sum(p.cert.Raw)) //nolint:gosec // what the portal shows
	require.Equal(t, thumbprint, key["customKeyIdentifier"])
	require.Equal(t, thumbprint, c.sim.Credentials()[1].Thumbprint)

	require.Len(t, c.application(http.MethodGet, token, c.byAppID(""), nil).json(t), 6, "all of it")
	require.Equal(t, http.StatusBadRequest, c.application(http.MethodGet, token, c.byAppID("?$select=secrets"), nil).status)
	require.Equal(t, graphtest.Calls{3, 2, 3}, c.sim.Calls(graphtest.Application))
}

func TestApplicationRefused(t *testing.T) {
	expiry := time.Now().Add(time.Hour)
	for name, test := range map[string]struct {
		opts   []graphtest.Option
		method string
		path   func(*tester) string
		body   any
		status int
		code   string
	}{
		"no role": {
			[]graphtest.Option{graphtest.WithRoles(graphtest.RoleReadWrite)},
			http.MethodPost,
			func(c *tester) string { return c.byAppID("/addPassword") }, passwordRequest("x", expiry), 403, "Authorization_RequestDenied",
		},
		"not its owner": {
			[]graphtest.Option{graphtest.WithOwner(false)},
			http.MethodPost,
			func(c *tester) string { return c.byAppID("/addPassword") }, passwordRequest("x", expiry), 403, "Authorization_RequestDenied",
		},
		"unknown app": {
			nil, http.MethodGet,
			func(*tester) string { return "/v1.0/applications(appId='x')" }, nil, 404, "Request_ResourceNotFound",
		},
		"client id as object id": {
			nil, http.MethodGet,
			func(c *tester) string { return "/v1.0/applications/" + c.sim.App().ClientID }, nil, 404, "Request_ResourceNotFound",
		},
		"method": {
			nil, http.MethodGet,
			func(c *tester) string { return c.byAppID("/addPassword") }, nil, 405, "MethodNotAllowed",
		},
		"no JSON": {
			nil, http.MethodPost,
			func(c *tester) string { return c.byAppID("/addPassword") }, nil, 400, "Request_BadRequest",
		},
		"no JSON, remove": {
			nil, http.MethodPost,
			func(c *tester) string { return c.byAppID("/removePassword") }, nil, 400, "Request_BadRequest",
		},
		"unknown field": {
			nil, http.MethodPost, func(c *tester) string { return c.byAppID("/addPassword") },
			map[string]any{"displayName": "x"},
			400, "Request_BadRequest",
		},
		"ends before it starts": {
			nil, http.MethodPost,
			func(c *tester) string { return c.byAppID("/addPassword") }, passwordRequest("x", time.Unix(1, 0)), 400, "Request_BadRequest",
		},
		"too long": {
			[]graphtest.Option{graphtest.WithMaxCredentialLifetime(time.Minute)},
			http.MethodPost,
			func(c *tester) string { return c.byAppID("/addPassword") }, passwordRequest("x", expiry), 400, "CredentialInvalidLifetimeAsPerAppPolicy",
		},
		"two years by default": {
			[]graphtest.Option{graphtest.WithMaxCredentialLifetime(365 * 24 * time.Hour)},
			http.MethodPost,
			func(c *tester) string { return c.byAppID("/addPassword") },
			map[string]any{},
			400, "CredentialInvalidLifetimeAsPerAppPolicy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t, append([]graphtest.Option{graphtest.WithRoles(graphtest.RoleOwnedBy)}, test.opts...)...)
			r := c.application(test.method, c.token(), test.path(c), test.body)
			require.Equal(t, test.status, r.status, r.body)
			require.Equal(t, test.code, r.graphCode(t))
			require.Len(t, c.sim.Credentials(), 1)
		})
	}
}

func TestApplicationRoutes(t *testing.T) {
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy))
	token := c.token()
	for _, path := range []string{"/v1.0/me", "/beta/users/x", "/beta/applications(appId='x", c.byAppID("/delete")} {
		require.Equal(t, http.StatusBadRequest, c.application(http.MethodGet, token, path, nil).status)
	}
	require.Zero(t, c.sim.Calls(graphtest.Application), "other paths are not counted")
	require.Equal(t, http.StatusUnauthorized, c.application(http.MethodGet, "", c.byAppID(""), nil).status)
}

// Faults also disturb these calls.
func TestApplicationFaults(t *testing.T) {
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy))
	token := c.token()
	add := func() result {
		return c.application(http.MethodPost, token, c.byAppID("/addPassword"), passwordRequest("x", time.Now().Add(time.Hour)))
	}
	c.sim.Inject(
		graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, Status: 409, Code: "Directory_ConcurrencyViolation"},
		graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, Status: 504, AfterWork: true},
	)
	r := add()
	require.Equal(t, "Directory_ConcurrencyViolation", r.graphCode(t))
	require.Len(t, c.sim.Credentials(), 1)
	require.Equal(t, http.StatusGatewayTimeout, add().status)
	require.Len(t, c.sim.Credentials(), 2, "lost, but there")

	for body, want := range map[graphtest.BodyKind]string{graphtest.BodyHTML: "^<!DOCTYPE html>", graphtest.BodyMalformed: "^nul$", graphtest.BodyEmpty: "^$"} {
		id := c.addPassword("x", time.Now().Add(time.Hour)).keyID
		c.sim.Inject(graphtest.Fault{Times: 1, Body: body})
		r := c.application(http.MethodPost, token, c.byAppID("/removePassword"), map[string]string{"keyId": id})
		require.Regexp(t, regexp.MustCompile(want), r.body)
	}
	c.sim.Inject(graphtest.Fault{Operation: graphtest.RemovePassword, Times: 1, Lost: true})
	_, err := c.do(t.Context(), http.MethodPost, c.byAppID("/removePassword"), "{}", http.Header{"Authorization": {"Bearer " + token}})
	require.Error(t, err)
}

// What Graph adds works before it is listed.
func TestListingLag(t *testing.T) {
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy), graphtest.WithListingLag(2))
	token := c.token()
	young := c.addPassword("new", time.Now().Add(time.Hour))
	var listed []bool
	for range 4 {
		r := c.application(http.MethodGet, token, c.byAppID(""), nil)
		require.Contains(t, r.body, "configured", "the lag is for new ones only")
		listed = append(listed, strings.Contains(r.body, young.keyID))
	}
	require.Equal(t, []bool{false, false, true, true}, listed)
	form := c.goodForm()
	form.Set("client_secret", c.addPassword("unlisted", time.Now().Add(time.Hour)).secret)
	r, err := c.signIn(form)
	require.NoError(t, err)
	require.Zero(t, r.code(t))
}

// Replacing a certificate requires nothing but the previous one.
func TestKeyLife(t *testing.T) {
	c := newTester(t, graphtest.WithRoles())
	old, young := c.registered("vault"), unregistered(t, "stranger")
	c.sim.Update(graphtest.WithPropagation(1, 1))
	token := c.token()
	proof := c.proof(old, nil)
	r := c.application(http.MethodPost, token, c.byAppID("/addKey"), keyRequest(young, proof))
	require.Equal(t, http.StatusOK, r.status, r.body)
	id := r.json(t)["keyId"]
	require.Equal(t, c.sim.Credentials()[2].KeyID, id)
	require.Contains(t, c.sim.Issued(), proof)

	var codes []int
	for range 4 {
		codes = append(codes, c.assert(young.assertion(t, c.sim, nil)).code(t))
	}
	require.Equal(t, []int{700027, 0, 700027, 0}, codes)

	again := c.application(http.MethodPost, token, c.byAppID("/addKey"), keyRequest(young, c.proof(young, nil)))
	require.Equal(t, http.StatusBadRequest, again.status)

	remove := func() result {
		return c.application(http.MethodPost, token, c.byAppID("/removeKey"),
			map[string]any{"keyId": c.sim.Credentials()[1].KeyID, "proof": c.proof(young, nil)})
	}
	require.Equal(t, http.StatusNoContent, remove().status)
	require.Len(t, c.sim.Credentials(), 2)
	require.Equal(t, 700027, c.assert(old.assertion(t, c.sim, nil)).code(t))
	unknown := c.application(http.MethodPost, token, c.byAppID("/removeKey"), map[string]any{"keyId": "x", "proof": c.proof(young, nil)})
	require.Equal(t, http.StatusBadRequest, unknown.status)
	require.Equal(t, graphtest.Calls{2, 1, 2}, c.sim.Calls(graphtest.AddKey))
	require.Equal(t, graphtest.Calls{2, 1, 2}, c.sim.Calls(graphtest.RemoveKey))
}

func TestProofRefused(t *testing.T) {
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy))
	root := newChain(t, "authority")
	c.sim.Update(graphtest.WithSubjectName(root.public(), "vault.example"))
	good, expired := c.registered("vault"), c.expired()
	young := unregistered(t, "stranger")
	token := c.token()
	claim := func(name string, value any) func(*jwt.Token, jwt.MapClaims) {
		return func(_ *jwt.Token, claims jwt.MapClaims) { claims[name] = value }
	}
	named := root.issue(t, "vault.example")
	for name, proof := range map[string]string{
		"none":              "",
		"by the new one":    c.proof(young, nil),
		"by an expired one": c.proof(expired, nil),
		"by an unregistered": c.proof(named, func(token *jwt.Token, _ jwt.MapClaims) {
			token.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(named.cert.Raw)}
		}),
		"client id as issuer":  c.proof(good, claim("iss", c.sim.App().ClientID)),
		"principal as issuer":  c.proof(good, claim("iss", claimsIn(t, token)["oid"])),
		"Graph as audience":    c.proof(good, claim("aud", "https://graph.microsoft.com")),
		"no start":             c.proof(good, claim("nbf", nil)),
		"no end":               c.proof(good, claim("exp", nil)),
		"eleven minutes":       c.proof(good, claim("exp", time.Now().Add(11*time.Minute).Unix())),
		"expired":              c.proof(good, claim("exp", time.Now().Add(-6*time.Minute).Unix())),
		"not yet":              c.proof(good, claim("nbf", time.Now().Add(6*time.Minute).Unix())),
		"with another's name":  c.proof(pair{good.cert, young.key}, nil),
		"with a symmetric key": c.proof(good, hs256),
	} {
		t.Run(name, func(t *testing.T) {
			for path, body := range map[string]any{
				"/addKey": keyRequest(young, proof), "/removeKey": map[string]any{"keyId": "x", "proof": proof},
			} {
				r := c.application(http.MethodPost, token, c.byAppID(path), body)
				require.Equal(t, http.StatusUnauthorized, r.status, r.body)
				require.Equal(t, "Authentication_MissingOrMalformed", r.graphCode(t))
			}
		})
	}
	require.Zero(t, c.sim.Calls(graphtest.AddKey).Performed)
}

func TestAddKeyRefused(t *testing.T) {
	c := newTester(t)
	good, young := c.registered("vault"), unregistered(t, "stranger")
	expired := c.expired()
	require.True(t, c.sim.RemoveInPortal(c.sim.Credentials()[2].KeyID))
	token := c.token()
	set := func(field, value string) func(map[string]any) {
		return func(key map[string]any) { key[field] = value }
	}
	for name, change := range map[string]func(map[string]any){
		"type":    set("type", "X509CertAndPassword"),
		"usage":   set("usage", "Sign"),
		"base64":  set("key", "!"),
		"no cert": set("key", "AAAA"),
		"expired": set("key", base64.StdEncoding.EncodeToString(expired.cert.Raw)),
		"not RSA": set("key", base64.StdEncoding.EncodeToString(parseCertificate(t, ecCertificate(t)).Raw)),
	} {
		request := keyRequest(young, c.proof(good, nil))
		change(request["keyCredential"].(map[string]any))
		r := c.application(http.MethodPost, token, c.byAppID("/addKey"), request)
		require.Equal(t, http.StatusBadRequest, r.status, name)
	}
	for _, action := range []string{"/addKey", "/removeKey"} {
		require.Equal(t, http.StatusBadRequest, c.application(http.MethodPost, token, c.byAppID(action), nil).status)
	}
	c.sim.Update(graphtest.WithMaxCredentialLifetime(time.Hour))
	r := c.application(http.MethodPost, token, c.byAppID("/addKey"), keyRequest(young, c.proof(good, nil)))
	require.Equal(t, "CredentialInvalidLifetimeAsPerAppPolicy", r.graphCode(t))
	require.Len(t, c.sim.Credentials(), 2)

	identity, err := newIdentityToken(t, c.sim)
	require.NoError(t, err)
	r = c.application(http.MethodPost, identity, c.byAppID("/addKey"), keyRequest(young, c.proof(good, nil)))
	require.Equal(t, http.StatusForbidden, r.status, "a managed identity is not this application")
}

func TestRemoveInPortal(t *testing.T) {
	c := newTester(t)
	p := c.registered("vault")
	for _, credential := range c.sim.Credentials() {
		require.True(t, c.sim.RemoveInPortal(credential.KeyID))
		require.False(t, c.sim.RemoveInPortal(credential.KeyID))
	}
	require.Empty(t, c.sim.Credentials())
	require.Equal(t, 700027, c.assert(p.assertion(t, c.sim, nil)).code(t))
	r, err := c.signIn(c.goodForm())
	require.NoError(t, err)
	require.Equal(t, 7000215, r.code(t))
}
