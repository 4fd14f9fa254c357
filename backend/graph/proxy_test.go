// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

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

// TestEverythingGoesThroughTheProxy: only the proxy can resolve the host names.
func TestEverythingGoesThroughTheProxy(t *testing.T) {
	const login, graphHost = "login.mdi.test", "graph.mdi.test"
	sim := graphtest.Start(t, graphtest.WithServerNames(login, graphHost))
	proxy, at := startProxy(t, sim.URL())
	client, _ := simulated(t, sim, func(c *Config) {
		c.AuthorityHost, c.GraphEndpoint = "https://"+login, "https://"+graphHost
	})
	client.http.Transport.(*exchange).next.(*http.Transport).Proxy = http.ProxyURL(at)

	key, err := client.RegenerateDeploymentAccessKey(t.Context())
	require.NoError(t, err)
	require.True(t, sim.CanRegister(key))
	require.True(t, client.Probe(t.Context()))
	require.Equal(t, []string{login + ":443", login + ":443", graphHost + ":443", graphHost + ":443"}, proxy.tunnels,
		"discovery, token, key, probe")
}
