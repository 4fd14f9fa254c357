// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// tester sends plain requests to a simulator: no token cache, no retries, no redirects.
type tester struct {
	t    *testing.T
	sim  *graphtest.Simulator
	http *http.Client
}

func newTester(t *testing.T, opts ...graphtest.Option) *tester {
	t.Helper()
	sim := graphtest.Start(t, opts...)
	return &tester{t: t, sim: sim, http: newHTTPClient(t, sim)}
}

// newHTTPClient returns a client that trusts the simulator and does not follow redirects.
// It makes a connection per request, so the transport does not repeat a GET.
func newHTTPClient(t *testing.T, sim *graphtest.Simulator) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(sim.CACertificate())))
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// result is an answer with its whole body.
type result struct {
	status int
	header http.Header
	body   string
}

func (r result) json(t *testing.T) map[string]any {
	t.Helper()
	var body map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &body), r.body)
	return body
}

// key finds the key in an answer of any shape.
func (r result) key(t *testing.T) string {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, r.body)
	body := r.json(t)
	if wrapped, ok := body["value"].(map[string]any); ok {
		body = wrapped
	}
	for _, field := range []string{"deploymentAccessKey", "sensorDeploymentAccessKey"} {
		if key, ok := body[field].(string); ok {
			return key
		}
	}
	require.Fail(t, "no key in the answer")
	return ""
}

// graphCode returns the code in Graph's error.
func (r result) graphCode(t *testing.T) string {
	t.Helper()
	detail, ok := r.json(t)["error"].(map[string]any)
	require.True(t, ok, r.body)
	code, _ := detail["code"].(string)
	return code
}

func (c *tester) do(ctx context.Context, method, path, body string, header http.Header) (result, error) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, c.sim.URL()+path, strings.NewReader(body))
	require.NoError(c.t, err)
	req.Header = header
	resp, err := c.http.Do(req)
	if err != nil {
		return result{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return result{resp.StatusCode, resp.Header, string(text)}, err
}

// signIn posts a form to the token endpoint.
func (c *tester) signIn(form url.Values) (result, error) {
	c.t.Helper()
	return c.do(c.t.Context(), http.MethodPost, "/"+c.sim.App().TenantID+"/oauth2/v2.0/token", form.Encode(),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
}

// goodForm returns a form that the token endpoint accepts.
func (c *tester) goodForm() url.Values {
	app := c.sim.App()
	return url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {app.ClientID},
		"client_secret": {app.ClientSecret},
		"scope":         {graphScope},
	}
}

func (c *tester) token() string {
	c.t.Helper()
	return c.tokenFor(c.goodForm())
}

// capableToken returns the token of a client that understands claims challenges, requested
// with claims if they are not empty.
func (c *tester) capableToken(claims string) string {
	c.t.Helper()
	const declaration = `"xms_cc":{"values":["cp1"]}`
	form := c.goodForm()
	form.Set("claims", `{"access_token":{`+declaration+`}}`)
	if claims != "" {
		form.Set("claims", strings.Replace(claims, `{"access_token":{`, `{"access_token":{`+declaration+`,`, 1))
	}
	return c.tokenFor(form)
}

func (c *tester) tokenFor(form url.Values) string {
	c.t.Helper()
	r, err := c.signIn(form)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, r.status, r.body)
	token, ok := r.json(c.t)["access_token"].(string)
	require.True(c.t, ok)
	return token
}

const sensors = "/beta/security/identities/sensors/"

// graph calls the beta version of Graph with a token.
func (c *tester) graph(ctx context.Context, op graphtest.Operation, token string) (result, error) {
	c.t.Helper()
	method, path, _ := strings.Cut(map[graphtest.Operation]string{
		graphtest.Regenerate: "POST " + sensors + "regenerateDeploymentAccessKey",
		graphtest.Get:        "GET " + sensors + "getDeploymentAccessKey",
		graphtest.Package:    "GET " + sensors + "getDeploymentPackageUri",
	}[op], " ")
	return c.do(ctx, method, path, "", http.Header{"Authorization": {"Bearer " + token}})
}

// call is graph for a call that must be answered.
func (c *tester) call(op graphtest.Operation, token string) result {
	c.t.Helper()
	r, err := c.graph(c.t.Context(), op, token)
	require.NoError(c.t, err)
	return r
}

// register registers a sensor with a key and returns the status.
func (c *tester) register(key string) int {
	c.t.Helper()
	body, err := json.Marshal(map[string]string{"access_key": key})
	require.NoError(c.t, err)
	r, err := c.do(c.t.Context(), http.MethodPost, "/sensors/register", string(body), http.Header{})
	require.NoError(c.t, err)
	return r.status
}

// wait waits until the counts satisfy a condition. Only a failing test reaches the
// deadline.
func (c *tester) wait(op graphtest.Operation, condition func(graphtest.Calls) bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(c.t, c.sim.Wait(ctx, op, condition))
}
