// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

var serial atomic.Int64

// certificateTemplate returns the template of a certificate that is valid now.
func certificateTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

// parseCertificate returns the first certificate in a text.
func parseCertificate(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	require.NotNil(t, block)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

// ecCertificate returns a certificate whose key is not RSA: the authority of a simulator.
func ecCertificate(t *testing.T) string {
	t.Helper()
	sim, err := graphtest.New()
	require.NoError(t, err)
	return sim.CACertificate()
}

// newChain makes an authority.
func newChain(t *testing.T, name string) pair {
	t.Helper()
	return newPair(t, authorityTemplate(name), nil)
}

func authorityTemplate(name string) *x509.Certificate {
	template := certificateTemplate(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	return template
}

// issue makes a certificate that an authority issues.
func (p pair) issue(t *testing.T, name string) pair {
	t.Helper()
	return newPair(t, certificateTemplate(name), &p)
}

// issueAuthority makes an authority below another.
func (p pair) issueAuthority(t *testing.T, name string) pair {
	t.Helper()
	return newPair(t, authorityTemplate(name), &p)
}

// testKeys are few, because making them is slow. Six consecutive certificates have
// different keys.
var testKeys = sync.OnceValues(func() (keys [6]*rsa.PrivateKey, err error) {
	for i := range keys {
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

var nextKey atomic.Uint32

// newPair signs a certificate with the issuer's key, or with its own.
func newPair(t *testing.T, template *x509.Certificate, issuer *pair) pair {
	t.Helper()
	keys, err := testKeys()
	require.NoError(t, err)
	key := keys[nextKey.Add(1)%uint32(len(keys))]
	if issuer == nil {
		issuer = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, key.Public(), issuer.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return pair{cert, key}
}
