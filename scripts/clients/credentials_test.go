// SPDX-License-Identifier: MPL-2.0

package clients

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func (c *cloud) secret(t *testing.T, others ...string) azcore.TokenCredential {
	t.Helper()
	app := c.App()
	credential, err := azidentity.NewClientSecretCredential(app.TenantID, app.ClientID, app.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: c.options(), AdditionallyAllowedTenants: others})
	require.NoError(t, err)
	return credential
}

func (c *cloud) certificate(t *testing.T, bundle string, withChain bool) azcore.TokenCredential {
	t.Helper()
	certificates, key, err := azidentity.ParseCertificates([]byte(bundle), nil)
	require.NoError(t, err)
	credential, err := azidentity.NewClientCertificateCredential(c.App().TenantID, c.App().ClientID, certificates, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: c.options(), SendCertificateChain: withChain})
	require.NoError(t, err)
	return credential
}

// TestApp signs in as an app registration does, under Microsoft's names and with instance
// discovery, and answers a claims challenge on the way.
func TestApp(t *testing.T) {
	for name, credential := range map[string]func(*testing.T, *cloud) azcore.TokenCredential{
		"secret": func(t *testing.T, c *cloud) azcore.TokenCredential { return c.secret(t) },
		"certificate": func(t *testing.T, c *cloud) azcore.TokenCredential {
			bundle, err := c.NewCertificate(graphtest.CertificateRequest{})
			require.NoError(t, err)
			return c.certificate(t, bundle, false)
		},
		"certificate with chain": func(t *testing.T, c *cloud) azcore.TokenCredential {
			bundle, root := newChain(t)
			c.Update(graphtest.WithSubjectName(root, chainName))
			return c.certificate(t, bundle, true)
		},
		"workload identity": func(t *testing.T, c *cloud) azcore.TokenCredential {
			assertion, err := c.Assertion(graphtest.AssertionRequest{})
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "token")
			require.NoError(t, os.WriteFile(file, []byte(assertion), 0o600))
			t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
			t.Setenv("AZURE_TENANT_ID", c.App().TenantID)
			t.Setenv("AZURE_CLIENT_ID", c.App().ClientID)
			workload, err := azidentity.NewWorkloadIdentityCredential(
				&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: c.options()})
			require.NoError(t, err)
			return workload
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			signIn := credential(t, c)
			c.uses(t, c.App().TenantID, signIn)
			require.Equal(t, graphtest.Calls{Started: 1, Performed: 1, Answered: 1}, c.Calls(graphtest.Instance))
			require.Equal(t, graphtest.Calls{Started: 1, Performed: 1, Answered: 1}, c.Calls(graphtest.Regenerate))

			c.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Claims: true})
			c.uses(t, c.App().TenantID, signIn)
			require.Equal(t, graphtest.Challenges{Sent: 1, Answered: 1}, c.Challenges())
			require.Equal(t, 2, c.Calls(graphtest.Token).Performed)
			require.Equal(t, 2, c.Calls(graphtest.Regenerate).Performed)
		})
	}
}

// TestPipelineAnswersChallenge is for azcore, which the other Azure SDKs are built on.
func TestPipelineAnswersChallenge(t *testing.T) {
	c := newCloud(t)
	options := c.options()
	pipeline := runtime.NewPipeline("test", "v1.0.0", runtime.PipelineOptions{PerRetry: []policy.Policy{
		runtime.NewBearerTokenPolicy(c.secret(t), c.scopes(), nil),
	}}, &options)
	c.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})
	req, err := runtime.NewRequest(t.Context(), http.MethodGet, "https://"+graphHost+"/beta/security/identities/sensors/getDeploymentAccessKey")
	require.NoError(t, err)
	resp, err := pipeline.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, graphtest.Challenges{Sent: 1, Answered: 1}, c.Challenges())
}

// TestManagedIdentity uses the identities of a machine, by each of their names.
func TestManagedIdentity(t *testing.T) {
	for service, serve := range map[string]func(*testing.T, *cloud){
		"IMDS": func(*testing.T, *cloud) {},
		"App Service": func(t *testing.T, c *cloud) {
			t.Setenv("IDENTITY_ENDPOINT", c.metadata+"/msi/token")
			t.Setenv("IDENTITY_HEADER", c.IdentityHeader())
		},
	} {
		objectID, resourceID := graphtest.UserIdentity("user")
		for name, id := range map[string]azidentity.ManagedIDKind{
			"system": nil, "client id": azidentity.ClientID("user"),
			"object id": azidentity.ObjectID(objectID), "resource id": azidentity.ResourceID(resourceID),
		} {
			t.Run(service+", "+name, func(t *testing.T) {
				c := newCloud(t, graphtest.WithUserIdentities("another", "user"), graphtest.WithSystemIdentity(id == nil))
				// The cache of managed identities belongs to the process and knows no tenant.
				c.audience = "https://" + uuid.NewString() + ".test"
				c.Update(graphtest.WithAudience(c.audience))
				serve(t, c)
				credential, err := azidentity.NewManagedIdentityCredential(
					&azidentity.ManagedIdentityCredentialOptions{ClientOptions: c.options(), ID: id})
				require.NoError(t, err)
				c.uses(t, c.App().TenantID, credential)
				require.Equal(t, graphtest.Calls{Started: 1, Performed: 1, Answered: 1}, c.Calls(graphtest.ManagedIdentity))
				require.Zero(t, c.Calls(graphtest.Token))
			})
		}
	}
}

// TestProvider has one credential of a multi-tenant app for its home and two customers.
func TestProvider(t *testing.T) {
	customers := []string{uuid.NewString(), uuid.NewString()}
	c := newCloud(t, graphtest.WithCustomers(customers...))
	credential := c.secret(t, customers...)
	for _, tenant := range append(customers, c.App().TenantID) {
		c.uses(t, tenant, inTenant{credential, tenant})
	}
	require.Equal(t, 3, c.Calls(graphtest.Regenerate).Performed)
}

// inTenant asks a credential for tokens of one tenant.
type inTenant struct {
	azcore.TokenCredential
	tenant string
}

func (c inTenant) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	options.TenantID = c.tenant
	return c.TokenCredential.GetToken(ctx, options)
}

const chainName = "vault.example"

// newChain returns a bundle of a certificate, the authority that issued it and the key, and
// the root of that authority.
func newChain(t *testing.T) (bundle, root string) {
	t.Helper()
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	var chain []string
	var issuer *x509.Certificate
	var key, issuerKey *rsa.PrivateKey
	for i, subject := range []string{"root", "intermediate", chainName} {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: subject},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: subject != chainName, BasicConstraintsValid: true,
		}
		var err error
		key, err = rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		if issuer == nil {
			issuer, issuerKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
		require.NoError(t, err)
		issuer, issuerKey = template, key
		chain = append(chain, encode("CERTIFICATE", der))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return chain[2] + chain[1] + encode("PRIVATE KEY", der), chain[0]
}
