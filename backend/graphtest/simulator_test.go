// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const graphScope = "https://graph.microsoft.com/.default"

func newMSAL(t *testing.T, sim *graphtest.Simulator, opts ...confidential.Option) confidential.Client {
	t.Helper()
	app := sim.App()
	credential, err := confidential.NewCredFromSecret(app.ClientSecret)
	require.NoError(t, err)
	opts = append(opts, confidential.WithHTTPClient(newHTTPClient(t, sim)), confidential.WithInstanceDiscovery(false))
	client, err := confidential.New(sim.URL()+"/"+app.TenantID, app.ClientID, credential, opts...)
	require.NoError(t, err)
	return client
}

// From sign-in to registration with Microsoft's own library.
func TestMSAL(t *testing.T) {
	c := newTester(t)
	msal := newMSAL(t, c.sim)
	token, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), token.ExpiresOn, time.Minute)

	old := c.sim.Key()
	key := c.call(graphtest.Regenerate, token.AccessToken).key(t)
	require.NotEqual(t, old, key)
	require.Len(t, key, 88)
	require.Equal(t, key, c.sim.Key())
	require.Equal(t, key, c.call(graphtest.Get, token.AccessToken).key(t))

	require.Equal(t, http.StatusCreated, c.register(key))
	require.Equal(t, http.StatusForbidden, c.register(old))

	again, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)
	require.Equal(t, token.AccessToken, again.AccessToken, "the lifetime lets MSAL cache the token")

	for _, op := range []graphtest.Operation{graphtest.Discovery, graphtest.Token, graphtest.Regenerate, graphtest.Get} {
		require.Equal(t, graphtest.Calls{1, 1, 1}, c.sim.Calls(op), op)
	}
	require.Equal(t, graphtest.Calls{Started: 2, Performed: 1, Answered: 2}, c.sim.Calls(graphtest.Register))
	require.Equal(t, []string{c.sim.IdentityHeader(), c.sim.App().ClientSecret, old, token.AccessToken, key}, c.sim.Issued())
}

// MSAL gets a new token after a claims challenge if its claims are passed on.
func TestMSALClaims(t *testing.T) {
	c := newTester(t)
	msal := newMSAL(t, c.sim, confidential.WithClientCapabilities([]string{"cp1"}))
	first, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})

	refused := c.call(graphtest.Get, first.AccessToken)
	require.Equal(t, http.StatusUnauthorized, refused.status)
	claims := claimsOf(t, refused)
	require.Equal(t, http.StatusUnauthorized, c.call(graphtest.Get, first.AccessToken).status, "the token stays revoked")

	second, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope}, confidential.WithClaims(claims))
	require.NoError(t, err)
	require.Equal(t, c.sim.Key(), c.call(graphtest.Get, second.AccessToken).key(t))
	require.Equal(t, graphtest.Calls{Started: 3, Performed: 1, Answered: 3}, c.sim.Calls(graphtest.Get))
}

func TestMSALWrongSecret(t *testing.T) {
	c := newTester(t)
	msal := newMSAL(t, c.sim)
	c.sim.Update(graphtest.WithApp("", "another-secret"))
	_, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.ErrorContains(t, err, "AADSTS7000215")
}

func TestDefaults(t *testing.T) {
	one, err := graphtest.New()
	require.NoError(t, err)
	other, err := graphtest.New()
	require.NoError(t, err)
	require.NotEqual(t, one.App(), other.App())
	require.NotEqual(t, one.Key(), other.Key())
	require.NotEqual(t, one.CACertificate(), other.CACertificate())
	require.NotEmpty(t, one.Key())
	require.Empty(t, one.URL())
	require.NoError(t, one.Close(), "closing what never listened")
}

func TestInvalidOptions(t *testing.T) {
	authority := ecCertificate(t)
	for name, opt := range map[string]graphtest.Option{
		"tenant":          graphtest.WithTenant(""),
		"lifetime":        graphtest.WithTokenLifetime(0),
		"lifetime 1.5 s":  graphtest.WithTokenLifetime(1500 * time.Millisecond),
		"shape":           graphtest.WithBodyShape("round"),
		"audience":        graphtest.WithAudience("/"),
		"clock":           graphtest.WithClock(nil),
		"stale reads":     graphtest.WithStaleReads(-1),
		"package":         graphtest.WithPackage("https://host/%zz", "1"),
		"server names":    graphtest.WithServerNames("not ascii: ö"),
		"certificate":     graphtest.WithCertificate("none"),
		"two of them":     graphtest.WithCertificate(authority + authority),
		"broken":          graphtest.WithCertificate("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"certificate EC":  graphtest.WithCertificate(authority),
		"subject name":    graphtest.WithSubjectName("none", "name"),
		"propagation":     graphtest.WithPropagation(1, -1),
		"listing lag":     graphtest.WithListingLag(-1),
		"lifetime policy": graphtest.WithMaxCredentialLifetime(-1),
		"federation":      graphtest.WithFederation("issuer", "subject", "audience", parseCertificate(t, authority).PublicKey),
		"no issuer":       graphtest.WithFederation("", "subject", "audience", &rsa.PublicKey{}),
		"no identity":     graphtest.WithUserIdentities("a", ""),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := graphtest.New(opt)
			require.Error(t, err)
			sim, err := graphtest.New(graphtest.WithApp("app", "secret"))
			require.NoError(t, err)
			require.Panics(t, func() { sim.Update(graphtest.WithApp("changed", ""), opt) })
			require.Equal(t, "app", sim.App().ClientID)
		})
	}
}

func TestServerNames(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithServerNames("simulator.test"))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(sim.CACertificate())))
	handshake := func(name string) error {
		dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: name}}
		conn, err := dialer.DialContext(t.Context(), "tcp", sim.URL()[len("https://"):])
		if err != nil {
			return err
		}
		return conn.Close()
	}
	for _, name := range []string{"127.0.0.1", "::1", "localhost", "simulator.test"} {
		require.NoError(t, handshake(name), name)
	}
	require.Error(t, handshake("other.test"))
	sim.Update(graphtest.WithServerNames("other.test", "192.0.2.1"))
	require.NoError(t, handshake("other.test"))
	require.NoError(t, handshake("192.0.2.1"))
	require.Error(t, handshake("simulator.test"))
}

// Close does not wait for held calls and does not let them do their work.
func TestCloseWithHeldCalls(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"before":   {Latency: time.Hour},
		"after":    {Latency: time.Hour, AfterWork: true},
		"stubborn": {Latency: time.Hour, Stubborn: true},
		"dropped":  {Latency: time.Hour, Stubborn: true, Lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t)
			token := c.token()
			c.sim.Inject(fault)
			failed := make(chan error, 1)
			go func() {
				_, err := c.graph(t.Context(), graphtest.Regenerate, token)
				failed <- err
			}()
			c.wait(graphtest.Regenerate, func(n graphtest.Calls) bool { return n.Started == 1 })
			if fault.AfterWork {
				c.wait(graphtest.Regenerate, func(n graphtest.Calls) bool { return n.Performed == 1 })
			}
			before := c.sim.Key()
			require.NoError(t, c.sim.Close())
			require.Error(t, <-failed)
			require.Equal(t, before, c.sim.Key())
			require.ErrorIs(t, c.sim.Wait(t.Context(), graphtest.Regenerate, func(graphtest.Calls) bool { return false }), graphtest.ErrClosed)
			require.NoError(t, c.sim.Close(), "closing twice")
		})
	}
}

// The handler works in another server and names the host of the request.
func TestHandler(t *testing.T) {
	sim, err := graphtest.New(graphtest.WithTenant("tenant"))
	require.NoError(t, err)
	recorder := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet,
		"https://login.test/tenant/v2.0/.well-known/openid-configuration", nil)
	sim.Handler().ServeHTTP(recorder, request)
	require.Equal(t, http.StatusOK, recorder.Code)
	require.Contains(t, recorder.Body.String(), `"token_endpoint":"https://login.test/tenant/oauth2/v2.0/token"`)
}

func TestListenOnAllAddresses(t *testing.T) {
	sim, err := graphtest.New()
	require.NoError(t, err)
	ln, err := sim.Listen(t.Context(), ":0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	require.Regexp(t, `^https://127\.0\.0\.1:\d+$`, sim.URL())
}

func TestWaitEndsWithContext(t *testing.T) {
	sim, err := graphtest.New()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = sim.Wait(ctx, graphtest.Get, func(n graphtest.Calls) bool { return n.Started > 0 })
	require.ErrorIs(t, err, context.Canceled)
}
