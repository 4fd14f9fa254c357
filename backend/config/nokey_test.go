// SPDX-License-Identifier: MPL-2.0

package config_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// Graph's answers to a read of the key, by what they say.
const (
	namesKey  = "names a key"
	noKey     = "has none: 200 without a key"
	blocked   = "a proxy's JSON"
	notFound  = "404, signed"
	proxys404 = "404, not signed"
	broken    = "500"
	forbidden = "403"
)

// graphThat starts a Graph that answers reads of the key as it is told for each version of
// the API, and returns the fields that lead there.
func (r *rig) graphThat(answers map[string]string) map[string]any {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		version := strings.Split(req.URL.Path, "/")[1]
		switch answer := answers[version]; answer {
		case namesKey:
			r.sim.Handler().ServeHTTP(w, req)
		case blocked:
			_, _ = fmt.Fprint(w, `{"message": "blocked"}`)
		case noKey:
			w.Header().Set("request-id", uuid.NewString())
			w.Header().Set("client-request-id", req.Header.Get("client-request-id"))
			_, _ = fmt.Fprint(w, `{"deploymentAccessKey": null}`)
		case proxys404:
			http.NotFound(w, req)
		default:
			status := map[string]int{notFound: 404, broken: 500, forbidden: 403}[answer]
			w.Header().Set("request-id", uuid.NewString())
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, `{"error": {"code": "ACode"}}`)
		}
	}))
	r.t.Cleanup(server.Close)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return map[string]any{config.FieldGraphEndpoint: server.URL, config.FieldCACertificate: r.sim.CACertificate() + string(certificate)}
}

// A tenant that has no key yet is verified with a warning, at either version. A 404 of this
// version alone is no such tenant's: the call is not there.
func TestATenantWithoutAKeyYet(t *testing.T) {
	all := []string{namesKey, noKey, blocked, notFound, proxys404, broken, forbidden}
	r := newRig(t)
	for this, other := range map[string]string{graph.V1: graph.Beta, graph.Beta: graph.V1} {
		for _, here := range all {
			for _, there := range all {
				if there == broken && here != notFound || here == broken && there != noKey {
					continue // each costs a second, for Graph is asked once more
				}
				t.Run(this+" "+here+", the other "+there, func(t *testing.T) {
					r.t = t
					fields := r.fields(r.graphThat(map[string]string{this: here, other: there}), map[string]any{config.FieldGraphAPIVersion: this})
					conn, err := r.store.Try(t.Context(), data(fields))
					without := here == noKey || here == notFound && there == notFound
					if here != namesKey && !without {
						var failure *config.VerificationError
						require.ErrorAs(t, err, &failure)
						require.False(t, conn.Verified)
						return
					}
					require.NoError(t, err)
					require.True(t, conn.Verified)
					require.Equal(t, without, strings.Contains(conn.Warning, "the tenant has none yet"), conn.Warning)
				})
			}
		}
	}
}

// The default is of new configurations. One that is stored keeps what it has, and one that
// was stored before there was the field has what was the default then.
func TestStoredVersionOfGraphStays(t *testing.T) {
	const none = "nothing is stored"
	for name, c := range map[string]struct{ stored, want string }{
		"v1.0":        {`"graph_api_version":"v1.0",`, graph.V1},
		"beta":        {`"graph_api_version":"beta",`, graph.Beta},
		"not there":   {``, graph.Beta},
		"a new mount": {none, graph.V1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if c.stored == none {
				require.Equal(t, c.want, r.write(r.fields()).Config.GraphAPIVersion)
				return
			}
			r.write(r.fields())
			entry, err := r.storage.Get(t.Context(), config.StorageKey)
			require.NoError(t, err)
			changed := strings.Replace(string(entry.Value), `"graph_api_version":"v1.0",`, c.stored, 1)
			require.Equal(t, c.stored == `"graph_api_version":"v1.0",`, changed == string(entry.Value))
			entry.Value = []byte(changed)
			require.NoError(t, r.storage.Put(t.Context(), entry))
			r.store.Forget()

			conn, err := r.store.Current(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.want, conn.Config.GraphAPIVersion)
			require.True(t, r.works(conn))
			r.write(map[string]any{config.FieldTTL: 60})
			require.Equal(t, c.want, r.stored().GraphAPIVersion)
		})
	}
}
