// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// forwardProxy is a proxy that tunnels every host name to one address, so only it can
// resolve the test's names.
type forwardProxy struct {
	target string

	mu      sync.Mutex
	tunnels []string // host:port, as requested
}

// startProxy returns a proxy to the host of a URL, and the proxy's own URL.
func startProxy(t *testing.T, target string) (*forwardProxy, *url.URL) {
	t.Helper()
	p := &forwardProxy{target: strings.TrimPrefix(target, "https://")}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var tunnels sync.WaitGroup
	tunnels.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			tunnels.Go(func() { p.serve(t, conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		tunnels.Wait()
	})
	return p, &url.URL{Scheme: "http", Host: ln.Addr().String()}
}

func (p *forwardProxy) serve(t *testing.T, client net.Conn) {
	defer func() { _ = client.Close() }()
	in := bufio.NewReader(client)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		t.Errorf("the proxy expected a CONNECT request: %v", err)
		return
	}
	p.mu.Lock()
	p.tunnels = append(p.tunnels, req.Host)
	p.mu.Unlock()
	server, err := (&net.Dialer{}).DialContext(req.Context(), "tcp", p.target)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		t.Error(err)
	}
	go func() {
		_, _ = io.Copy(server, in)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// useProxy sets what the plugin's environment says of proxies.
func useProxy(t *testing.T, https, except string) {
	t.Helper()
	for name, value := range map[string]string{"HTTPS_PROXY": https, "https_proxy": "", "NO_PROXY": except, "no_proxy": ""} {
		t.Setenv(name, value)
	}
}

// TestEverythingGoesThroughTheProxy: only the proxy can resolve the host names.
func TestEverythingGoesThroughTheProxy(t *testing.T) {
	const login, graphHost = "login.mdi.test", "graph.mdi.test"
	sim := graphtest.Start(t, graphtest.WithServerNames(login, graphHost))
	proxy, at := startProxy(t, sim.URL())
	useProxy(t, at.String(), "")
	client, _ := simulated(t, sim, func(c *Config) {
		c.AuthorityHost, c.GraphEndpoint = "https://"+login, "https://"+graphHost
	})

	key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
	require.True(t, client.Probe(t.Context()))
	require.Equal(t, []string{login + ":443", login + ":443", graphHost + ":443", graphHost + ":443"}, proxy.tunnels,
		"discovery, token, key, probe")
}

// TestProxiesThatRefuse: what the proxy has answered is said by its status, and by nothing
// else of it.
func TestProxiesThatRefuse(t *testing.T) {
	status := http.StatusOK
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Error("a request that is no CONNECT")
		}
		w.Header().Set("Proxy-Authenticate", `Negotiate realm="hunter2"`)
		w.WriteHeader(status)
		_, _ = w.Write([]byte("hunter2"))
	}))
	t.Cleanup(proxy.Close)
	useProxy(t, strings.Replace(proxy.URL, "http://", "http://hunter2:hunter2@", 1), "")
	for _, status = range []int{204, 301, 400, 401, 403, 404, 407, 418, 429, 500, 502, 503, 504} {
		client, err := New(validConfig(nil))
		require.NoError(t, err)
		reason, kind := fmt.Sprintf("the proxy refused to connect to the host (HTTP %d)", status), Unavailable
		if status == http.StatusProxyAuthRequired {
			kind = Refused // until the plugin's environment is changed
			reason = "the proxy demands authentication (HTTP 407): set HTTPS_PROXY in the plugin's environment to http://user:password@host:port; only Basic authentication is supported"
		}
		err = client.SignIn(t.Context())
		require.Equal(t, &Error{Op: OpSignIn, Kind: kind, Reason: reason}, failed(t, err))
		require.NotContains(t, everythingAbout(err), "hunter2")

		fixedToken(t, client)
		_, _, err = client.RegenerateDeploymentAccessKey(t.Context(), nil)
		require.Equal(t, &Error{Op: OpRegenerate, Kind: kind, Reason: reason, unsent: true}, failed(t, err))
		require.False(t, failed(t, err).MayHaveHappened())
	}
}

// TestProxiesThatAreNotThere: nothing listens, or what listens is no proxy.
func TestProxiesThatAreNotThere(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // a SOCKS proxy that wants no password and forbids every host
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			for _, answer := range []string{"\x05\x00", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"} {
				_, _ = conn.Read(make([]byte, 512))
				_, _ = io.WriteString(conn, answer)
			}
			_ = conn.Close()
		}
	}()
	for proxy, reason := range map[string]string{
		closed.URL:                               "the proxy could not be reached",
		"http://no-such-host.test:8080":          "the proxy could not be reached",
		"socks5://" + ln.Addr().String():         "the proxy did not connect to the host",
		"https://" + closed.URL[len("http://"):]: "the proxy could not be reached",
	} {
		useProxy(t, proxy, "")
		_, _, err := clientOf(t, nil).RegenerateDeploymentAccessKey(t.Context(), nil)
		require.Equal(t, &Error{Op: OpRegenerate, Kind: Unavailable, Reason: reason, unsent: true}, failed(t, err), proxy)
	}
}

// TestMalformedProxies: net/http would connect without a proxy, or to a host named "http".
func TestMalformedProxies(t *testing.T) {
	for _, malformed := range []string{
		"http://proxy.mdi.test:8080\n", "http://us er:hunter2@proxy.mdi.test", "http://user:hunter2%ss@proxy.mdi.test", "http://user:hunter2#@proxy.mdi.test",
		"http://", ":", "http:/proxy.mdi.test:8080", "http://http://proxy.mdi.test", "http://proxy.mdi.test:port", "http://[::1", "https://user:hunter2^@proxy.mdi.test:3128",
		" http://proxy.mdi.test", "http://:8080", "\"http://proxy.mdi.test:8080\"",
	} {
		useProxy(t, malformed, "excepted.mdi.test")
		client, err := New(validConfig(nil))
		require.NoError(t, err, "it is said at the first use")
		err = client.SignIn(t.Context())
		e := failed(t, err)
		require.Equal(t, []any{OpSignIn, Refused}, []any{e.Op, e.Kind}, "%q", malformed)
		require.Contains(t, e.Reason, "HTTPS_PROXY in the plugin's environment is malformed", "%q", malformed)
		require.NotContains(t, everythingAbout(err), "hunter2")
		fixedToken(t, client)
		_, _, err = client.RegenerateDeploymentAccessKey(t.Context(), nil)
		require.Equal(t, []any{OpRegenerate, Refused, false}, []any{failed(t, err).Op, failed(t, err).Kind, failed(t, err).MayHaveHappened()})

		at, err := proxyFromEnvironment()(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://excepted.mdi.test/", http.NoBody))
		require.NoError(t, err, "where no proxy is used, it does not matter")
		require.Nil(t, at)
	}
}

// TestNoProxyIsLeftOut: whatever HTTPS_PROXY is, requests go through the host that it names,
// or fail.
func TestNoProxyIsLeftOut(t *testing.T) {
	for proxy, host := range map[string]string{
		"http://proxy.mdi.test:8080": "proxy.mdi.test:8080", "proxy.mdi.test": "proxy.mdi.test", "proxy.mdi.test:8080": "proxy.mdi.test:8080",
		"https://user:p%23ss@proxy.mdi.test/": "proxy.mdi.test", "socks5h://[::1]:1080": "[::1]:1080", "HTTP://proxy.mdi.test": "proxy.mdi.test",
	} {
		useProxy(t, proxy, "")
		at, err := proxyFromEnvironment()(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://graph.microsoft.com/", http.NoBody))
		require.NoError(t, err, proxy)
		require.Equal(t, host, at.Host)
	}
	rapid.Check(t, func(rt *rapid.T) {
		words := rapid.SliceOf(rapid.SampledFrom([]string{"http", "https", "socks5", ":", "/", "//", "@", "#", "?", "%", "%41", "[", "]", ".", "-", "a", "8080", " ", "\n", "é", "\\"}))
		text := rapid.OneOf(rapid.Map(words, func(w []string) string { return strings.Join(w, "") }), rapid.String()).
			Filter(func(s string) bool { return s != "" && !strings.Contains(s, "\x00") }).Draw(rt, "HTTPS_PROXY")
		useProxy(t, text, "")
		at, err := proxyFromEnvironment()(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://graph.microsoft.com/", http.NoBody))
		if e, ok := errors.AsType[*Error](err); ok && e.Kind == Refused {
			return
		}
		if err != nil || at == nil || at.Hostname() == "" || !strings.Contains(text, at.Hostname()) && !strings.Contains(text, "%") {
			rt.Fatalf("%q: %v, %v", text, at, err)
		}
	})
}
