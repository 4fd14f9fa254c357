// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestControlCredentials(t *testing.T) {
	c, client := newControlled(t)
	bundle, err := client.NewCertificate(t.Context(), graphtest.CertificateRequest{CommonName: "vault", Validity: time.Hour})
	require.NoError(t, err)
	all, err := client.Credentials(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "certificate", all[1].Type)
	require.Equal(t, "vault", all[1].DisplayName)
	require.WithinDuration(t, time.Now().Add(time.Hour), all[1].End, time.Minute)

	require.NoError(t, client.RemoveInPortal(t.Context(), all[1].KeyID))
	require.ErrorContains(t, client.RemoveInPortal(t.Context(), all[1].KeyID), "404")
	require.NoError(t, client.Update(t.Context(), graphtest.TenantChange{Certificate: bundle}))
	require.NoError(t, client.Update(t.Context(), graphtest.TenantChange{Certificate: bundle}))
	require.Len(t, c.sim.Credentials(), 2, "registered once")
	require.Error(t, client.Update(t.Context(), graphtest.TenantChange{Certificate: "none"}))

	_, key, found := strings.Cut(bundle, "-----BEGIN PRIVATE KEY-----")
	require.True(t, found)
	hidden := 0
	for _, secret := range c.sim.Issued() {
		if strings.Contains(key, secret) {
			hidden++
		}
	}
	require.Greater(t, hidden, 20, "the lines of the private key")
}

func TestControlAssertion(t *testing.T) {
	c, client := newControlled(t)
	assertion, err := client.Assertion(t.Context(), graphtest.AssertionRequest{})
	require.NoError(t, err)
	require.Zero(t, c.assert(assertion).code(t))
	assertion, err = client.Assertion(t.Context(), graphtest.AssertionRequest{Subject: "other", Lifetime: time.Minute})
	require.NoError(t, err)
	require.Equal(t, 700213, c.assert(assertion).code(t))
}

// MSAL can read what NewCertificate makes.
func TestNewCertificateIsRead(t *testing.T) {
	c := newTester(t)
	bundle, err := c.sim.NewCertificate(graphtest.CertificateRequest{})
	require.NoError(t, err)
	certs, key, err := confidential.CertFromPEM([]byte(bundle), "")
	require.NoError(t, err)
	credential, err := confidential.NewCredFromCert(certs, key)
	require.NoError(t, err)
	_, err = c.msal(credential).AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)

	expired, err := c.sim.NewCertificate(graphtest.CertificateRequest{Validity: -24 * time.Hour, Unregistered: true})
	require.NoError(t, err)
	cert := parseCertificate(t, expired)
	require.WithinDuration(t, time.Now().Add(-24*time.Hour), cert.NotAfter, time.Minute)
	require.True(t, cert.NotBefore.Before(cert.NotAfter))
	require.Len(t, c.sim.Credentials(), 2, "the expired one is not registered")
}
