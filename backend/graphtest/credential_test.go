// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the thumbprint of the header x5t is a SHA-1
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

// registered makes a self-signed certificate and registers it.
func (c *tester) registered(name string) pair {
	c.t.Helper()
	p := unregistered(c.t, name)
	c.sim.Update(graphtest.WithCertificate(p.public()))
	return p
}

// expired makes and registers a certificate that expired an hour ago.
func (c *tester) expired() pair {
	c.t.Helper()
	template := certificateTemplate("expired")
	template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	p := newPair(c.t, template, nil)
	c.sim.Update(graphtest.WithCertificate(p.public()))
	return p
}

func unregistered(t *testing.T, name string) pair {
	t.Helper()
	return newPair(t, certificateTemplate(name), nil)
}

func (p pair) public() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

// assertion returns a valid assertion, changed by change.
func (p pair) assertion(t *testing.T, sim *graphtest.Simulator, change func(*jwt.Token, jwt.MapClaims)) string {
	t.Helper()
	app := sim.App()
	claims := jwt.MapClaims{
		"aud": sim.URL() + "/" + app.TenantID + "/oauth2/v2.0/token",
		"iss": app.ClientID, "sub": app.ClientID, "jti": uuid.NewString(),
		"nbf": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	return p.sign(t, claims, change)
}

func (p pair) sign(t *testing.T, claims jwt.MapClaims, change func(*jwt.Token, jwt.MapClaims)) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodPS256, claims)
	sum := sha256.Sum256(p.cert.Raw)
	token.Header["x5t#S256"] = base64.StdEncoding.EncodeToString(sum[:])
	if change != nil {
		change(token, claims)
	}
	var key crypto.PrivateKey = p.key
	if _, symmetric := token.Method.(*jwt.SigningMethodHMAC); symmetric {
		key = []byte("secret")
	}
	signed, err := token.SignedString(key)
	require.NoError(t, err)
	return signed
}

// assert tries to sign in with an assertion.
func (c *tester) assert(assertion string) result {
	c.t.Helper()
	form := c.goodForm()
	form.Del("client_secret")
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	r, err := c.signIn(form)
	require.NoError(c.t, err)
	return r
}

// code returns the AADSTS code of a refusal, or 0.
func (r result) code(t *testing.T) int {
	t.Helper()
	codes, ok := r.json(t)["error_codes"].([]any)
	if !ok {
		require.Equal(t, http.StatusOK, r.status, r.body)
		return 0
	}
	return int(codes[0].(float64))
}

func TestMSALCertificate(t *testing.T) {
	c := newTester(t)
	for name, options := range map[string][]confidential.Option{
		"thumbprint": nil, "chain": {confidential.WithX5C()},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.registered("vault")
			credential, err := confidential.NewCredFromCert([]*x509.Certificate{p.cert}, p.key)
			require.NoError(t, err)
			token, err := c.msal(credential, options...).AcquireTokenByCredential(t.Context(), []string{graphScope})
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, c.call(graphtest.Get, token.AccessToken).status)
		})
	}
	stranger := unregistered(t, "stranger")
	credential, err := confidential.NewCredFromCert([]*x509.Certificate{stranger.cert}, stranger.key)
	require.NoError(t, err)
	_, err = c.msal(credential).AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.ErrorContains(t, err, "AADSTS700027")
}

// msal returns MSAL's client with a credential.
func (c *tester) msal(credential confidential.Credential, opts ...confidential.Option) confidential.Client {
	c.t.Helper()
	app := c.sim.App()
	opts = append(opts, confidential.WithHTTPClient(c.http), confidential.WithInstanceDiscovery(false))
	client, err := confidential.New(c.sim.URL()+"/"+app.TenantID, app.ClientID, credential, opts...)
	require.NoError(c.t, err)
	return client
}

func TestCertificateAssertion(t *testing.T) {
	c := newTester(t)
	good, other := c.registered("vault"), c.registered("other")
	expired, stranger := c.expired(), unregistered(t, "stranger")
	claim := func(name string, value any) func(*jwt.Token, jwt.MapClaims) {
		return func(_ *jwt.Token, claims jwt.MapClaims) { claims[name] = value }
	}
	header := func(name string, value any) func(*jwt.Token, jwt.MapClaims) {
		return func(token *jwt.Token, _ jwt.MapClaims) {
			delete(token.Header, "x5t#S256")
			token.Header[name] = value
		}
	}
	chain := func(certs ...*x509.Certificate) func(*jwt.Token, jwt.MapClaims) {
		return func(token *jwt.Token, _ jwt.MapClaims) {
			var list []string
			for _, cert := range certs {
				list = append(list, base64.StdEncoding.EncodeToString(cert.Raw))
			}
			token.Header["x5c"] = list
		}
	}
	short := sha1.Sum(good.cert.Raw) //nolint:gosec // see the import
	audience := c.sim.URL() + "/" + c.sim.App().TenantID + "/v2.0"
	for name, test := range map[string]struct {
		by     pair
		change func(*jwt.Token, jwt.MapClaims)
		code   int
	}{
		"good":                {good, nil, 0},
		"RS256 with x5t":      {good, rs256(header("x5t", base64.RawURLEncoding.EncodeToString(short[:]))), 0},
		"issuer as audience":  {good, claim("aud", audience), 0},
		"with its chain":      {good, chain(good.cert), 0},
		"chain of another":    {good, chain(other.cert), 700027},
		"chain out of order":  {good, chain(other.cert, good.cert), 7000213},
		"certificate twice":   {good, chain(good.cert, good.cert), 7000213},
		"broken chain":        {stranger, header("x5c", []string{"!"}), 700027},
		"no certificates":     {stranger, header("x5c", []string{"AAAA"}), 700027},
		"not registered":      {stranger, nil, 700027},
		"chain of a stranger": {stranger, chain(stranger.cert), 700027},
		"expired certificate": {expired, nil, 700027},
		"no thumbprint":       {good, header("kid", "x"), 700027},
		"key of another":      {pair{good.cert, other.key}, nil, 700027},
		"other algorithm":     {good, func(token *jwt.Token, _ jwt.MapClaims) { token.Method = jwt.SigningMethodRS512 }, 700027},
		"symmetric key":       {good, hs256, 700027},
		"just expired":        {good, claim("exp", time.Now().Add(-4*time.Minute).Unix()), 0},
		"expired":             {good, claim("exp", time.Now().Add(-6*time.Minute).Unix()), 700024},
		"almost":              {good, claim("nbf", time.Now().Add(4*time.Minute).Unix()), 0},
		"not yet":             {good, claim("nbf", time.Now().Add(6*time.Minute).Unix()), 700024},
		"no expiry":           {good, claim("exp", nil), 50027},
		"other subject":       {good, claim("sub", "x"), 700021},
		"other audience":      {good, claim("aud", "https://login.microsoftonline.com/x/v2.0"), 700023},
		"two audiences":       {good, claim("aud", []string{audience, audience}), 700023},
		"no id":               {good, claim("jti", ""), 50013},
	} {
		t.Run(name, func(t *testing.T) {
			assertion := test.by.assertion(t, c.sim, test.change)
			r := c.assert(assertion)
			require.Equal(t, test.code, r.code(t), r.body)
			require.NotContains(t, r.body, assertion)
			require.Contains(t, c.sim.Issued(), assertion)
		})
	}
	once := good.assertion(t, c.sim, nil)
	require.Zero(t, c.assert(once).code(t))
	require.Zero(t, c.assert(once).code(t), "an assertion works until it expires")
	require.Equal(t, 50027, c.assert("no JWT").code(t))
}

func rs256(change func(*jwt.Token, jwt.MapClaims)) func(*jwt.Token, jwt.MapClaims) {
	return func(token *jwt.Token, claims jwt.MapClaims) {
		token.Method, token.Header["alg"] = jwt.SigningMethodRS256, "RS256"
		change(token, claims)
	}
}

func hs256(token *jwt.Token, _ jwt.MapClaims) {
	token.Method, token.Header["alg"] = jwt.SigningMethodHS256, "HS256"
}

func TestAssertionForm(t *testing.T) {
	c := newTester(t)
	for kind, want := range map[string]int{"": 900144, "urn:ietf:params:oauth:client-assertion-type:saml2-bearer": 90023} {
		form := c.goodForm()
		form.Del("client_secret")
		form.Set("client_assertion", "x")
		form.Set("client_assertion_type", kind)
		r, err := c.signIn(form)
		require.NoError(t, err)
		require.Equal(t, want, r.code(t))
	}
}

func TestCertificateNotYetValid(t *testing.T) {
	now := time.Now()
	c := newTester(t, graphtest.WithClock(func() time.Time { return now }))
	p := c.registered("vault")
	now = now.Add(-2 * time.Hour)
	r := c.assert(p.assertion(t, c.sim, nil))
	require.Equal(t, 700027, r.code(t))
	require.Contains(t, r.body, "not yet valid")
}

// TestOrderOfTheChain: RFC 7515, 4.1.6, wants each certificate to be followed by the one
// that certifies it; the root may be missing.
func TestOrderOfTheChain(t *testing.T) {
	c := newTester(t)
	root := newChain(t, "root")
	issuing := root.issueAuthority(t, "issuing")
	leaf, stranger := issuing.issue(t, "vault.example"), newChain(t, "stranger")
	c.sim.Update(graphtest.WithSubjectName(root.public(), "vault.example"))
	for name, test := range map[string]struct {
		chain []pair
		code  int
	}{
		"to the root":        {[]pair{leaf, issuing, root}, 0},
		"to the issuer":      {[]pair{leaf, issuing}, 0},
		"the leaf alone":     {[]pair{leaf}, 700027},
		"root first":         {[]pair{root, issuing, leaf}, 7000213},
		"issuers swapped":    {[]pair{leaf, root, issuing}, 7000213},
		"a gap":              {[]pair{leaf, root}, 7000213},
		"a stranger at last": {[]pair{leaf, issuing, root, stranger}, 7000213},
		"a stranger between": {[]pair{leaf, stranger, issuing, root}, 7000213},
	} {
		t.Run(name, func(t *testing.T) {
			assertion := leaf.assertion(t, c.sim, func(token *jwt.Token, _ jwt.MapClaims) {
				var list []string
				for _, p := range test.chain {
					list = append(list, base64.StdEncoding.EncodeToString(p.cert.Raw))
				}
				token.Header["x5c"] = list
			})
			require.Equal(t, test.code, c.assert(assertion).code(t))
		})
	}
}

// A certificate that is trusted by subject name and issuer needs its chain and no
// registration.
func TestSubjectName(t *testing.T) {
	c := newTester(t)
	root, other := newChain(t, "authority"), newChain(t, "other authority")
	c.sim.Update(graphtest.WithSubjectName(root.public(), "vault.example"))
	for name, test := range map[string]struct {
		leaf  pair
		chain []*x509.Certificate
		code  int
	}{
		"trusted":         {root.issue(t, "vault.example"), nil, 0},
		"another name":    {root.issue(t, "vault2.example"), nil, 700027},
		"another issuer":  {other.issue(t, "vault.example"), nil, 700027},
		"issuer came too": {other.issue(t, "vault.example"), []*x509.Certificate{other.cert}, 700027},
	} {
		t.Run(name, func(t *testing.T) {
			credential, err := confidential.NewCredFromCert(append([]*x509.Certificate{test.leaf.cert}, test.chain...), test.leaf.key)
			require.NoError(t, err)
			_, err = c.msal(credential, confidential.WithX5C()).AcquireTokenByCredential(t.Context(), []string{graphScope})
			if test.code == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "AADSTS700027")
			_, err = c.msal(credential).AcquireTokenByCredential(t.Context(), []string{graphScope})
			require.ErrorContains(t, err, "AADSTS700027", "without the chain")
		})
	}
}

func TestMSALAssertion(t *testing.T) {
	c := newTester(t)
	assertion, err := c.sim.Assertion(graphtest.AssertionRequest{})
	require.NoError(t, err)
	credential := confidential.NewCredFromAssertionCallback(
		func(ctx context.Context, _ confidential.AssertionRequestOptions) (string, error) {
			return assertion, ctx.Err()
		})
	for range 2 {
		token, err := c.msal(credential).AcquireTokenByCredential(t.Context(), []string{graphScope})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, c.call(graphtest.Get, token.AccessToken).status)
	}
	require.Contains(t, c.sim.Issued(), assertion)
}

func TestFederatedAssertion(t *testing.T) {
	c := newTester(t)
	for name, test := range map[string]struct {
		request graphtest.AssertionRequest
		code    int
	}{
		"good":           {graphtest.AssertionRequest{}, 0},
		"other issuer":   {graphtest.AssertionRequest{Issuer: "https://other.test"}, 700211},
		"other subject":  {graphtest.AssertionRequest{Subject: "System:serviceaccount:vault:vault"}, 700213},
		"other audience": {graphtest.AssertionRequest{Audience: "api://azureadtokenexchange"}, 700212},
		"forged":         {graphtest.AssertionRequest{Forged: true}, 50013},
		"just expired":   {graphtest.AssertionRequest{Lifetime: -4 * time.Minute}, 0},
		"expired":        {graphtest.AssertionRequest{Lifetime: -6 * time.Minute}, 700024},
	} {
		t.Run(name, func(t *testing.T) {
			assertion, err := c.sim.Assertion(test.request)
			require.NoError(t, err)
			require.Equal(t, test.code, c.assert(assertion).code(t))
			require.Equal(t, test.code, c.assert(assertion).code(t), "it can be used again")
		})
	}
}

func TestFederationWithAnotherIssuer(t *testing.T) {
	c := newTester(t)
	p, stranger := unregistered(t, "stranger"), unregistered(t, "stranger")
	c.sim.Update(graphtest.WithFederation("https://vault.test/v1/identity/oidc/plugins", "plugin:mdi", "vault", p.key.Public()))
	claims := func() jwt.MapClaims {
		return jwt.MapClaims{
			"iss": "https://vault.test/v1/identity/oidc/plugins", "sub": "plugin:mdi", "aud": "vault",
			"exp": time.Now().Add(time.Hour).Unix(),
		}
	}
	require.Zero(t, c.assert(p.sign(t, claims(), rs256(func(*jwt.Token, jwt.MapClaims) {}))).code(t))
	require.Equal(t, 50013, c.assert(p.sign(t, claims(), nil)).code(t), "Entra takes RS256 only")
	require.Equal(t, 50013, c.assert(stranger.sign(t, claims(), rs256(func(*jwt.Token, jwt.MapClaims) {}))).code(t))
}

func TestPropagation(t *testing.T) {
	c := newTester(t, graphtest.WithRoles(graphtest.RoleOwnedBy))
	form := func() url.Values {
		form := c.goodForm()
		form.Set("client_secret", c.addPassword("new", time.Now().Add(time.Hour)).secret)
		return form
	}
	outcomes := func(form url.Values, n int) (codes []int) {
		for range n {
			r, err := c.signIn(form)
			require.NoError(t, err)
			codes = append(codes, r.code(t))
		}
		return codes
	}
	c.sim.Update(graphtest.WithPropagation(2, 1))
	require.Equal(t, []int{7000215, 7000215, 0, 7000215, 0, 0}, outcomes(form(), 6))
	c.sim.Update(graphtest.WithPropagation(0, 2, 1))
	require.Equal(t, []int{0, 7000215, 7000215, 0, 7000215, 0}, outcomes(form(), 6))
	require.Equal(t, []int{0}, outcomes(c.goodForm(), 1), "the delay is for new ones only")
	c.sim.Update(graphtest.WithPropagation())
	require.Equal(t, []int{0, 0}, outcomes(form(), 2))
}
