// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/pluginidentityutil"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Only a server that never issues identity tokens makes a 400. Vault Enterprise can fail
// to issue one now and then, and a repetition may fare better.
func TestVaultIssuesNoIdentityToken(t *testing.T) {
	unsupported := fmt.Errorf("failed to generate plugin identity token: %w", pluginidentityutil.ErrPluginWorkloadIdentityUnsupported)
	for name, test := range map[string]struct {
		failure error // nil: an empty answer
		status  int
		says    string
		logged  bool
	}{
		"OpenBao":               {status.Error(codes.Unimplemented, "unknown method GenerateIdentityToken"), 400, "Vault Enterprise", false},
		"the community edition": {status.Error(codes.Internal, unsupported.Error()), 400, "Vault Enterprise", false},
		"nothing":               {nil, 400, "Vault Enterprise", false},
		"late":                  {context.DeadlineExceeded, 503, "in time", false},
		"late, from far":        {status.Error(codes.DeadlineExceeded, "context deadline exceeded"), 503, "in time", false},
		"broken":                {status.Error(codes.Internal, "no signing key yet"), 503, "its log says why", true},
		"gone":                  {status.Error(codes.Unavailable, "connection refused"), 503, "its log says why", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.allowed()
			r.issuing(func(*pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error) {
				return nil, test.failure
			})
			fields := r.config(map[string]any{credential.FieldSecret: nil, credential.FieldType: credential.IdentityToken})
			text := r.fails(test.status, logical.UpdateOperation, configPath, fields)
			require.Contains(t, text, test.says)
			require.Equal(t, test.status == 400, strings.Contains(text, "Enterprise"))
			require.NotContains(t, text, "proxy", "nothing has been sent anywhere")
			const line = "Vault has not issued an identity token for the plugin"
			require.Equal(t, test.logged, strings.Contains(r.log.String(), line))
			if test.logged {
				require.Contains(t, r.log.String(), test.failure.Error())
			}
			require.Zero(t, r.sim.Calls(graphtest.Token).Started)
		})
	}
}

// What the plugin's environment allows is asked whenever it is used, and not only when
// it is configured.
func TestAllowedHostIsWithdrawn(t *testing.T) {
	r := newRig(t)
	r.allowed()
	r.managedIdentity()
	r.write(configPath, r.managedConfig())
	require.True(t, r.works(r.key()))
	asked := r.sim.Calls(graphtest.ManagedIdentity).Started

	t.Setenv("MDI_ALLOWED_HOSTS", "graph.example.com")
	r.restart()
	text := r.fails(400, logical.ReadOperation, keyPath, nil)
	require.Contains(t, text, config.FieldGraphEndpoint)
	require.Contains(t, text, "MDI_ALLOWED_HOSTS")
	r.fails(400, logical.ReadOperation, deploymentPackagePath, nil)
	r.tick()
	require.Equal(t, asked, r.sim.Calls(graphtest.ManagedIdentity).Started)
	require.Equal(t, true, r.status()[fieldConfigured])

	r.write(configPath, r.config(nil))
	require.True(t, r.works(r.key()), "a credential of the writer's own may go there")
}

// A managed identity has no app registration, and is found on the machine itself: the
// hints for the other kinds would lead astray.
func TestHintsAboutAManagedIdentity(t *testing.T) {
	const elsewhere = "proxy of the plugin's environment"
	t.Run("without the role", func(t *testing.T) {
		r := newRig(t, graphtest.WithRoles(graphtest.RoleRead))
		r.allowed()
		r.managedIdentity()
		text := r.fails(400, logical.UpdateOperation, configPath, r.managedConfig())
		require.Contains(t, text, credential.FieldType+": the token does not carry")
		require.Contains(t, text, "service principal")
		require.NotContains(t, text, "consent")
	})
	t.Run("nobody listens", func(t *testing.T) {
		r := newRig(t)
		r.allowed()
		t.Setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
		t.Setenv("IDENTITY_HEADER", "x")
		text := r.fails(503, logical.UpdateOperation, configPath, r.managedConfig())
		require.Contains(t, text, "managed identity endpoint")
		require.NotContains(t, text, elsewhere)
	})
	t.Run("nobody answers", func(t *testing.T) {
		r := newRig(t)
		r.allowed()
		r.managedIdentity()
		r.sim.Inject(graphtest.Fault{Operation: graphtest.ManagedIdentity, Latency: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := r.request(ctx, logical.UpdateOperation, configPath, r.managedConfig())
		require.ErrorContains(t, err, "managed identity endpoint")
		require.NotContains(t, err.Error(), elsewhere)
	})
	t.Run("Graph does not answer", func(t *testing.T) {
		r := newRig(t)
		r.allowed()
		r.managedIdentity()
		r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Reset: true})
		require.Contains(t, r.fails(503, logical.UpdateOperation, configPath, r.managedConfig()), elsewhere)
	})
}
