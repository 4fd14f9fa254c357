// SPDX-License-Identifier: MPL-2.0

package clients

import (
	"net/http"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/microsoft/kiota-abstractions-go/serialization"
	kiota "github.com/microsoft/kiota-http-go"
	kiotajson "github.com/microsoft/kiota-serialization-json-go"
	core "github.com/microsoftgraph/msgraph-sdk-go-core"
	"github.com/microsoftgraph/msgraph-sdk-go-core/authentication"
	"github.com/microsoftgraph/msgraph-sdk-go/models/odataerrors"
	"github.com/microsoftgraph/msgraph-sdk-go/security"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// sdk returns /security of the Graph SDK, with the SDK's own middleware. It is put together
// from the packages for that path: the package for all of Graph takes four times as long to
// compile.
func (c *cloud) sdk(t *testing.T, credential azcore.TokenCredential) *security.SecurityRequestBuilder {
	t.Helper()
	provider, err := authentication.NewAzureIdentityAuthenticationProviderWithScopesAndValidHosts(credential, c.scopes(), []string{graphHost})
	require.NoError(t, err)
	options := core.GraphClientOptions{GraphServiceLibraryVersion: "1.89.0"}
	client := core.GetDefaultClient(&options)
	client.Transport = kiota.NewCustomTransportWithParentTransport(c.transport, core.GetDefaultMiddlewaresWithOptions(&options)...)
	serialization.DefaultParseNodeFactoryInstance.ContentTypeAssociatedFactories["application/json"] = kiotajson.NewJsonParseNodeFactory()
	adapter, err := core.NewGraphRequestAdapterBaseWithParseNodeFactoryAndSerializationWriterFactoryAndHttpClient(provider, options, nil, nil, client)
	require.NoError(t, err)
	adapter.SetBaseUrl("https://" + graphHost + "/v1.0")
	return security.NewSecurityRequestBuilderInternal(map[string]string{}, adapter)
}

// uses makes the calls for the key as an administrator's script would.
func (c *cloud) uses(t *testing.T, tenant string, credential azcore.TokenCredential) {
	t.Helper()
	sensors := c.sdk(t, credential).Identities().Sensors()
	before := c.KeyOf(tenant)
	regenerated, err := sensors.MicrosoftGraphSecurityRegenerateDeploymentAccessKey().Post(t.Context(), nil)
	require.NoError(t, err)
	require.NotEqual(t, before, c.KeyOf(tenant))
	require.True(t, c.KeyOf(tenant) == *regenerated.GetDeploymentAccessKey(), "another key than the tenant's")
	read, err := sensors.MicrosoftGraphSecurityGetDeploymentAccessKey().Get(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, c.CanRegister(*read.GetDeploymentAccessKey()), "another key than the tenant's")
	installer, err := sensors.MicrosoftGraphSecurityGetDeploymentPackageUri().Get(t.Context(), nil)
	require.NoError(t, err)
	require.NotEmpty(t, *installer.GetDownloadUrl())
	require.NotEmpty(t, *installer.GetVersion())
}

// The SDK understands Graph's errors: the code, the id for Microsoft's support, the date.
func TestGraphErrors(t *testing.T) {
	c := newCloud(t, graphtest.WithRoles(graphtest.RoleRead))
	client := c.sdk(t, c.secret(t))
	_, forbidden := client.Identities().Sensors().MicrosoftGraphSecurityRegenerateDeploymentAccessKey().Post(t.Context(), nil)
	_, unknown := client.SecureScores().Get(t.Context(), nil)
	for _, test := range []struct {
		err    error
		status int
		code   string
	}{{forbidden, http.StatusForbidden, "Forbidden"}, {unknown, http.StatusBadRequest, "BadRequest"}} {
		var answer *odataerrors.ODataError
		require.ErrorAs(t, test.err, &answer)
		require.Equal(t, test.status, answer.GetStatusCode())
		detail := answer.GetErrorEscaped()
		require.Equal(t, test.code, *detail.GetCode())
		require.Equal(t, answer.GetResponseHeaders().Get("request-id"), []string{*detail.GetInnerError().GetRequestId()})
		require.NotEmpty(t, *detail.GetInnerError().GetClientRequestId())
		require.False(t, detail.GetInnerError().GetDate().IsZero())
	}
	require.Zero(t, c.Calls(graphtest.Regenerate).Performed)
}

// The SDK waits as long as Graph asks it to, and tries again.
func TestGraphThrottles(t *testing.T) {
	c := newCloud(t)
	c.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: http.StatusTooManyRequests, RetryAfter: "1"})
	c.uses(t, c.App().TenantID, c.secret(t))
	require.Equal(t, graphtest.Calls{Started: 2, Performed: 1, Answered: 2}, c.Calls(graphtest.Regenerate))
}
