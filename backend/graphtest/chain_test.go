// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// newChain makes an authority.
func newChain(t *testing.T, name string) pair {
	t.Helper()
	template, err := certificateTemplate(name)
	require.NoError(t, err)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	return newPair(t, template, nil)
}

// issue makes a certificate of an authority.
func (p pair) issue(t *testing.T, name string) pair {
	t.Helper()
	template, err := certificateTemplate(name)
	require.NoError(t, err)
	return newPair(t, template, &p)
}

// testKeys are few, because making them takes its time; certificates that follow
// one another have different ones.
var testKeys = sync.OnceValues(func() (keys [4]*rsa.PrivateKey, err error) {
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
