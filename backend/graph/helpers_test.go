// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// waits records how long a client would have waited between attempts.
type waits struct {
	mu  sync.Mutex
	All []time.Duration
}

func (w *waits) sleep(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.All = append(w.All, d)
	return ctx.Err()
}

// simulated returns a client of the simulator that does not sleep between attempts.
func simulated(t *testing.T, sim *graphtest.Simulator, change func(*Config)) (*Client, *waits) {
	t.Helper()
	app := sim.App()
	client, err := New(validConfig(func(c *Config) {
		c.TenantID, c.ClientID, c.Credential = app.TenantID, app.ClientID, ClientSecret(app.ClientSecret)
		c.GraphEndpoint, c.AuthorityHost, c.CACertificates = sim.URL(), sim.URL(), sim.CACertificate()
		if change != nil {
			change(c)
		}
	}))
	require.NoError(t, err)
	waited := &waits{}
	client.sleep = waited.sleep
	return client, waited
}

// sign gives an answer what Graph itself sends with each.
func sign(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("request-id", "2f7d5a44-7a0e-4f3f-8d1a-7c3a6b6c1f01")
	w.Header().Set(headerClientRequestID, r.Header.Get(headerClientRequestID))
}

// fixedToken gives a client one and the same token, for tests that are not about sign-in, and
// returns the claims that it has asked for.
func fixedToken(t *testing.T, client *Client) (claims *[]string) {
	t.Helper()
	asked := []string{}
	signInBy(t, client, func(_ context.Context, claims string) (string, error) {
		asked = append(asked, claims)
		return testToken, nil
	})
	return &asked
}

// signInBy has a client get its tokens from issue.
func signInBy(t *testing.T, client *Client, issue issuer) {
	t.Helper()
	client.newIssuer = func() (issuer, error) { return issue, nil }
	require.NoError(t, client.renew(client.session.Load(), ""))
}

const testToken = "test.access.token"

// served returns a client whose Graph is a test server with this handler.
func served(t *testing.T, handler http.HandlerFunc, change func(*Config)) *Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	return clientOf(t, func(c *Config) {
		c.GraphEndpoint = server.URL
		c.CACertificates = encodeCertificate(server)
		if change != nil {
			change(c)
		}
	})
}

// clientOf returns a client that does not sign in.
func clientOf(t *testing.T, change func(*Config)) *Client {
	t.Helper()
	client, err := New(validConfig(change))
	require.NoError(t, err)
	fixedToken(t, client)
	client.sleep = (&waits{}).sleep
	return client
}

func encodeCertificate(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// failed checks that err is an *Error that wraps nothing, and returns it.
func failed(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	require.True(t, ok, "%T: %v", err, err)
	require.NoError(t, errors.Unwrap(err))
	return e
}

// everythingAbout prints err in every way that could reveal what it contains.
func everythingAbout(err error) string {
	var b bytes.Buffer
	for ; err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(&b, "%v\n%+v\n%#v\n", err, err, err)
	}
	return b.String()
}

// requireNoSecrets fails if the text has anything that the simulator issued. Its message
// does not quote the text.
func requireNoSecrets(t *testing.T, sim *graphtest.Simulator, text string) {
	t.Helper()
	for _, secret := range sim.Issued() {
		if bytes.Contains([]byte(text), []byte(secret)) {
			t.Fatal("a secret got into an error or a log line")
		}
	}
}

// safeBuffer is a log that several goroutines can write to.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// logging returns a context whose log lines are written to out.
func logging(t *testing.T, out *safeBuffer) context.Context {
	return hclog.WithContext(t.Context(), hclog.New(&hclog.LoggerOptions{Output: out, Level: hclog.Trace}))
}

// hushed is the log of servers whose handshakes are meant to fail.
func hushed() *log.Logger { return log.New(io.Discard, "", 0) }

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// validConfig returns a valid configuration that no server answers, changed by change.
func validConfig(change func(*Config)) Config {
	cfg := Config{
		TenantID:   "2f7d5a44-7a0e-4f3f-8d1a-7c3a6b6c1f00",
		ClientID:   "9e3b8f7e-64a3-4d8a-b4a7-0f0d9f6b1c11",
		Credential: ClientSecret("a-client-secret"),
		Cloud:      clouds[0],
		APIVersion: Beta,
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// ours and theirs return certificates with keys, made once because that is slow.
var (
	ours   = sync.OnceValues(func() (string, string) { return newPair("ours") })
	theirs = sync.OnceValues(func() (string, string) { return newPair("theirs") })
)

func newPair(cn string) (cert, key string) {
	made, err := NewCertificate(cn, time.Hour, time.Now())
	if err != nil {
		panic(err)
	}
	at := strings.Index(made.PEM, "-----BEGIN RSA PRIVATE KEY-----")
	return made.PEM[:at], made.PEM[at:]
}

// makeCertificate returns a certificate and its key as PEM.
func makeCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", keyDER)
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
