// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// TestThePOSTIsNeverSentTwice uses a server that keeps connections alive and breaks a
// reused one after the work. This is when net/http automatically repeats a request that it
// considers idempotent.
func TestThePOSTIsNeverSentTwice(t *testing.T) {
	var posts atomic.Int32
	client := served(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(`{"deploymentAccessKey":"k"}`))
			return
		}
		posts.Add(1)
		panic(http.ErrAbortHandler)
	}, nil)
	for n := range int32(3) {
		_, _, err := client.DeploymentAccessKey(t.Context())
		require.NoError(t, err)
		_, _, err = client.RegenerateDeploymentAccessKey(t.Context(), nil)
		e := failed(t, err)
		require.Equal(t, reasonConnLost, e.Reason)
		require.True(t, e.MayHaveHappened())
		require.Equal(t, n+1, posts.Load())
	}
}

// TestAConnectionClosedMeanwhile: the server closes idle connections, but the client has
// none.
func TestAConnectionClosedMeanwhile(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"deploymentAccessKey":"k"}`))
	}))
	t.Cleanup(server.Close)
	client := clientOf(t, func(c *Config) { c.GraphEndpoint, c.CACertificates = server.URL, encodeCertificate(server) })
	for range 3 {
		_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
		require.NoError(t, err)
		server.CloseClientConnections()
	}
}

func TestProvenNotSent(t *testing.T) {
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	secure := httptest.NewUnstartedServer(handler)
	secure.Config.ErrorLog = hushed()
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	closed := httptest.NewServer(handler)
	closed.Close()

	for name, test := range map[string]struct {
		change func(*Config)
		reason string
	}{
		"not listening": {func(c *Config) { c.GraphEndpoint = strings.Replace(closed.URL, "http:", "https:", 1) }, "the connection was refused"},
		"untrusted":     {func(c *Config) { c.GraphEndpoint = secure.URL }, `the server's certificate is not trusted: this machine does not know its issuer "O=Acme Co"; if that belongs to your proxy or private endpoint, set ca_certificate, or add it to the machine's trusted certificates`},
		"another name": {func(c *Config) {
			c.GraphEndpoint, c.CACertificates = strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), encodeCertificate(secure)
		}, "the server's certificate is for another host name"},
		"no TLS": {func(c *Config) { c.GraphEndpoint = strings.Replace(plain.URL, "http:", "https:", 1) }, "the server does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := clientOf(t, test.change).RegenerateDeploymentAccessKey(t.Context(), nil)
			e := failed(t, err)
			require.Equal(t, &Error{Op: OpRegenerate, Kind: Unavailable, Reason: test.reason, unsent: true}, e)
			require.False(t, e.MayHaveHappened())
		})
	}
}

// TestATimeoutBeforeTheRequest: the server accepts the connection and sends nothing.
func TestATimeoutBeforeTheRequest(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := ln.Accept()
		cancel()
		if err == nil {
			<-t.Context().Done()
			_ = conn.Close()
		}
	}()
	client := clientOf(t, func(c *Config) { c.GraphEndpoint = "https://" + ln.Addr().String() })
	_, _, err = client.RegenerateDeploymentAccessKey(ctx, nil)
	e := failed(t, err)
	require.Equal(t, Timeout, e.Kind)
	require.False(t, e.MayHaveHappened())
}

// TestOurOwnTimeout: the client times out although its caller would wait.
func TestOurOwnTimeout(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	require.NoError(t, client.SignIn(t.Context()))
	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Latency: time.Hour, AfterWork: true})
	client.http.Timeout = 100 * time.Millisecond
	_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	e := failed(t, err)
	require.Equal(t, &Error{Op: OpRegenerate, Kind: Timeout, Reason: reasonNoAnswer}, e)
	require.True(t, e.MayHaveHappened())
}

func TestBodyCap(t *testing.T) {
	const frame = `{"deploymentAccessKey":"k"}`
	for extra, reason := range map[int]string{0: "", 1: "the answer is larger than 1 MiB", maxBodyBytes: "the answer is larger than 1 MiB"} {
		client := served(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(frame + strings.Repeat(" ", maxBodyBytes-len(frame)+extra)))
		}, nil)
		key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
		if reason == "" {
			require.NoError(t, err)
			require.Equal(t, "k", key)
			continue
		}
		e := failed(t, err)
		require.Equal(t, &Error{Op: OpRegenerate, Kind: Unreadable, Status: 200, Reason: reason}, e)
		require.True(t, e.MayHaveHappened())
	}
}

func TestCompressedBodiesAreCappedAfterwards(t *testing.T) {
	client := served(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(gzipped(t, strings.Repeat(" ", 2*maxBodyBytes)))
	}, nil)
	_, _, err := client.DeploymentAccessKey(t.Context())
	require.Equal(t, "the answer is larger than 1 MiB", failed(t, err).Reason)
}

func TestCertificatesAreAddedToTheSystems(t *testing.T) {
	require.Nil(t, certPool(nil), "nil means the system's certificates")

	text, _ := makeCertificate(t)
	extra, err := ParseCertificates(text)
	require.NoError(t, err)
	system, err := x509.SystemCertPool()
	require.NoError(t, err)
	system.AddCert(extra[0])
	require.True(t, certPool(extra).Equal(system))
}
