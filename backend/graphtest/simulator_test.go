// SPDX-License-Identifier: MPL-2.0

package graphtest

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
)

const graphScope = "https://graph.microsoft.com/.default"

func newMSAL(t *testing.T, sim *Simulator, opts ...confidential.Option) confidential.Client {
	t.Helper()
	app := sim.App()
	credential, err := confidential.NewCredFromSecret(app.ClientSecret)
	require.NoError(t, err)
	opts = append(opts, confidential.WithHTTPClient(newHTTPClient(t, sim)), confidential.WithInstanceDiscovery(false))
	client, err := confidential.New(sim.URL()+"/"+app.TenantID, app.ClientID, credential, opts...)
	require.NoError(t, err)
	return client
}

// The whole way with Microsoft's own library: sign-in, key, registration.
func TestMSAL(t *testing.T) {
	c := newTester(t)
	msal := newMSAL(t, c.sim)
	token, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), token.ExpiresOn, time.Minute)

	old := c.sim.Key()
	key := c.call(Regenerate, token.AccessToken).key(t)
	require.NotEqual(t, old, key)
	require.Len(t, key, 88)
	require.Equal(t, key, c.sim.Key())
	require.Equal(t, key, c.call(Get, token.AccessToken).key(t))

	require.Equal(t, http.StatusCreated, c.register(key))
	require.Equal(t, http.StatusForbidden, c.register(old))

	again, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)
	require.Equal(t, token.AccessToken, again.AccessToken, "the lifetime lets MSAL cache the token")

	for _, op := range []Operation{Discovery, Token, Regenerate, Get} {
		require.Equal(t, Calls{1, 1, 1}, c.sim.Calls(op), op)
	}
	require.Equal(t, Calls{Started: 2, Performed: 1, Answered: 2}, c.sim.Calls(Register))
	require.Equal(t, []string{c.sim.IdentityHeader(), c.sim.App().ClientSecret, old, token.AccessToken, key}, c.sim.Issued())
}

// A claims challenge makes MSAL get a new token, if its claims are passed on.
func TestMSALClaims(t *testing.T) {
	c := newTester(t)
	msal := newMSAL(t, c.sim, confidential.WithClientCapabilities([]string{"cp1"}))
	first, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)
	c.sim.Inject(Fault{Operation: Get, Times: 1, Claims: true})

	refused := c.call(Get, first.AccessToken)
	require.Equal(t, http.StatusUnauthorized, refused.status)
	claims := claimsOf(t, refused)
	require.Equal(t, http.StatusUnauthorized, c.call(Get, first.AccessToken).status, "the token stays revoked")

	second, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope}, confidential.WithClaims(claims))
	require.NoError(t, err)
	require.Equal(t, c.sim.Key(), c.call(Get, second.AccessToken).key(t))
	require.Equal(t, Calls{Started: 3, Performed: 1, Answered: 3}, c.sim.Calls(Get))
}

func TestMSALWrongSecret(t *testing.T) {
	c := newTester(t)
	msal := newMSAL(t, c.sim)
	c.sim.Update(WithApp("", "another-secret"))
	_, err := msal.AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.ErrorContains(t, err, "AADSTS7000215")
}

func TestDefaults(t *testing.T) {
	one, err := New()
	require.NoError(t, err)
	other, err := New()
	require.NoError(t, err)
	require.NotEqual(t, one.App(), other.App())
	require.NotEqual(t, one.Key(), other.Key())
	require.NotEqual(t, one.CACertificate(), other.CACertificate())
	require.NotEmpty(t, one.Key())
	require.Empty(t, one.URL())
	require.NoError(t, one.Close(), "closing what never listened")
}

func TestInvalidOptions(t *testing.T) {
	for name, opt := range map[string]Option{
		"tenant":          WithTenant(""),
		"lifetime":        WithTokenLifetime(0),
		"lifetime 1.5 s":  WithTokenLifetime(1500 * time.Millisecond),
		"shape":           WithBodyShape("round"),
		"audience":        WithAudience("/"),
		"clock":           WithClock(nil),
		"stale reads":     WithStaleReads(-1),
		"package":         WithPackage("https://host/%zz", "1"),
		"server names":    WithServerNames("not ascii: ö"),
		"certificate":     WithCertificate("none"),
		"two of them":     WithCertificate(testAuthority.pem + testAuthority.pem),
		"broken":          WithCertificate("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"certificate EC":  WithCertificate(testAuthority.pem),
		"subject name":    WithSubjectName("none", "name"),
		"propagation":     WithPropagation(1, -1),
		"listing lag":     WithListingLag(-1),
		"lifetime policy": WithMaxCredentialLifetime(-1),
		"federation":      WithFederation("issuer", "subject", "audience", testAuthority.key.Public()),
		"no issuer":       WithFederation("", "subject", "audience", &rsa.PublicKey{}),
		"no identity":     WithUserIdentities("a", ""),
		"after valid one": func(s *settings) error { s.clientID = "changed"; return WithTenant("")(s) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(opt)
			require.Error(t, err)
			sim, err := New(WithApp("app", "secret"))
			require.NoError(t, err)
			require.Panics(t, func() { sim.Update(opt) })
			require.Equal(t, "app", sim.App().ClientID)
		})
	}
}

func TestServerNames(t *testing.T) {
	sim := Start(t, WithServerNames("simulator.test"))
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
	sim.Update(WithServerNames("other.test", "192.0.2.1"))
	require.NoError(t, handshake("other.test"))
	require.NoError(t, handshake("192.0.2.1"))
	require.Error(t, handshake("simulator.test"))
}

// Close must not wait for what a fault holds, nor let it do its work.
func TestCloseWithHeldCalls(t *testing.T) {
	for name, fault := range map[string]Fault{
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
				_, err := c.graph(t.Context(), Regenerate, token)
				failed <- err
			}()
			c.wait(Regenerate, func(n Calls) bool { return n.Started == 1 })
			if fault.AfterWork {
				c.wait(Regenerate, func(n Calls) bool { return n.Performed == 1 })
			}
			before := c.sim.Key()
			require.NoError(t, c.sim.Close())
			require.Error(t, <-failed)
			require.Equal(t, before, c.sim.Key())
			require.ErrorIs(t, c.sim.Wait(t.Context(), Regenerate, func(Calls) bool { return false }), ErrClosed)
			require.NoError(t, c.sim.Close(), "closing twice")
		})
	}
}

// The handler works behind another server and names that one's host.
func TestHandler(t *testing.T) {
	sim, err := New(WithTenant("tenant"))
	require.NoError(t, err)
	recorder := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet,
		"https://login.test/tenant/v2.0/.well-known/openid-configuration", nil)
	sim.Handler().ServeHTTP(recorder, request)
	require.Equal(t, http.StatusOK, recorder.Code)
	require.Contains(t, recorder.Body.String(), `"token_endpoint":"https://login.test/tenant/oauth2/v2.0/token"`)
}

func TestListenOnAllAddresses(t *testing.T) {
	sim, err := New()
	require.NoError(t, err)
	ln, err := sim.Listen(t.Context(), ":0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	require.Regexp(t, `^https://127\.0\.0\.1:\d+$`, sim.URL())
}

func TestWaitEndsWithContext(t *testing.T) {
	sim, err := New()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = sim.Wait(ctx, Get, func(n Calls) bool { return n.Started > 0 })
	require.ErrorIs(t, err, context.Canceled)
}
