// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const instanceDiscovery = "/common/discovery/instance"

// cloudBehindAProxy returns a client that knows a cloud by nothing but its name, and reaches
// its real hosts through a proxy that plays them. discover answers the instance discovery.
func cloudBehindAProxy(t *testing.T, cloud Cloud, discover http.HandlerFunc) (*graphtest.Simulator, *forwardProxy, *Client) {
	t.Helper()
	login, graphHost := strings.TrimPrefix(cloud.AuthorityHost, "https://"), strings.TrimPrefix(cloud.GraphRoot, "https://")
	sim := graphtest.Start(t, graphtest.WithAudience(cloud.GraphRoot))
	ca := newCA(t, nil)
	cert := ca.server(t, func(c *x509.Certificate) { c.DNSNames = []string{login, graphHost} })
	mux := http.NewServeMux()
	mux.HandleFunc(instanceDiscovery, discover)
	mux.Handle("/", sim.Handler())
	proxy, at := startProxy(t, listen(t, &tls.Config{Certificates: []tls.Certificate{cert}}, mux))
	useProxy(t, at.String(), "")
	client, waited := simulated(t, sim, func(c *Config) {
		c.Cloud, c.GraphEndpoint, c.AuthorityHost, c.CACertificates = cloud, "", "", ca.pem()
	})
	t.Cleanup(func() { require.Empty(t, waited.All, "nothing had to be repeated") })
	return sim, proxy, client
}

// likeEntra answers the instance discovery as Entra does, for one family of hosts.
func likeEntra(hosts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		authority := strings.TrimSuffix(r.URL.Query().Get("authorization_endpoint"), "/oauth2/v2.0/authorize")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"tenant_discovery_endpoint": authority + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": hosts[0], "preferred_cache": hosts[0], "aliases": hosts}},
		})
	}
}

// TestSignInOfEachCloud: without an authority host of its own, a client signs in at its
// cloud's hosts and at no other, whatever becomes of the instance discovery.
func TestSignInOfEachCloud(t *testing.T) {
	public := likeEntra("login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net")
	government := likeEntra("login.microsoftonline.us", "login.usgovcloudapi.net")
	for name, discover := range map[string]func(Cloud) http.HandlerFunc{
		"real": func(c Cloud) http.HandlerFunc {
			if c.Name == AzurePublicCloud {
				return public
			}
			return government
		},
		"not found": func(Cloud) http.HandlerFunc { return http.NotFound },
		"refused": func(Cloud) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusForbidden) }
		},
		"refused by Entra": func(Cloud) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = w.Write([]byte(`{"error":"invalid_request","error_description":"AADSTS90014: The required field is missing."}`))
			}
		},
		"broken": func(Cloud) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) }
		},
		"a page": func(Cloud) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }
		},
		"a broken connection": func(Cloud) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		},
	} {
		for _, cloud := range clouds {
			t.Run(name+", "+cloud.Name, func(t *testing.T) {
				sim, proxy, client := cloudBehindAProxy(t, cloud, discover(cloud))
				key, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
				require.NoError(t, err)
				require.True(t, sim.CanRegister(key))
				_, _, err = client.DeploymentAccessKey(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, sim.Calls(graphtest.Token).Started)

				slices.Sort(proxy.tunnels)
				hosts := slices.Compact(proxy.tunnels)
				for i := range hosts {
					hosts[i] = "https://" + strings.TrimSuffix(hosts[i], ":443")
				}
				want := []string{cloud.AuthorityHost, cloud.GraphRoot}
				slices.Sort(want)
				require.Equal(t, want, hosts)
			})
		}
	}
}

// TestASlowInstanceDiscovery: it delays the sign-in, which belongs to no caller: one whose
// time is up leaves, and the next gets the token of the same sign-in.
func TestASlowInstanceDiscovery(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	inTheEnd := likeEntra("login.microsoftonline.com")
	sim, _, client := cloudBehindAProxy(t, clouds[0], func(w http.ResponseWriter, r *http.Request) {
		close(arrived) // panics if it is asked twice
		<-release
		inTheEnd(w, r)
	})
	hasty, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- client.SignIn(hasty) }()
	<-arrived
	leave()
	require.Equal(t, &Error{Op: OpSignIn, Kind: Timeout, Reason: "the caller did not wait for the answer"}, failed(t, <-left))

	patient := make(chan error, 1)
	joined := make(chan struct{})
	go func() { patient <- client.SignIn(joiner{t.Context(), func() { closeOnce(joined) }}) }()
	<-joined
	close(release)
	require.NoError(t, <-patient)
	require.Equal(t, 1, sim.Calls(graphtest.Token).Started)
}

// TestAnInstanceDiscoveryWithoutEnd: the sign-in ends with its own time.
func TestAnInstanceDiscoveryWithoutEnd(t *testing.T) {
	_, _, client := cloudBehindAProxy(t, clouds[1], func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := client.session.Load().issuer(ctx, "") // as a sign-in does with 15 s
	require.Equal(t, &Error{Kind: Timeout, Reason: reasonNoAnswer}, failed(t, err))
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
