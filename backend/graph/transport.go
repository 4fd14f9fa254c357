// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/http/httpproxy"
)

// maxBodyBytes is far above any answer of Entra or of these Graph calls. Without it
// MSAL would read for as long as the other side sends.
const maxBodyBytes = 1 << 20

// newHTTPClient returns the client that MSAL and the Graph calls share, which trusts extra as
// well, or else a local one for a managed identity's tokens.
func newHTTPClient(userAgent string, extra []*x509.Certificate, local bool) *http.Client {
	next := sync.OnceValue(func() http.RoundTripper { return newTransport(certPool(extra), local) })
	return &http.Client{
		Transport: &exchange{next: next, userAgent: userAgent, local: local},
		// It limits one exchange, from dialling to the last byte of the answer, whatever the
		// caller allows.
		Timeout: 30 * time.Second,
		// A redirect would send the token, or the client secret, to an address that is
		// not configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// newTransport returns a transport that makes a new HTTP/1.1 connection for each
// request. Calls are minutes apart, so a pool would save next to nothing. It would cost
// certainty: net/http repeats requests on pooled connections, over HTTP/2 even a POST,
// after some errors of the other side. And if the other side has just closed the
// connection, the client cannot know whether a request arrived.
func newTransport(roots *x509.CertPool, local bool) *http.Transport {
	transport := &http.Transport{
		OnProxyConnectResponse: checkTunnel,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    roots,
			// Lets new connections resume TLS sessions and skip the full handshake.
			ClientSessionCache: tls.NewLRUClientSessionCache(0),
		},
		// Generous for a reachable host, and time is left to report an unreachable one while
		// the caller still waits.
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		DisableKeepAlives:      true,
	}
	if !local {
		transport.Proxy = proxyFromEnvironment()
	}
	return transport
}

// checkTunnel replaces net/http's own check, whose error quotes what the proxy sent.
func checkTunnel(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return &Error{Kind: Refused, Reason: "the proxy demands authentication (HTTP 407): set HTTPS_PROXY in the plugin's environment to http://user:password@host:port; only Basic authentication is supported"}
	}
	return &Error{Kind: Unavailable, Reason: fmt.Sprintf("the proxy refused to connect to the host (HTTP %d)", answer.StatusCode)}
}

// proxyFromEnvironment is like http.ProxyFromEnvironment, which connects without a proxy if
// HTTPS_PROXY is malformed, and does not say so.
func proxyFromEnvironment() func(*http.Request) (*url.URL, error) {
	env := httpproxy.FromEnvironment()
	at, _ := (&httpproxy.Config{HTTPSProxy: env.HTTPSProxy}).ProxyFunc()(&url.URL{Scheme: "https", Host: "a.test"})
	malformed := env.HTTPSProxy != "" && (at == nil || at.Hostname() == "" || strings.HasSuffix(at.Host, ":"))
	if malformed {
		env.HTTPSProxy = "malformed" // any address: it matters only for which hosts NO_PROXY excepts
	}
	find := env.ProxyFunc()
	return func(req *http.Request) (*url.URL, error) {
		at, err := find(req.URL)
		if at != nil && malformed {
			return nil, &Error{Kind: Refused, Reason: "HTTPS_PROXY in the plugin's environment is malformed: write it as http://proxy.example.com:8080, and percent-encode special characters in a user or password"}
		}
		return at, err
	}
}

// certPool returns the system's certificates and those of extra, or nil, which means the
// system's, if there are none in extra.
func certPool(extra []*x509.Certificate) *x509.CertPool {
	if len(extra) == 0 {
		return nil
	}
	system, _ := x509.SystemCertPool()
	pool := cmp.Or(system, x509.NewCertPool()) // without the system's, the configured ones still count
	for _, cert := range extra {
		pool.AddCert(cert)
	}
	return pool
}

// exchange enforces what every request needs, whether MSAL's or this package's: https,
// a user agent, a log line and a limit on the size of the answer.
type exchange struct {
	// next makes the transport for the first request: it takes tens of milliseconds to read
	// the system's certificates, and most requests of Vault need no call to Microsoft.
	next      func() http.RoundTripper
	userAgent string
	// local is set for the tokens of a managed identity. They come from the machine itself or
	// its host, mostly without TLS. A proxy must not take part: it would get a token of its
	// own machine, or see ours.
	local bool
}

// RoundTrip implements http.RoundTripper. The log line says how the exchange went, with ids
// and never a secret. It goes to the logger that the context carries, and lacks the error's
// text: the caller reports the failure.
func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	// A discovery document says where to send the client secret: it must not be http.
	if req.URL.Scheme != "https" && !x.local {
		return nil, &Error{Kind: Refused, Reason: "an address without https was refused"}
	}
	req = req.Clone(req.Context()) // a RoundTripper must not change the caller's
	req.Header.Set("User-Agent", x.userAgent)
	start := time.Now()
	resp, err := x.next().RoundTrip(req)
	args := []any{
		"method", req.Method, "host", req.URL.Host, "path", req.URL.Path,
		"client_request_id", req.Header.Get(headerClientRequestID), "duration_ms", time.Since(start).Milliseconds(),
	}
	if err != nil {
		hclog.FromContext(req.Context()).Debug("no answer from Microsoft", args...)
		return nil, err
	}
	hclog.FromContext(req.Context()).Debug("answer from Microsoft", append(args, "status", resp.StatusCode, "graph_request_id", requestID(resp.Header))...)
	if x.local && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		_ = resp.Body.Close() // unread: MSAL would report neither the body nor always the status
		return nil, answerError(resp)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBodyBytes)
	return resp, nil
}
