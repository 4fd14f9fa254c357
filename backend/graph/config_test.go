// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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

func TestNewNamesTheFieldThatIsWrong(t *testing.T) {
	cert, key := makeCertificate(t)
	for name, test := range map[string]struct {
		field  string
		change func(*Config)
	}{
		"no tenant":             {"tenant_id", func(c *Config) { c.TenantID = "" }},
		"tenant with a path":    {"tenant_id", func(c *Config) { c.TenantID = "contoso.com/../other" }},
		"tenant with a query":   {"tenant_id", func(c *Config) { c.TenantID = "contoso.com?x" }},
		"tenant of dots":        {"tenant_id", func(c *Config) { c.TenantID = ".." }},
		"tenant with newline":   {"tenant_id", func(c *Config) { c.TenantID = "contoso.com\n" }},
		"tenant that is none":   {"tenant_id", func(c *Config) { c.TenantID = "dstsv2" }},
		"no client":             {"client_id", func(c *Config) { c.ClientID = "" }},
		"client with a space":   {"client_id", func(c *Config) { c.ClientID = "my app" }},
		"no credential":         {"credential", func(c *Config) { c.Credential = nil }},
		"empty secret":          {"client_secret", func(c *Config) { c.Credential = ClientSecret("") }},
		"no cloud":              {"environment", func(c *Config) { c.Cloud = Cloud{} }},
		"no version":            {"graph_api_version", func(c *Config) { c.APIVersion = "" }},
		"unknown version":       {"graph_api_version", func(c *Config) { c.APIVersion = "v2.0" }},
		"plain http":            {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "http://graph.example.com" }},
		"no scheme":             {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "graph.example.com" }},
		"no host":               {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://" }},
		"port only":             {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://:443" }},
		"user in the URL":       {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://me:hunter2@graph.example.com" }},
		"path in the URL":       {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://graph.example.com/beta" }},
		"query in the URL":      {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://graph.example.com?hunter2" }},
		"fragment in the URL":   {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://graph.example.com#" }},
		"not a URL":             {"authority_host", func(c *Config) { c.AuthorityHost = "https://login.example.com:port" }},
		"authority over http":   {"authority_host", func(c *Config) { c.AuthorityHost = "http://login.example.com" }},
		"authority with tenant": {"authority_host", func(c *Config) { c.AuthorityHost = "https://login.example.com/hunter2" }},
		"Graph of L4":           {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://graph.microsoft.us" }},
		"Graph of L5":           {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://DoD-Graph.microsoft.us" }},
		"L4 with L5's Graph":    {"graph_endpoint", func(c *Config) { c.Cloud, c.GraphEndpoint = clouds[1], "https://dod-graph.microsoft.us" }},
		"L5 with L4's Graph":    {"graph_endpoint", func(c *Config) { c.Cloud, c.GraphEndpoint = clouds[2], "https://graph.microsoft.us:443" }},
		"L4, the public Graph":  {"graph_endpoint", func(c *Config) { c.Cloud, c.GraphEndpoint = clouds[1], "https://graph.microsoft.com/" }},
		"Graph in China":        {"graph_endpoint", func(c *Config) { c.GraphEndpoint = "https://microsoftgraph.chinacloudapi.cn" }},
		"sign-in of L4":         {"authority_host", func(c *Config) { c.AuthorityHost = "https://login.microsoftonline.us" }},
		"public sign-in in L5":  {"authority_host", func(c *Config) { c.Cloud, c.AuthorityHost = clouds[2], "https://login.microsoftonline.com" }},
		"another name of it":    {"authority_host", func(c *Config) { c.Cloud, c.AuthorityHost = clouds[1], "https://login.windows.net" }},
		"sign-in in China":      {"authority_host", func(c *Config) { c.AuthorityHost = "https://login.partner.microsoftonline.cn" }},
		"no PEM":                {"ca_certificate", func(c *Config) { c.CACertificates = "hunter2" }},
		"PEM and more":          {"ca_certificate", func(c *Config) { c.CACertificates = cert + "hunter2" }},
		"a key, not a CA":       {"ca_certificate", func(c *Config) { c.CACertificates = cert + key }},
		"a broken certificate":  {"ca_certificate", func(c *Config) { c.CACertificates = encodePEM("CERTIFICATE", []byte("x")) }},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := New(validConfig(test.change))
			require.Nil(t, client)
			e, ok := errors.AsType[*ConfigError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, test.field, e.Field)
			require.True(t, strings.HasPrefix(e.Error(), test.field+" "), e.Error())
			require.NotContains(t, e.Error(), "hunter2")
		})
	}
}

func TestNewAccepts(t *testing.T) {
	cert, _ := makeCertificate(t)
	for name, change := range map[string]func(*Config){
		"a minimum":          nil,
		"a domain as tenant": func(c *Config) { c.TenantID = "contoso.onmicrosoft.com" },
		"v1.0":               func(c *Config) { c.APIVersion = V1 },
		"several CAs":        func(c *Config) { c.CACertificates = "\n" + cert + "\n\n" + cert + "\n" },
		"other endpoints": func(c *Config) {
			c.GraphEndpoint, c.AuthorityHost = "https://graph.example.com:8443", "https://[::1]:8443"
		},
		"the cloud's own hosts": func(c *Config) {
			c.GraphEndpoint, c.AuthorityHost = "https://graph.microsoft.com", "https://login.microsoftonline.com"
		},
		"another name of its sign-in": func(c *Config) { c.AuthorityHost = "https://login.windows.net" },
		"what two clouds share": func(c *Config) {
			c.Cloud, c.AuthorityHost = clouds[2], "https://login.microsoftonline.us"
		},
		"a trailing slash": func(c *Config) {
			c.GraphEndpoint, c.AuthorityHost = "https://graph.example.com/", "https://login.example.com/"
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(validConfig(change))
			require.NoError(t, err)
		})
	}
}

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		" / ":                            "",
		"https://graph.example.com":      "https://graph.example.com",
		"\thttps://[::1]:8443// \n":      "https://[::1]:8443",
		"https://Graph.Example.com:443/": "https://Graph.Example.com:443",
	} {
		root, err := ParseEndpoint(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, root)
	}
	for _, text := range []string{"https://", "https://:443", "http://hunter2", "HTTPS://hunter2", "https://hunter2/beta", "https://me:hunter2@host", "https://host?hunter2", "https://host#"} {
		root, err := ParseEndpoint(text)
		require.ErrorContains(t, err, "root of an https endpoint", "%q", text)
		require.NotContains(t, err.Error(), "hunter2")
		require.Empty(t, root)
	}
}

func TestParseCertificates(t *testing.T) {
	cert, key := makeCertificate(t)
	for text, want := range map[string]int{"": 0, "\n": 0, cert: 1, "a remark\n" + cert + "\n\n" + cert + "\n": 2} {
		certs, err := ParseCertificates(text)
		require.NoError(t, err)
		require.Len(t, certs, want)
	}
	for text, want := range map[string]string{
		"hunter2":                             "one or more PEM blocks",
		cert + "hunter2":                      "one or more PEM blocks",
		cert + key:                            "type CERTIFICATE",
		encodePEM("CERTIFICATE", []byte("x")): "not an X.509 certificate",
	} {
		certs, err := ParseCertificates(text)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
		require.Nil(t, certs)
	}
}

func TestCertificatesAreAddedToTheSystems(t *testing.T) {
	cert, _ := makeCertificate(t)
	none, err := certPool("")
	require.NoError(t, err)
	require.Nil(t, none, "nil means the system's certificates")

	system, err := x509.SystemCertPool()
	require.NoError(t, err)
	block, _ := pem.Decode([]byte(cert))
	parsed, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	system.AddCert(parsed)

	pool, err := certPool(cert)
	require.NoError(t, err)
	require.True(t, pool.Equal(system))
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

func TestAHostOfAnotherCloudIsRefusedWithBothNames(t *testing.T) {
	_, err := New(validConfig(func(c *Config) { c.AuthorityHost = "https://login.microsoftonline.us" }))
	for _, name := range []string{AzureUSGovernmentCloud, AzureUSGovernmentDoDCloud, AzurePublicCloud} {
		require.ErrorContains(t, err, name)
	}
}
