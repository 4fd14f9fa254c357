// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

func parsed(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

// private returns an RSA key that NewCertificate has made, which is PKCS#1.
func private(t *testing.T, key string) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	require.NoError(t, err)
	return private
}

// utf16 returns what arrives of a file in UTF-16, such as PowerShell's ">" makes, after the
// client has encoded it as JSON.
func utf16(text string) string {
	return "\uFFFD\uFFFD" + strings.Join(strings.Split(text, ""), "\x00") + "\x00"
}

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return graph.EncodePEM("PRIVATE KEY", der)
}

func TestParseCertificateAccepts(t *testing.T) {
	cert, key := graph.Ours()
	want, err := graph.ParseCertificate(cert + key)
	require.NoError(t, err)
	for name, text := range map[string]string{
		"key first":          key + cert,
		"PKCS#8":             pkcs8(t, private(t, key)) + cert,
		"the same one twice": cert + cert + key,
		"the same key twice": cert + key + pkcs8(t, private(t, key)),
		"with remarks":       "Bag Attributes\n  friendlyName: x\n" + cert + "subject=CN=x\n" + key + "\n\n",
		"Windows' newlines":  strings.ReplaceAll(cert+key, "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			info, err := graph.ParseCertificate(text)
			require.NoError(t, err)
			require.Equal(t, want, info)
		})
	}
}

func TestCertificateInfo(t *testing.T) {
	now := time.Now().Truncate(time.Second).UTC()
	made, err := graph.NewCertificate("vault-mdi", 90*24*time.Hour, now)
	require.NoError(t, err)
	info, err := graph.ParseCertificate(made.PEM)
	require.NoError(t, err)
	require.Equal(t, now.Add(90*24*time.Hour), info.NotAfter)
	require.Regexp(t, "^[0-9A-F]{40}$", info.Thumbprint)

	leaf := parsed(t, made.PEM)
	require.Equal(t, "CN=vault-mdi", leaf.Subject.String())
	require.Equal(t, now.Add(-5*time.Minute), leaf.NotBefore)
	require.Positive(t, leaf.SerialNumber.Sign())
	require.Equal(t, x509.SHA256WithRSA, leaf.SignatureAlgorithm)
	require.Equal(t, 2048, leaf.PublicKey.(*rsa.PublicKey).N.BitLen())
	require.NoError(t, leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature))
	require.False(t, leaf.IsCA)
}

// TestThumbprintsAreOpenSSLs compares a thumbprint with another implementation's.
func TestThumbprintsAreOpenSSLs(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	cert, key := graph.Ours()
	info, err := graph.ParseCertificate(cert + key)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "x509", "-noout", "-fingerprint", "-sha1") //nolint:gosec // found by this test
	cmd.Stdin = strings.NewReader(cert)
	out, err := cmd.Output()
	require.NoError(t, err)
	_, sum, _ := strings.Cut(strings.TrimSpace(string(out)), "=")
	require.Equal(t, info.Thumbprint, strings.ReplaceAll(sum, ":", ""))
}

func TestParseCertificateRefuses(t *testing.T) {
	cert, key := graph.Ours()
	other, otherKey := graph.Theirs()
	ecCert, ecKey := graph.MakeCertificate(t)
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(elliptical)
	require.NoError(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	var small *rsa.PrivateKey
	fips140.WithoutEnforcement(func() { small, err = rsa.GenerateKey(rand.Reader, 1024) }) //nolint:gosec // to be refused
	require.NoError(t, err)
	legacy := string(pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: []byte("x"),
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"},
	}))
	template := parsed(t, cert)
	template.SerialNumber.Add(template.SerialNumber, big.NewInt(1))
	renewed, err := x509.CreateCertificate(rand.Reader, template, template, template.PublicKey, private(t, key))
	require.NoError(t, err)

	for name, test := range map[string]struct{ text, problem string }{
		"nothing":               {"", "no certificate"},
		"UTF-16":                {utf16(cert + key), "UTF-16"},
		"no PEM":                {"hunter2", "no certificate"},
		"only a key":            {key, "no certificate"},
		"only a certificate":    {cert, "no private key"},
		"another's key":         {cert + otherKey, "belongs to"},
		"another's certificate": {other + key, "belongs to"},
		"renewed, both there":   {cert + graph.EncodePEM("CERTIFICATE", renewed) + key, "more than one certificate"},
		"PKCS#8, encrypted":     {cert + graph.EncodePEM("ENCRYPTED PRIVATE KEY", []byte("x")), "encrypted"},
		"PKCS#1, encrypted":     {cert + legacy, "encrypted"},
		"elliptic curve":        {ecCert + ecKey, "not RSA"},
		"elliptic curve, SEC1":  {cert + graph.EncodePEM("EC PRIVATE KEY", sec1), "not RSA"},
		"Edwards curve":         {cert + pkcs8(t, edwards), "not RSA"},
		"small key":             {cert + pkcs8(t, small), "2048 bits"},
		"a broken key":          {cert + graph.EncodePEM("PRIVATE KEY", []byte("hunter2")), "cannot be parsed"},
		"a broken old key":      {cert + graph.EncodePEM("RSA PRIVATE KEY", []byte("hunter2")), "cannot be parsed"},
		"a broken certificate":  {graph.EncodePEM("CERTIFICATE", []byte("hunter2")) + key, "cannot be parsed"},
		"a giant key":           {cert + graph.EncodePEM("RSA PRIVATE KEY", giantKey(t)), "cannot be parsed"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := graph.ParseCertificate(test.text)
			requireCertificateError(t, err, test.problem)
			require.Zero(t, info)
			_, err = graph.New(graph.ValidConfig(func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: test.text} }))
			requireCertificateError(t, err, test.problem)
			_, err = graph.ProofOfPossession(graph.ClientCertificate{PEM: test.text}, "x", time.Now())
			requireCertificateError(t, err, test.problem)
			_, err = graph.ClientOf(t, nil).AddKey(t.Context(), "x", test.text)
			requireCertificateError(t, err, test.problem)
		})
	}
}

// TestParseCertificateRefusesMore: New takes these, since earlier versions stored such texts.
func TestParseCertificateRefusesMore(t *testing.T) {
	cert, key := graph.Ours()
	_, otherKey := graph.Theirs()
	for name, test := range map[string]struct{ more, problem string }{
		"another key":          {otherKey, "PEM block 3 is a second private key"},
		"OpenSSH's key":        {graph.EncodePEM("OPENSSH PRIVATE KEY", []byte("hunter2")), "PEM block 3 is a private key in OpenSSH's own format: convert it with ssh-keygen -p -m PEM"},
		"a DSA key":            {graph.EncodePEM("DSA PRIVATE KEY", []byte("hunter2")), "PEM block 3 is a private key that is not RSA"},
		"OpenSSL's":            {graph.EncodePEM("TRUSTED CERTIFICATE", []byte("hunter2")), "convert it with openssl x509"},
		"PKCS #7":              {graph.EncodePEM("PKCS7", []byte("hunter2")), "convert it with openssl pkcs7 -print_certs"},
		"something else":       {graph.EncodePEM("hunter2", []byte("hunter2")), "PEM block 3 is neither a certificate"},
		"a broken certificate": {graph.EncodePEM("CERTIFICATE", []byte("hunter2")), "PEM block 3 cannot be parsed"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := graph.ParseCertificate(cert + key + test.more)
			requireCertificateError(t, err, test.problem)
			require.NotEmpty(t, info.Thumbprint)
			_, err = graph.New(graph.ValidConfig(func(c *graph.Config) { c.Credential = graph.ClientCertificate{PEM: cert + key + test.more} }))
			require.NoError(t, err)
		})
	}
}

// giantKey would take seconds to parse.
func giantKey(t *testing.T) []byte {
	t.Helper()
	odd := func(bits int) *big.Int {
		return new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), uint(bits-1)), 0, 1)
	}
	der, err := asn1.Marshal(struct {
		Version               int
		N                     *big.Int
		E                     int
		D, P, Q, DP, DQ, QInv *big.Int
	}{0, new(big.Int).Mul(odd(150000), odd(150000)), 65537, odd(299998), odd(150000), odd(150000), odd(149999), odd(149999), odd(149999)})
	require.NoError(t, err)
	return der
}

func requireCertificateError(t *testing.T, err error, problem string) {
	t.Helper()
	e, ok := errors.AsType[*graph.ConfigError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "client_certificate", e.Field)
	require.Contains(t, e.Problem, problem)
	require.NotContains(t, e.Error(), "hunter2")
}

// TestCertificatesOutOfTime: New accepts them, since Entra decides.
func TestCertificatesOutOfTime(t *testing.T) {
	for problem, start := range map[string]time.Duration{"expired": -2 * time.Hour, "not valid yet": time.Hour} {
		made, err := graph.NewCertificate("x", time.Hour, time.Now().Add(start))
		require.NoError(t, err)
		info, err := graph.ParseCertificate(made.PEM)
		requireCertificateError(t, err, problem)
		require.NotEmpty(t, info.Thumbprint)
		_, err = graph.New(graph.ValidConfig(func(c *graph.Config) { c.Credential = made }))
		require.NoError(t, err)
	}
}
