// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const microsoftsPackage = "https://contoso.mdi.securitycenter.microsoft.com/packages/sensor.zip"

func TestDeploymentPackage(t *testing.T) {
	r := configured(t)
	r.sim.Update(graphtest.WithPackage(microsoftsPackage, "2.240.1"))
	resp := r.read(deploymentPackagePath)
	require.Equal(t, map[string]any{"download_url": microsoftsPackage, "version": "2.240.1"}, resp.Data)
	require.Empty(t, resp.Warnings)
	require.Nil(t, resp.Secret)
	require.Zero(t, r.posts())

	r.sim.Update(graphtest.WithPackage("https://mirror.example.com/sensor.zip", "2.240.1"))
	require.Len(t, r.read(deploymentPackagePath).Warnings, 1, "tolerated, because graph_endpoint is overridden")
}

func TestDeploymentPackageFailures(t *testing.T) {
	r := newRig(t)
	require.Contains(t, r.fails(400, logical.ReadOperation, deploymentPackagePath, nil), "not configured")
	r.write(configPath, r.config(nil))
	r.sim.Update(graphtest.WithRoles(graphtest.RoleReadWrite))
	r.restart() // its token still has the other role
	require.Contains(t, r.fails(400, logical.ReadOperation, deploymentPackagePath, nil), "SecurityIdentitiesSensors.Read.All")
}
