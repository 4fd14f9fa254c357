// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

var government, dod = cloud(graph.AzureUSGovernmentCloud), cloud(graph.AzureUSGovernmentDoDCloud)

func cloud(name string) graph.Cloud {
	found, err := graph.CloudNamed(name)
	if err != nil {
		panic(err)
	}
	return found
}

func TestNewNamesTheFieldThatIsWrong(t *testing.T) {
	_, key := graph.MakeCertificate(t)
	for name, test := range map[string]struct {
		field  string
		change func(*graph.Config)
	}{
		"no tenant":             {"tenant_id", func(c *graph.Config) { c.TenantID = "" }},
		"tenant with a path":    {"tenant_id", func(c *graph.Config) { c.TenantID = "contoso.com/../other" }},
		"tenant with a query":   {"tenant_id", func(c *graph.Config) { c.TenantID = "contoso.com?x" }},
		"tenant of dots":        {"tenant_id", func(c *graph.Config) { c.TenantID = ".." }},
		"tenant with newline":   {"tenant_id", func(c *graph.Config) { c.TenantID = "contoso.com\n" }},
		"tenant that is none":   {"tenant_id", func(c *graph.Config) { c.TenantID = "dstsv2" }},
		"no client":             {"client_id", func(c *graph.Config) { c.ClientID = "" }},
		"client with a space":   {"client_id", func(c *graph.Config) { c.ClientID = "my app" }},
		"no credential":         {"credential", func(c *graph.Config) { c.Credential = nil }},
		"empty secret":          {"client_secret", func(c *graph.Config) { c.Credential = graph.ClientSecret("") }},
		"no cloud":              {"environment", func(c *graph.Config) { c.Cloud = graph.Cloud{} }},
		"no version":            {"graph_api_version", func(c *graph.Config) { c.APIVersion = "" }},
		"unknown version":       {"graph_api_version", func(c *graph.Config) { c.APIVersion = "v2.0" }},
		"plain http":            {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "http://graph.example.com" }},
		"no scheme":             {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "graph.example.com" }},
		"no host":               {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://" }},
		"port only":             {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://:443" }},
		"user in the URL":       {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://me:hunter2@graph.example.com" }},
		"path in the URL":       {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://graph.example.com/beta" }},
		"query in the URL":      {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://graph.example.com?hunter2" }},
		"fragment in the URL":   {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://graph.example.com#" }},
		"not a URL":             {"authority_host", func(c *graph.Config) { c.AuthorityHost = "https://login.example.com:port" }},
		"authority over http":   {"authority_host", func(c *graph.Config) { c.AuthorityHost = "http://login.example.com" }},
		"authority with tenant": {"authority_host", func(c *graph.Config) { c.AuthorityHost = "https://login.example.com/hunter2" }},
		"Graph of L4":           {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://graph.microsoft.us" }},
		"Graph of L5":           {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://DoD-Graph.microsoft.us" }},
		"L4 with L5's Graph":    {"graph_endpoint", func(c *graph.Config) { c.Cloud, c.GraphEndpoint = government, "https://dod-graph.microsoft.us" }},
		"L5 with L4's Graph":    {"graph_endpoint", func(c *graph.Config) { c.Cloud, c.GraphEndpoint = dod, "https://graph.microsoft.us:443" }},
		"L4, the public Graph":  {"graph_endpoint", func(c *graph.Config) { c.Cloud, c.GraphEndpoint = government, "https://graph.microsoft.com/" }},
		"Graph in China":        {"graph_endpoint", func(c *graph.Config) { c.GraphEndpoint = "https://microsoftgraph.chinacloudapi.cn" }},
		"sign-in of L4":         {"authority_host", func(c *graph.Config) { c.AuthorityHost = "https://login.microsoftonline.us" }},
		"public sign-in in L5":  {"authority_host", func(c *graph.Config) { c.Cloud, c.AuthorityHost = dod, "https://login.microsoftonline.com" }},
		"another name of it":    {"authority_host", func(c *graph.Config) { c.Cloud, c.AuthorityHost = government, "https://login.windows.net" }},
		"sign-in in China":      {"authority_host", func(c *graph.Config) { c.AuthorityHost = "https://login.partner.microsoftonline.cn" }},
		"no PEM":                {"ca_certificate", func(c *graph.Config) { c.CACertificates = "hunter2" }},
		"a key, not a CA":       {"ca_certificate", func(c *graph.Config) { c.CACertificates = key }},
		"a broken certificate":  {"ca_certificate", func(c *graph.Config) { c.CACertificates = graph.EncodePEM("CERTIFICATE", []byte("x")) }},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := graph.New(graph.ValidConfig(test.change))
			require.Nil(t, client)
			e, ok := errors.AsType[*graph.ConfigError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, test.field, e.Field)
			require.True(t, strings.HasPrefix(e.Error(), test.field+" "), e.Error())
			require.NotContains(t, e.Error(), "hunter2")
		})
	}
}

func TestNewAccepts(t *testing.T) {
	cert, _ := graph.MakeCertificate(t)
	for name, change := range map[string]func(*graph.Config){
		"a minimum":          nil,
		"a domain as tenant": func(c *graph.Config) { c.TenantID = "contoso.onmicrosoft.com" },
		"v1.0":               func(c *graph.Config) { c.APIVersion = graph.V1 },
		"a damaged CA":       func(c *graph.Config) { c.CACertificates = cert + graph.EncodePEM("CERTIFICATE", []byte("x")) }, // stored by an earlier version
		"several CAs":        func(c *graph.Config) { c.CACertificates = "\n" + cert + "\n\n" + cert + "\n" },
		"other endpoints": func(c *graph.Config) {
			c.GraphEndpoint, c.AuthorityHost = "https://graph.example.com:8443", "https://[::1]:8443"
		},
		"the cloud's own hosts": func(c *graph.Config) {
			c.GraphEndpoint, c.AuthorityHost = "https://graph.microsoft.com", "https://login.microsoftonline.com"
		},
		"another name of its sign-in": func(c *graph.Config) { c.AuthorityHost = "https://login.windows.net" },
		"what two clouds share": func(c *graph.Config) {
			c.Cloud, c.AuthorityHost = dod, "https://login.microsoftonline.us"
		},
		"a trailing slash": func(c *graph.Config) {
			c.GraphEndpoint, c.AuthorityHost = "https://graph.example.com/", "https://login.example.com/"
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := graph.New(graph.ValidConfig(change))
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
		root, err := graph.ParseEndpoint(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, root)
	}
	for _, text := range []string{"https://", "https://:443", "http://hunter2", "HTTPS://hunter2", "https://hunter2/beta", "https://me:hunter2@host", "https://host?hunter2", "https://host#"} {
		root, err := graph.ParseEndpoint(text)
		require.ErrorContains(t, err, "root of an https endpoint", "%q", text)
		require.NotContains(t, err.Error(), "hunter2")
		require.Empty(t, root)
	}
}

func TestParseCertificates(t *testing.T) {
	cert, key := graph.MakeCertificate(t)
	for text, want := range map[string]int{"": 0, "\n": 0, cert: 1, "a remark\n" + cert + "\n\n" + cert + "another": 1} {
		certs, err := graph.ParseCertificates(text)
		require.NoError(t, err)
		require.Len(t, certs, want)
	}
	for text, want := range map[string]string{
		"hunter2":  "one or more PEM blocks",
		cert + key: "PEM block 2 is not of type CERTIFICATE",
		graph.EncodePEM("OPENSSH PRIVATE KEY", nil): "PEM block 1 is not of type CERTIFICATE",
		graph.EncodePEM("TRUSTED CERTIFICATE", nil): "convert it with openssl x509",
		utf16(cert): "is UTF-16 text",
		graph.EncodePEM("CERTIFICATE", []byte("x")): "PEM block 1 cannot be parsed as an X.509 certificate",
	} {
		_, err := graph.ParseCertificates(text)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestAHostOfAnotherCloudIsRefusedWithBothNames(t *testing.T) {
	_, err := graph.New(graph.ValidConfig(func(c *graph.Config) { c.AuthorityHost = "https://login.microsoftonline.us" }))
	for _, name := range []string{graph.AzureUSGovernmentCloud, graph.AzureUSGovernmentDoDCloud, graph.AzurePublicCloud} {
		require.ErrorContains(t, err, name)
	}
}
