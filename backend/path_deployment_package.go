// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// packageFields are the fields of the answer.
func packageFields(p *graph.Package) []field.Spec {
	return []field.Spec{
		field.Always("download_url", framework.TypeString, "Address to download the installer from.", p.DownloadURL),
		field.Always("version", framework.TypeString, "Version of the installer.", p.Version),
	}
}

var pathDeploymentPackage = path("deployment-package", `Read where the sensor's installer can be downloaded, and its version.`, `
The package carries the endpoints of the tenant's cloud, so key and package belong
together. Graph names the address; it is passed on only if it is https on one of
Microsoft's documented hosts, unless graph_endpoint is overridden, and then with a
warning. The app registration needs SecurityIdentitiesSensors.Read.All for this,
besides the permission for the key.
`, nil, operations{
	// It changes nothing, but the active node has the token already.
	logical.ReadOperation: forwarded("read deployment-package", (*backend).deploymentPackageRead, "Read the address and version of the sensor's installer.",
		returning("Where the installer is.", packageFields(&graph.Package{}))),
})

// deploymentPackageRead serves GET mdi/deployment-package.
func (b *backend) deploymentPackageRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	conn, err := b.configs.Current(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.health.May(ctx, health.Rotation); err != nil {
		return nil, err
	}
	found, err := conn.Graph.DeploymentPackage(ctx)
	resp, err := shown(&found, packageFields, err)
	if err != nil || found.Documented() {
		return resp, err
	}
	if conn.Config.GraphEndpoint == "" || !strings.HasPrefix(found.DownloadURL, "https://") {
		hclog.FromContext(ctx).Error("Graph named a deployment package that is not on one of Microsoft's documented hosts")
		return nil, logical.CodedError(http.StatusBadGateway, "Graph named an address for the deployment package that is not https on a host that Microsoft documents for the sensor ("+
			strings.Join(graph.PackageHosts, ", ")+"), so it is not passed on")
	}
	return warn(resp, "The address is not on a host that Microsoft documents for the sensor. It comes from "+config.FieldGraphEndpoint+": check it before you run what is there."), nil
}
