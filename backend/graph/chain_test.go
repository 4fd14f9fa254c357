// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (a authority) pem() string { return graph.EncodePEM("CERTIFICATE", a.cert.Raw) }

// newAuthority makes an authority with that key, or with a new one if it is nil. A nil
// issuer makes a root.
func newAuthority(t *testing.T, name string, issuer *authority, key crypto.Signer) authority {
	t.Helper()
	if key == nil {
		var err error
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{issue(t, template, issuer, key), key}
}

// issue signs a certificate with the key of an authority, or with its own.
func issue(t *testing.T, template *x509.Certificate, issuer *authority, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	var err error
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	if issuer == nil {
		issuer = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, key.Public(), issuer.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// sentChain signs in with a bundle and returns the subjects in the header x5c of the
// assertion, of which the simulator has checked the order.
func sentChain(t *testing.T, sim *graphtest.Simulator, bundle string) (names []string) {
	t.Helper()
	client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: bundle} })
	require.NoError(t, client.SignIn(t.Context()))
	for _, entry := range lastAssertion(t, sim).Header["x5c"].([]any) {
		names = append(names, parsed(t, "-----BEGIN CERTIFICATE-----\n"+entry.(string)+"\n-----END CERTIFICATE-----\n").Subject.CommonName)
	}
	return names
}

func lastAssertion(t *testing.T, sim *graphtest.Simulator) (last *jwt.Token) {
	t.Helper()
	for _, text := range sim.Issued() {
		if token, _, err := jwt.NewParser().ParseUnverified(text, jwt.MapClaims{}); err == nil && token.Header["x5c"] != nil {
			last = token
		}
	}
	require.NotNil(t, last)
	return last
}

// TestTheChainIsSentInIssuerOrder: whatever the order of the file, Entra gets the
// certificate, its issuer, and so on; what does not belong there is left out, and named.
func TestTheChainIsSentInIssuerOrder(t *testing.T) {
	_, key := graph.Ours()
	leafKey := private(t, key)
	elsewhere, sim := newAuthority(t, "elsewhere", nil, nil), graphtest.Start(t)
	rapid.Check(t, func(rt *rapid.T) {
		chain := []authority{newAuthority(t, "authority 0", nil, nil)}
		for i := range rapid.IntRange(0, 3).Draw(rt, "issuing authorities") {
			chain = append(chain, newAuthority(t, fmt.Sprint("authority ", i+1), &chain[i], nil))
		}
		depth := len(chain)
		leaf := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ours"}}, &chain[depth-1], leafKey)

		blocks, want := []string{key, graph.EncodePEM("CERTIFICATE", leaf.Raw)}, []string{"ours"}
		known := rapid.IntRange(0, depth).Draw(rt, "issuers in the file")
		for i := range known {
			blocks = append(blocks, chain[depth-1-i].pem())
			want = append(want, chain[depth-1-i].cert.Subject.CommonName)
		}
		blocks = append(blocks, blocks[1]) // twice
		strangers := map[string]string{
			"a root":                elsewhere.pem(),
			"another's leaf":        graph.EncodePEM("CERTIFICATE", issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, &elsewhere, elsewhere.key).Raw),
			"namesake of an issuer": newAuthority(t, chain[depth-1].cert.Subject.CommonName, &elsewhere, nil).pem(),
			"namesake of the leaf":  newAuthority(t, "ours", nil, nil).pem(),
		}
		names := rapid.SliceOfNDistinct(rapid.SampledFrom(keys(strangers)), 0, 2, rapid.ID[string]).Draw(rt, "strangers")
		var unsent []string
		for _, name := range names {
			blocks = append(blocks, strangers[name])
			unsent = append(unsent, fmt.Sprintf("%q", parsed(t, strangers[name]).Subject))
		}
		bundle := strings.Join(rapid.Permutation(blocks).Draw(rt, "order"), "")

		info, err := graph.ParseCertificate(bundle)
		require.NoError(rt, err)
		require.ElementsMatch(rt, unsent, info.Unsent)
		sim.Update(graphtest.WithSubjectName(chain[depth-max(known, 1)].pem(), "ours")) // the end of what is sent, or its issuer
		require.Equal(rt, want, sentChain(t, sim, bundle))
	})
}

// TestCrossSignedAuthorities allow several chains: any of them is in order, and the longest
// tells Entra most.
func TestCrossSignedAuthorities(t *testing.T) {
	_, key := graph.Ours()
	old, current := newAuthority(t, "old root", nil, nil), newAuthority(t, "root", nil, nil)
	crossed := newAuthority(t, "root", &old, current.key)
	leaf := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ours"}}, &current, private(t, key))
	sim := graphtest.Start(t, graphtest.WithSubjectName(old.pem(), "ours"))
	for _, order := range [][]authority{{current, crossed, old}, {crossed, current, old}, {old, current, crossed}, {old, crossed, current}} {
		bundle := key + graph.EncodePEM("CERTIFICATE", leaf.Raw)
		for _, a := range order {
			bundle += a.pem()
		}
		chain := sentChain(t, sim, bundle)
		require.Equal(t, "old root", chain[len(chain)-1])
	}
}

// TestABundleTakesBoundedTime: a write is refused that would take long, and what an earlier
// version stored signs in with a part of its chain.
func TestABundleTakesBoundedTime(t *testing.T) {
	_, key := graph.Ours()
	namesakes, blocks := []authority{newAuthority(t, "same", nil, nil)}, []string{}
	for len(namesakes) < 60 {
		namesakes = append(namesakes, newAuthority(t, "same", &namesakes[len(namesakes)-1], nil))
	}
	for _, a := range namesakes {
		blocks = append(blocks, a.pem())
	}
	leaf := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ours"}}, &namesakes[59], private(t, key))
	own := key + graph.EncodePEM("CERTIFICATE", leaf.Raw)
	for problem, text := range map[string]string{
		"too many certificates with the same subject": own + strings.Join(blocks, ""),
		"PEM block 501 is one too many":               own + strings.Repeat(blocks[0], 600),
	} {
		info, err := graph.ParseCertificate(text)
		requireCertificateError(t, err, problem)
		require.NotEmpty(t, info.Thumbprint)
		_, err = graph.New(graph.ValidConfig(func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: text} }))
		require.NoError(t, err)
	}
	_, err := graph.ParseCertificates(strings.Repeat(blocks[0], 500))
	require.NoError(t, err)
	_, err = graph.ParseCertificates(strings.Repeat(blocks[0], 501))
	require.ErrorContains(t, err, "PEM block 501 is one too many: keep the certificates that are needed, 500 blocks at most")
}

// TestOldSignaturesAreNoGap: authorities of long ago were signed with SHA-1, which strict
// FIPS mode forbids. What they are worth is for Entra to say.
func TestOldSignaturesAreNoGap(t *testing.T) {
	_, key := graph.Ours()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	root := newAuthority(t, "root", nil, rsaKey)
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "ours"}, SignatureAlgorithm: x509.SHA1WithRSA}
	var bundle string
	fips140.WithoutEnforcement(func() {
		bundle = root.pem() + graph.EncodePEM("CERTIFICATE", issue(t, leaf, &root, private(t, key)).Raw) + key
	})
	info, err := graph.ParseCertificate(bundle)
	require.NoError(t, err)
	require.Empty(t, info.Unsent)
}

// TestTheAssertionNamesTheCertificateBySHA256, which FIPS mode needs.
func TestTheAssertionNamesTheCertificateBySHA256(t *testing.T) {
	cert, key := graph.Ours()
	sim := graphtest.Start(t, graphtest.WithCertificate(cert))
	require.Equal(t, []string{"ours"}, sentChain(t, sim, key+cert))
	header := lastAssertion(t, sim).Header
	require.NotEmpty(t, header["x5t#S256"])
	require.NotContains(t, header, "x5t")
	require.Equal(t, "PS256", header["alg"])
}

func TestAnInvalidChainHasItsHint(t *testing.T) {
	cert, key := graph.Ours()
	sim := graphtest.Start(t, graphtest.WithCertificate(cert))
	sim.Inject(graphtest.Fault{Operation: graphtest.Token, Times: 1, Status: 401, Code: "7000213"})
	client, _ := graph.Simulated(t, sim, func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: cert + key} })
	e := graph.Failed(t, client.SignIn(t.Context()))
	require.Equal(t, "AADSTS7000213", e.Code)
	require.Contains(t, e.Hint(), "each of its issuers")
}
