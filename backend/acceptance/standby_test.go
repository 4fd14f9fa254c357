// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// unanswered is for how long a node without a plugin to ask is given to answer.
const unanswered = time.Second

// testStandby has every read go to a standby of three nodes: that of the key regenerates it
// once, on the active node. Then the active node's plugin is frozen, and what a standby
// still answers it answers without that node.
func (s *suite) testStandby(t *testing.T) {
	t.Parallel()
	c := s.startCluster(t, "standby", clusterSize)
	for path, fields := range map[string]any{
		"mdi/config":      testbed.ConfigFields(c.sc.tenants[0].info),
		"mdi/roles/hosts": map[string]any{"ttl": "1h"},
	} {
		require.NoError(t, c.Call(t.Context(), http.MethodPost, path, fields, nil))
	}
	active, standby := c.roles(t)
	c.readOn(t, active, standby)

	t.Run("alone", func(t *testing.T) {
		s.needs(t.Context(), t, standby, standbyReads)
		readAlone(t, active, standby)
	})
}

// readAlone reads on a standby while the active node's plugin is frozen.
func readAlone(t *testing.T, active, standby *node) {
	t.Helper()
	plugins, err := active.process.Children()
	require.NoError(t, err)
	thaw := testbed.Freeze(plugins...)
	t.Cleanup(thaw)
	for _, path := range []string{"mdi/roles/hosts", "mdi/roles?list=true", "mdi/config"} {
		require.Equal(t, http.StatusOK, read(t.Context(), standby.Client, path).Status, path)
	}
	for _, path := range []string{"mdi/status", "mdi/key-version"} {
		ctx, cancel := context.WithTimeout(t.Context(), unanswered)
		require.Zero(t, read(ctx, standby.Client, path).Status, "%s is answered without the active node", path)
		cancel()
	}
}

// roles returns the active node and one that stands by.
func (c *cluster) roles(t *testing.T) (active, standby *node) {
	t.Helper()
	active, _, err := c.active(t.Context(), "")
	require.NoError(t, err)
	for _, n := range c.nodes {
		if n != active {
			return active, n
		}
	}
	require.Fail(t, "there is no standby")
	return nil, nil
}

// readOn reads everything on a standby.
func (c *cluster) readOn(t *testing.T, active, standby *node) {
	t.Helper()
	tenant := c.sc.tenants[0].client
	got, err := read(t.Context(), standby.Client, "mdi/key/hosts").key()
	require.NoError(t, err)
	registers, err := tenant.Register(t.Context(), got.Data.Key)
	require.NoError(t, err)
	require.True(t, registers)
	calls, err := tenant.Calls(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, calls["regenerate"].Started, "a read on a standby costs one POST")
	const made = "deployment access key regenerated"
	require.Equal(t, 1, active.logged(t, made))
	require.Zero(t, standby.logged(t, made), "the standby has asked Graph itself")

	var answer struct{ Data engineStatus }
	for _, path := range []string{"mdi/status", "mdi/key-version"} {
		require.NoError(t, standby.Call(t.Context(), http.MethodGet, path, nil, &answer))
		require.Equal(t, got.Data.Version, answer.Data.Version, path)
	}
	require.NoError(t, standby.Call(t.Context(), http.MethodGet, "mdi/roles/hosts", nil, nil))
	require.NoError(t, standby.Call(t.Context(), http.MethodPut, "sys/leases/revoke", map[string]any{"lease_id": got.LeaseID, "sync": true}, nil))
	require.Eventually(t, func() bool {
		registers, err := tenant.Register(t.Context(), got.Data.Key)
		return err == nil && !registers
	}, 10*time.Second, 100*time.Millisecond, "the key outlives its last lease")
}

// logged counts the lines of a node's log that have a text.
func (n *node) logged(t *testing.T, text string) int {
	t.Helper()
	log, err := os.ReadFile(n.server.Log)
	require.NoError(t, err)
	return strings.Count(string(log), text)
}

// testStandbyUpgrade upgrades the plugin as docs/openbao.md says. A reload reaches the active
// node only, and a standby goes on with the version before until it restarts.
func (s *suite) testStandbyUpgrade(t *testing.T) {
	t.Parallel()
	const next = "v0.0.1-acceptance"
	sc := s.startScenario(t, "standby-upgrade", "tenant")
	c := &cluster{sc: sc, plugins: filepath.Join(sc.work, "plugins")}
	sc.cluster = c
	binary := filepath.Join(c.plugins, testbed.PluginName+"_next")
	require.NoError(t, os.Mkdir(c.plugins, 0o700))
	require.NoError(t, testbed.BuildPackage(t.Context(), filepath.Dir(s.scripts), "./cmd/"+testbed.PluginName, next, binary))
	require.NoError(t, os.Link(s.plugin(), filepath.Join(c.plugins, testbed.PluginName)))
	require.NoError(t, c.start(t.Context(), clusterSize))
	active, standby := c.roles(t)
	s.needs(t.Context(), t, standby, standbyReads)

	reload := func(n *node) {
		require.NoError(t, n.Call(t.Context(), http.MethodPut, "sys/plugins/reload/backend", map[string]string{"plugin": testbed.PluginName}, nil))
	}
	require.NoError(t, testbed.Register(t.Context(), active, binary, next))
	require.NoError(t, active.Call(t.Context(), http.MethodPost, "sys/mounts/mdi/tune", map[string]string{"plugin_version": next}, nil))
	reload(active)
	require.Equal(t, next, active.running(t))
	reload(standby)
	require.Equal(t, pluginVersion, standby.running(t), "a reload on a standby starts the version before again")
	standby.process.Stop()
	require.NoError(t, c.restart(t.Context(), standby))
	require.Eventually(t, func() bool { return standby.running(t) == next }, time.Minute, time.Second)
}

// running returns the version of the plugin that a node itself runs.
func (n *node) running(t *testing.T) string {
	t.Helper()
	var answer struct {
		Data struct {
			Version string `json:"running_plugin_version"`
		}
	}
	require.NoError(t, n.Call(t.Context(), http.MethodGet, "sys/mounts/mdi", nil, &answer))
	return answer.Data.Version
}
