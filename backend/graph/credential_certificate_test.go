// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // the header x5t is defined with it
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestSignInWithACertificate(t *testing.T) {
	cert, key := graph.Ours()
	other, _ := graph.Theirs()
	for name, text := range map[string]string{"as it comes": cert + key, "last of a chain": key + other + cert} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t, graphtest.WithCertificate(cert))
			var log graph.SafeBuffer
			client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: text} })
			got, _, err := client.RegenerateDeploymentAccessKey(graph.Logging(t, &log), nil)
			require.NoError(t, err)
			require.True(t, sim.CanRegister(got))
			require.Equal(t, 1, sim.Calls(graphtest.Token).Started)
			graph.RequireNoSecrets(t, sim, log.String())
		})
	}
}

// TestSignInByNameAndIssuer: Entra does not know the certificate, which the assertion
// contains, but knows its issuer.
func TestSignInByNameAndIssuer(t *testing.T) {
	cert, key := graph.Ours()
	sim := graphtest.Start(t, graphtest.WithSubjectName(cert, "ours"))
	client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: cert + key} })
	require.NoError(t, client.SignIn(t.Context()))
}

func TestSignInWithAnUnknownCertificate(t *testing.T) {
	cert, key := graph.Ours()
	other, _ := graph.Theirs()
	sim := graphtest.Start(t, graphtest.WithCertificate(other))
	client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: cert + key} })
	e := graph.Failed(t, client.SignIn(t.Context()))
	require.Equal(t, "AADSTS700027", e.Code)
	require.Contains(t, e.Hint(), "certificate")
	graph.RequireNoSecrets(t, sim, graph.EverythingAbout(e))
}

func TestProofOfPossession(t *testing.T) {
	cert, key := graph.Ours()
	const objectID = "a7f7c5b1-7f8c-4c4b-a2f2-6f1f6d1c9d11"
	now := time.Now().Truncate(time.Second)
	proof, err := graph.ProofOfPossession(graph.ClientCertificate{PEM: cert + key}, objectID, now)
	require.NoError(t, err)

	leaf := parsed(t, cert)
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(proof, claims, func(*jwt.Token) (any, error) { return leaf.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}))
	require.NoError(t, err)
	var sum [sha1.Size]byte
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(leaf.Raw) }) //nolint:gosec // see the import
	require.Equal(t, base64.RawURLEncoding.EncodeToString(sum[:]), token.Header["x5t"])
	require.Equal(t, jwt.MapClaims{
		"aud": "00000002-0000-0000-c000-000000000000",
		"iss": objectID,
		"sub": objectID,
		"nbf": float64(now.Unix()),
		"exp": float64(now.Unix() + 600),
	}, claims)
	require.Len(t, strings.Split(proof, "."), 3)
}
