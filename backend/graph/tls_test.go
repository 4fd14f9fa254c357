// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testCA signs certificates for test servers.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T, change func(*x509.Certificate)) testCA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the test's CA"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(template)
	}
	return testCA{}.sign(t, template)
}

// sign returns a certificate with its key, signed by the CA, or by itself.
func (ca testCA) sign(t *testing.T, template *x509.Certificate) testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	if ca.cert == nil {
		ca = testCA{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return testCA{cert, key}
}

// server returns the certificate of a server.
func (ca testCA) server(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	signed := ca.sign(t, template)
	return tls.Certificate{Certificate: [][]byte{signed.cert.Raw, ca.cert.Raw}, PrivateKey: signed.key}
}

func (ca testCA) pem() string { return encodePEM("CERTIFICATE", ca.cert.Raw) }

// listen starts an https server and returns its URL.
func listen(t *testing.T, cfg *tls.Config, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = hushed()
	server.TLS = cfg
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// oldServer answers any ClientHello with TLS 1.0, as servers do that know nothing newer.
// Go's own would send an alert.
func oldServer(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			hello := make([]byte, 5)
			if _, err := io.ReadFull(conn, hello); err == nil {
				_, _ = io.CopyN(io.Discard, conn, int64(hello[3])<<8|int64(hello[4]))
				// A record with a ServerHello: version, random, no session, a cipher suite, no compression.
				_, _ = io.WriteString(conn, "\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01"+strings.Repeat("r", 32)+"\x00\x00\x2f\x00")
				_, _ = conn.Read(hello) // the client's alert
			}
			_ = conn.Close()
		}
	}()
	return "https://" + ln.Addr().String()
}

// brokenTLS are servers to which no TLS connection comes about.
func brokenTLS(t *testing.T) (ca testCA, servers map[string]struct{ url, reason string }) {
	ca, other := newCA(t, nil), newCA(t, func(c *x509.Certificate) {
		c.Subject.CommonName = "evil\x1b[31m\u202e" + strings.Repeat("x", 500)
	})
	narrow := ca.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "narrow"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomains: []string{"example.com"}, ExcludedIPRanges: []*net.IPNet{{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}},
	})
	clients := ca.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(4), Subject: pkix.Name{CommonName: "clients"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	yesterday, tomorrow := time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	text := func(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05Z") }
	with := func(ca testCA, change func(*x509.Certificate)) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{ca.server(t, change)}}
	}
	good := with(ca, nil)
	configured := func(change func(*tls.Config)) *tls.Config {
		cfg := good.Clone()
		change(cfg)
		return cfg
	}
	const (
		wanted  = " demands a TLS client certificate, and the engine presents none: exempt the engine from that"
		failure = " refused the TLS handshake: it demands a client certificate, and the engine presents none, or it supports none of Go's cipher suites"
	)
	servers = map[string]struct{ url, reason string }{"TLS 1.0": {oldServer(t), " does not speak TLS 1.2 or later"}}
	rekeyed := newCA(t, nil) // it has the name of the one that is trusted
	var signedWithSHA1 *tls.Config
	fips140.WithoutEnforcement(func() {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "old"}, NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, SignatureAlgorithm: x509.ECDSAWithSHA1,
		}, ca.cert, key.Public(), ca.key)
		require.NoError(t, err)
		signedWithSHA1 = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	})
	for name, test := range map[string]struct {
		cfg    *tls.Config
		reason string
	}{
		"another key of the issuer": {with(rekeyed, nil), "'s certificate is not trusted: a trusted certificate has the name of its issuer, and another key"},
		"SHA-1":                     {signedWithSHA1, "'s certificate is signed with an algorithm that is no longer accepted, such as SHA-1: have it reissued"},
		"expired": {
			with(ca, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = yesterday.Add(-time.Hour), yesterday }),
			"'s certificate expired on " + text(yesterday) + ": have it renewed, or check the clock of this machine",
		},
		"not yet valid": {
			with(ca, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = tomorrow, tomorrow.Add(time.Hour) }),
			"'s certificate is not valid before " + text(tomorrow) + ": check the clock of this machine",
		},
		"wrong usage": {
			with(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			"'s certificate may not be used for servers: have it reissued with the extended key usage serverAuth",
		},
		"wrong usage of the issuer": {
			with(clients, nil),
			"'s certificate may not be used for servers: have it reissued with the extended key usage serverAuth",
		},
		"no alternative name": {
			with(ca, func(c *x509.Certificate) { c.IPAddresses = nil }),
			"'s certificate names no host in its subject alternative names, and its common name does not count: have it reissued",
		},
		"another name": {with(ca, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"a.test"} }), "'s certificate is for another host name"},
		"a name that its issuer may not vouch for": {with(narrow, nil), "'s certificate violates a rule of X.509, or one of its issuers does"},
		"untrusted": {with(other, nil), `'s certificate is not trusted: this machine does not know its issuer "evil\x1b[31m\u202e` + strings.Repeat("x", 100-len("evil\x1b[31m\u202e")) +
			`"; if that belongs to your proxy or private endpoint, set ca_certificate, or add it to the machine's trusted certificates`},
		"TLS 1.1":                     {configured(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), " does not speak TLS 1.2 or later"},
		"client certificate, TLS 1.2": {configured(func(c *tls.Config) { c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert }), failure},
		"client certificate, TLS 1.3": {configured(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), wanted},
		"no common cipher suite": {configured(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA256}
		}), failure},
		"another alert": {configured(func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("broken") }
		}), " broke off the TLS handshake"},
	} {
		url := listen(t, test.cfg, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error(name, ": a request arrived") }))
		servers[name] = struct{ url, reason string }{url, test.reason}
	}
	return ca, servers
}

// TestWhyTLSFails: each cause has its sentence, whether Entra, Graph or the proxy presents
// the certificate, and ca_certificate is named only where it helps.
func TestWhyTLSFails(t *testing.T) {
	ca, servers := brokenTLS(t)
	for name, test := range servers {
		t.Run(name, func(t *testing.T) {
			check := func(err error, op, whose string) {
				t.Helper()
				e := failed(t, err)
				require.Equal(t, []any{op, Unavailable, 0, whose + test.reason}, []any{e.Op, e.Kind, e.Status, e.Reason})
				require.Equal(t, name == "untrusted", strings.Contains(Explain(e), "ca_certificate"))
				if !strings.HasSuffix(name, "TLS 1.3") { // where the request may leave before the server's alert arrives
					require.False(t, e.MayHaveHappened())
				}
				require.Equal(t, !strings.Contains(test.reason, ": "), e.FoundNobody(), "unless its reason says what to do")
				require.NotContains(t, everythingAbout(e), "\x1b")
			}
			trusting := func(c *Config) { c.CACertificates = ca.pem() }
			_, _, err := clientOf(t, func(c *Config) { trusting(c); c.GraphEndpoint = test.url }).RegenerateDeploymentAccessKey(t.Context(), nil)
			check(err, OpRegenerate, "the server")

			client, err := New(validConfig(func(c *Config) { trusting(c); c.AuthorityHost = test.url }))
			require.NoError(t, err)
			check(client.SignIn(t.Context()), OpSignIn, "the server")

			if strings.HasSuffix(name, "TLS 1.3") {
				return // of a proxy that does not answer, the client learns only that
			}
			t.Setenv("HTTPS_PROXY", test.url)
			client, err = New(validConfig(trusting))
			require.NoError(t, err)
			check(client.SignIn(t.Context()), OpSignIn, "the proxy")
		})
	}
}

// An expired certificate is no reason to distrust the next one.
func TestCertificatesAreVerifiedAnew(t *testing.T) {
	ca := newCA(t, nil)
	current := ca.server(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Unix(1, 0) })
	url := listen(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{current}}, nil
	}},
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"deploymentAccessKey":"k"}`)) }))
	client := clientOf(t, func(c *Config) { c.CACertificates, c.GraphEndpoint = ca.pem(), url })
	_, _, err := client.DeploymentAccessKey(t.Context())
	require.Contains(t, failed(t, err).Reason, "expired on 1970-01-01T00:00:01Z")
	current = ca.server(t, nil)
	_, _, err = client.DeploymentAccessKey(t.Context())
	require.NoError(t, err)
}
