// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/stretchr/testify/require"
)

func TestControlCredentials(t *testing.T) {
	c, client := newControlled(t)
	bundle, err := client.NewCertificate(t.Context(), CertificateRequest{CommonName: "vault", Validity: time.Hour})
	require.NoError(t, err)
	all, err := client.Credentials(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "certificate", all[1].Type)
	require.Equal(t, "vault", all[1].DisplayName)
	require.WithinDuration(t, time.Now().Add(time.Hour), all[1].End, time.Minute)

	require.NoError(t, client.RemoveInPortal(t.Context(), all[1].KeyID))
	require.ErrorContains(t, client.RemoveInPortal(t.Context(), all[1].KeyID), "404")
	require.NoError(t, client.Update(t.Context(), TenantChange{Certificate: bundle}))
	require.NoError(t, client.Update(t.Context(), TenantChange{Certificate: bundle}))
	require.Len(t, c.sim.Credentials(), 2, "registered once")
	require.Error(t, client.Update(t.Context(), TenantChange{Certificate: "none"}))

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
	assertion, err := client.Assertion(t.Context(), AssertionRequest{})
	require.NoError(t, err)
	require.Zero(t, c.assert(assertion).code(t))
	assertion, err = client.Assertion(t.Context(), AssertionRequest{Subject: "other", Lifetime: time.Minute})
	require.NoError(t, err)
	require.Equal(t, 700213, c.assert(assertion).code(t))
}

func TestControlTenantCredentials(t *testing.T) {
	c, client := newControlled(t)
	require.NoError(t, client.Update(t.Context(), TenantChange{
		Audience: "https://graph.microsoft.us", ServerNames: []string{"graph.test"}, ForeignSecret: "theirs",
		Propagation: []int{1, 1}, MaxCredentialLifetime: "1h", UserIdentities: []string{"user"},
	}))
	s := c.sim.current()
	require.Equal(t, "https://graph.microsoft.us", s.audience)
	require.Equal(t, []string{"graph.test"}, s.serverNames)
	require.Equal(t, "theirs", s.passwords[1].name)
	require.Equal(t, []bool{false, true, false}, s.propagation)
	require.Equal(t, time.Hour, s.maxCredentialLifetime)
	require.Equal(t, []string{"user"}, s.userIdentities)

	require.NoError(t, client.Update(t.Context(), TenantChange{
		ServerNames: []string{}, Propagation: []int{}, MaxCredentialLifetime: "0s", UserIdentities: []string{},
	}))
	s = c.sim.current()
	require.Empty(t, s.serverNames)
	require.Empty(t, s.propagation)
	require.Zero(t, s.maxCredentialLifetime)
	require.Empty(t, s.userIdentities)
	require.Equal(t, "https://graph.microsoft.us", s.audience)
}

// What NewCertificate makes is what MSAL reads.
func TestNewCertificateIsRead(t *testing.T) {
	c := newTester(t)
	bundle, err := c.sim.NewCertificate(CertificateRequest{})
	require.NoError(t, err)
	certs, key, err := confidential.CertFromPEM([]byte(bundle), "")
	require.NoError(t, err)
	credential, err := confidential.NewCredFromCert(certs, key)
	require.NoError(t, err)
	_, err = c.msal(credential).AcquireTokenByCredential(t.Context(), []string{graphScope})
	require.NoError(t, err)

	expired, err := c.sim.NewCertificate(CertificateRequest{Validity: -24 * time.Hour, Unregistered: true})
	require.NoError(t, err)
	cert, err := parseCertificate(expired)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(-24*time.Hour), cert.NotAfter, time.Minute)
	require.True(t, cert.NotBefore.Before(cert.NotAfter))
	require.Len(t, c.sim.Credentials(), 2, "the expired one is not registered")
}
