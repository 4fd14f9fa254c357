// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
)

const (
	deploymentPackagePath = "deployment-package"

	fieldDownloadURL = "download_url"
	fieldVersion     = "version"

	deploymentPackageHelpSynopsis = `Read where the sensor's installer can be downloaded, and its version.`

	deploymentPackageHelpDescription = `
The package carries the endpoints of the tenant's cloud, so key and package belong
together. Graph names the address; it is passed on only if it is https on one of
Microsoft's documented hosts, unless graph_endpoint is overridden, and then with a
warning. The app registration needs SecurityIdentitiesSensors.Read.All for this,
besides the permission for the key.
`
)

// packageHosts are the hosts that Microsoft documents for the sensor, by their
// endings: what is downloaded there runs as SYSTEM on domain controllers.
// https://learn.microsoft.com/defender-for-identity/deploy/configure-proxy
var packageHosts = []string{".mdi.securitycenter.microsoft.com", ".mdi.securitycenter.microsoft.us"}

func (b *backend) pathDeploymentPackage() *framework.Path {
	return &framework.Path{
		Pattern:      deploymentPackagePath + "$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.deploymentPackageRead,
				Summary:  "Read the address and version of the sensor's installer.",
				Responses: map[int][]framework.Response{http.StatusOK: {{
					Description: "Where the installer is.",
					Fields: map[string]*framework.FieldSchema{
						fieldDownloadURL: {Type: framework.TypeString, Description: "Address to download the installer from.", Required: true},
						fieldVersion:     {Type: framework.TypeString, Description: "Version of the installer.", Required: true},
					},
				}}},
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "deployment-package"},
				// It changes nothing, but the active node has the token already.
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    deploymentPackageHelpSynopsis,
		HelpDescription: strings.TrimSpace(deploymentPackageHelpDescription),
	}
}

// deploymentPackageRead serves GET mdi/deployment-package.
func (b *backend) deploymentPackageRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	conn, err := b.configs.Current(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	if err := b.health.Throttled(ctx); err != nil {
		return nil, refusal(err)
	}
	found, err := conn.Graph.DeploymentPackage(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	resp := &logical.Response{Data: map[string]any{fieldDownloadURL: found.DownloadURL, fieldVersion: found.Version}}
	switch {
	case fromMicrosoft(found.DownloadURL):
		return resp, nil
	case conn.Config.GraphEndpoint != "" && strings.HasPrefix(found.DownloadURL, "https://"):
		resp.AddWarning("The address is not on a host that Microsoft documents for the sensor. It comes from " + config.FieldGraphEndpoint + ": check it before you run what is there.")
		return resp, nil
	default:
		b.log(ctx).Error("Graph named a deployment package that is not on one of Microsoft's documented hosts")
		return nil, logical.CodedError(http.StatusBadGateway, "Graph named an address for the deployment package that is not https on a host that Microsoft documents for the sensor ("+
			strings.Join(packageHosts, ", ")+"), so it is not passed on")
	}
}

func fromMicrosoft(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || (u.Port() != "" && u.Port() != "443") {
		return false
	}
	host := strings.ToLower(u.Hostname())
	for _, ending := range packageHosts {
		if strings.HasSuffix(host, ending) && len(host) > len(ending) {
			return true
		}
	}
	return false
}
