// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// upgrade is a Vault that was left by an older version of the plugin, with its tenant.
type upgrade struct {
	*cluster
	left   upgradetest.Server
	tenant *graphtest.Simulator
}

// testUpgrade restores the Vault of each released version that there is a record of,
// upgrades the plugin as docs/upgrade.md says, and ends the leases.
func (s *suite) testUpgrade(t *testing.T) {
	t.Parallel()
	versions, err := upgradetest.Versions()
	require.NoError(t, err)
	require.NotEmpty(t, versions)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			u := s.inherit(t, version)
			u.upgrade(t)
			u.expectKept(t)
			u.expectRetired(t)
		})
	}
}

// inherit returns the Vault of a version, unsealed. The binary of that version is gone,
// as on a server that was set up anew.
func (s *suite) inherit(t *testing.T, version string) *upgrade {
	t.Helper()
	left, err := upgradetest.VaultOf(version)
	require.NoError(t, err)
	sc := s.startScenario(t, "upgrade-"+version)
	u := &upgrade{cluster: &cluster{sc: sc}, left: left, tenant: graphtest.Start(t, left.TenantOptions()...)}
	t.Cleanup(func() { s.evidence.add(sc.logs, u.tenant.Issued()) })
	u.leadToTenant(t)
	u.restore(t)
	return u
}

// leadToTenant has Vault find the tenant under its old names, and trust it.
func (u *upgrade) leadToTenant(t *testing.T) {
	t.Helper()
	sc := u.sc
	address := strings.TrimPrefix(u.tenant.URL(), "https://")
	require.NoError(t, sc.startProxy("proxy", "-lead", u.left.LoginHost+"="+address, "-lead", u.left.GraphHost+"="+address))
	text, err := os.ReadFile(filepath.Join(sc.work, "proxy", "proxy.json"))
	require.NoError(t, err)
	var proxy struct{ URL string }
	require.NoError(t, json.Unmarshal(text, &proxy))
	authority := filepath.Join(sc.work, "ca.pem")
	require.NoError(t, os.WriteFile(authority, []byte(u.tenant.CACertificate()), 0o600))
	sc.env = append(sc.env, "HTTPS_PROXY="+proxy.URL, "SSL_CERT_FILE="+authority)
}

// restore starts an empty Vault and makes it the one that was left, which then has the
// keys of that one.
func (u *upgrade) restore(t *testing.T) {
	t.Helper()
	u.startSingle(t)
	n := u.nodes[0]
	snapshot := filepath.Join(u.sc.work, "server.snap")
	require.NoError(t, os.WriteFile(snapshot, u.left.Snapshot, 0o600))
	u.vault(t, "operator", "raft", "snapshot", "restore", "-force", snapshot)
	require.NoError(t, n.process.Await(t.Context(), func(ctx context.Context) bool {
		return n.Health(ctx) == http.StatusServiceUnavailable
	}))
	u.unsealKey, n.Client = u.left.UnsealKey, n.As(u.left.Token)
	u.unsealed(t)
}

// upgrade does what docs/upgrade.md says for a server without the binary of the version
// before: a mount that could not be started needs Vault to be unsealed once more.
func (u *upgrade) upgrade(t *testing.T) {
	t.Helper()
	require.NoError(t, testbed.Register(t.Context(), u, u.sc.suite.plugin(), pluginVersion))
	u.vault(t, "secrets", "tune", "-plugin-version="+pluginVersion, "mdi/")
	u.vault(t, "operator", "seal")
	u.unsealed(t)
	require.Equal(t, pluginVersion, u.vault(t, "read", "-field=running_plugin_version", "sys/mounts/mdi"))
}

// expectKept looks for what the older version knew. A read under the role still shares
// its key.
func (u *upgrade) expectKept(t *testing.T) {
	t.Helper()
	status, err := u.status(t.Context())
	require.NoError(t, err)
	require.Equal(t, engineStatus{Version: 2, Cause: "read", LiveLeases: 3}, status)
	require.Equal(t, u.left.TenantID, u.vault(t, "read", "-field=tenant_id", "mdi/config"))
	require.Equal(t, u.left.Key, u.vault(t, "read", "-field=deployment_access_key", "mdi/key/sensor-hosts"))
	require.Zero(t, u.tenant.Calls(graphtest.Regenerate).Started)
}

// expectRetired revokes the leases, the one of this version as well. The key works until
// the last of them.
func (u *upgrade) expectRetired(t *testing.T) {
	t.Helper()
	names, err := testbed.List(t.Context(), u, "sys/leases/lookup/mdi/key/sensor-hosts")
	require.NoError(t, err)
	require.Len(t, names, 3)
	for _, lease := range u.left.Leases {
		u.vault(t, "lease", "revoke", "-sync", lease)
	}
	require.True(t, u.tenant.CanRegister(u.left.Key), "there is a lease of this version")
	u.vault(t, "lease", "revoke", "-sync", "-prefix", "mdi/key/sensor-hosts")
	require.Eventually(t, func() bool { return !u.tenant.CanRegister(u.left.Key) }, 10*time.Second, 50*time.Millisecond)
	count, err := testbed.Irrevocable(t.Context(), u)
	require.NoError(t, err)
	require.Zero(t, count, "irrevocable leases")
}
