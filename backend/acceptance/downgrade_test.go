// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
	"example.com/vault-plugin-secrets-mdi/scripts/upgrade/mounts"
)

// previous is a version that a mount can be stepped back to. It is built from the
// history of the repository.
type previous struct {
	version, commit string
	// pages says that it reads the pages of the ledger. A version that does not takes each
	// for a lease that nothing revokes.
	pages bool
}

func previousVersions() []previous {
	return []previous{
		{"v0.1.0", "c0250f66ecf2cd65d39812ceb69cadab2dea34c3", false},
		// The last sources that store only the form of 0.1.
		{"v0.1.1-unreleased", "042a3aa601d391950cb560b2e6a4866d3bda62bf", true},
	}
}

// there is a mount that goes there and back again.
const there = "there-and-back"

// downgrade is a Vault whose mounts are stepped back to an older version.
type downgrade struct {
	*cluster
	old    previous
	binary string // of that
	mounts map[string]*stepped
}

// stepped is a mount in one of the states that an older version has to go on from.
type stepped struct {
	*mounts.Mount
	state mounts.State
	said  map[string]map[string]any // the answers of this version
}

// testDowngrade brings mounts into each state, steps them back as docs/upgrade.md says,
// and uses them with the older version until they are disabled.
func (s *suite) testDowngrade(t *testing.T) {
	t.Parallel()
	for _, old := range previousVersions() {
		t.Run(old.version, func(t *testing.T) {
			t.Parallel()
			d := s.newDowngrade(t, old)
			d.each(t, "enter", d.enter)
			d.register(t, d.binary, old.version) // earlier, new mounts would have run it
			d.step(t, old.version)
			d.each(t, "back", d.expectGoesOn)
			d.step(t, pluginVersion)
			d.expectForward(t, d.mounts[there])
		})
	}
}

// newDowngrade starts a Vault with this version of the plugin. It has no mount.
func (s *suite) newDowngrade(t *testing.T, old previous) *downgrade {
	t.Helper()
	work := filepath.Join(s.work, "downgrade-"+old.version)
	plugins := filepath.Join(work, "plugins")
	require.NoError(t, os.MkdirAll(plugins, 0o700))
	sc, err := s.newScenario(work)
	require.NoError(t, err)
	t.Cleanup(func() { sc.end(t) })
	c := &cluster{sc: sc, plugins: plugins, settings: map[string]any{"raw_storage_endpoint": true}}
	d := &downgrade{cluster: c, old: old, mounts: map[string]*stepped{}}
	d.binary = s.buildPrevious(t, old)
	d.startSingle(t)
	d.register(t, s.plugin(), pluginVersion)
	for name, state := range mounts.States() {
		d.add(t, name, state)
	}
	d.add(t, there, mounts.States()["leases"])
	return d
}

// register puts a plugin into the server's folder and into its catalog.
func (d *downgrade) register(t *testing.T, binary, version string) {
	t.Helper()
	_, err := testbed.Output(t.Context(), "", nil, "cp", binary, d.plugins)
	require.NoError(t, err)
	require.NoError(t, testbed.Register(t.Context(), d, filepath.Join(d.plugins, filepath.Base(binary)), version))
}

// buildPrevious returns the binary of an older version, and keeps it for the next run.
func (s *suite) buildPrevious(t *testing.T, old previous) string {
	t.Helper()
	root := filepath.Dir(s.scripts)
	if err := exec.CommandContext(t.Context(), "git", "-C", root, "cat-file", "-e", old.commit+"^{commit}").Run(); err != nil { //nolint:gosec // a commit of this repository
		t.Skipf("%s is built from commit %s, which this checkout does not have: a clone with the whole history has it (git fetch --unshallow)", old.version, old.commit)
	}
	kept := filepath.Join(root, ".cache", "previous", old.commit, testbed.PluginName+"_"+old.version)
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(kept), 0o750))
	built := filepath.Join(s.work, filepath.Base(kept))
	require.NoError(t, testbed.BuildRevision(t.Context(), root, old.commit, old.version, built))
	_, err := testbed.Output(t.Context(), "", nil, "cp", built, kept+".new")
	require.NoError(t, err)
	require.NoError(t, os.Rename(kept+".new", kept)) // in one step, for other runs
	return kept
}

// add gives a mount that is to be made its tenant.
func (d *downgrade) add(t *testing.T, name string, state mounts.State) {
	t.Helper()
	tenant, err := testbed.StartTenant(t.Context(), state.Tenant...)
	require.NoError(t, err)
	t.Cleanup(func() {
		d.sc.suite.evidence.add(d.sc.logs, tenant.Issued())
		require.NoError(t, tenant.Stop())
	})
	m := mounts.New(t.Context(), d.nodes[0].Client, tenant, name+"/")
	d.mounts[name] = &stepped{Mount: m, state: state}
}

// each does something with each mount, several at a time.
func (d *downgrade) each(t *testing.T, what string, do func(t *testing.T, m *stepped)) {
	t.Helper()
	t.Run(what, func(t *testing.T) {
		for name, m := range d.mounts {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				do(t, m)
			})
		}
	})
}

// enter brings a mount into its state. What is under way stays so: the faults go on.
func (d *downgrade) enter(t *testing.T, m *stepped) {
	m.Enter(m.state)
	m.said = m.Answers()
	stored := m.Stored(m.StoragePath() + "format")
	m.endWait()
	require.NoError(t, m.Err)
	require.JSONEq(t, `{"format":2,"readable_from":1}`, string(stored))
	require.Equal(t, m.state.Fails == "key", m.said["status"]["intent_pending"])
	require.Equal(t, m.state.Fails == "rotate-root", m.said["status"]["root_rotation_pending"])
}

// endWait moves the deadline of an intent, 45 s after its request, into the past.
func (m *stepped) endWait() {
	if m.said["status"]["intent_pending"] != true {
		return
	}
	path := m.StoragePath() + "key"
	past := regexp.MustCompile(`"deadline":"[^"]*"`).ReplaceAllString(string(m.Stored(path)), `"deadline":"2026-01-01T00:00:00Z"`)
	m.Write("sys/raw/"+path, map[string]any{"value": past})
}

// step has all mounts run a version, with the commands of docs/upgrade.md.
func (d *downgrade) step(t *testing.T, version string) {
	t.Helper()
	paths := d.paths(t)
	for _, path := range paths {
		d.vault(t, "secrets", "tune", "-plugin-version="+version, path)
	}
	d.vault(t, "plugin", "reload", "-plugin="+testbed.PluginName)
	for _, path := range paths {
		require.Equal(t, version, d.vault(t, "read", "-field=running_plugin_version", "sys/mounts/"+path))
	}
}

// paths returns those of the mounts that are there.
func (d *downgrade) paths(t *testing.T) []string {
	t.Helper()
	all, err := d.nodes[0].Sys().ListMountsWithContext(t.Context())
	require.NoError(t, err)
	var paths []string
	for path, mount := range all {
		if mount.Type == testbed.PluginName {
			paths = append(paths, path)
		}
	}
	return paths
}

// expectGoesOn uses a mount with the older version, from the first answer to the end.
func (d *downgrade) expectGoesOn(t *testing.T, m *stepped) {
	m.Tenant.Clear()
	d.expectKept(t, m)
	key := d.expectKey(t, m)
	if m.Path == there+"/" {
		return
	}
	d.expectRotation(t, m)
	d.expectRevoked(t, m)
	if !d.old.pages { // what is lost, and what docs/upgrade.md says to do about it
		if m.shares() {
			require.NotEqual(t, "0", d.vault(t, "read", "-field=live_leases", m.Path+"status"))
			require.True(t, m.Tenant.CanRegister(key))
		}
		d.vault(t, "write", "-f", m.Path+"rotate-key")
	}
	requireDead(t, m, key)
	d.vault(t, "secrets", "disable", m.Path)
	require.NotContains(t, d.paths(t), m.Path)
}

// expectKept compares what a version says with what this one has said.
func (d *downgrade) expectKept(t *testing.T, m *stepped) {
	t.Helper()
	now := m.Answers()
	require.NoError(t, m.Err)
	for _, path := range []string{"config", mounts.RolePath} {
		require.Equal(t, m.said[path], now[path], path)
	}
}

// expectKey reads under the role. The answer is the key that was leased before, unless it
// was in doubt; a doubt ends at its deadline.
func (d *downgrade) expectKey(t *testing.T, m *stepped) (key string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		key, _ = m.ReadKey(m.Path + mounts.RoleKey)
		assert.NoError(c, m.Err)
		m.Err = nil
	}, time.Minute, 200*time.Millisecond)
	require.True(t, m.Tenant.CanRegister(key), "the key does not install a sensor")
	if m.shares() {
		require.Equal(t, m.Leases[len(m.Leases)-1].Key, key, "shared")
	}
	return key
}

// shares reports whether the key that was leased last is not in doubt.
func (m *stepped) shares() bool { return m.said["status"]["intent_pending"] == false }

// expectRotation has a rotation of the credential come to its end. Each credential of the
// engine's at the app is in use then, or to be removed.
func (d *downgrade) expectRotation(t *testing.T, m *stepped) {
	t.Helper()
	if !m.state.Rotates() {
		return
	}
	d.vault(t, "write", "-f", m.Path+"rotate-root")
	status := m.Answers()["status"]
	require.NoError(t, m.Err)
	require.Equal(t, false, status["root_rotation_pending"])
	retiring, err := status["root_credentials_retiring"].(json.Number).Int64()
	require.NoError(t, err)
	made := 0
	for _, c := range m.Tenant.Credentials() {
		if strings.HasPrefix(c.DisplayName, testbed.PluginName) {
			made++
		}
	}
	require.GreaterOrEqual(t, made, 1)
	require.LessOrEqual(t, int64(made), 1+retiring)
}

// expectRevoked revokes all leases, of both versions.
func (d *downgrade) expectRevoked(t *testing.T, m *stepped) {
	t.Helper()
	d.vault(t, "lease", "revoke", "-sync", "-prefix", m.Path)
	left, err := testbed.List(t.Context(), d, "sys/leases/lookup/"+strings.TrimSuffix(m.Path, "/"))
	require.NoError(t, err)
	require.Empty(t, left)
	count, err := testbed.Irrevocable(t.Context(), d)
	require.NoError(t, err)
	require.Zero(t, count, "irrevocable leases")
}

func requireDead(t *testing.T, m *stepped, key string) {
	t.Helper()
	require.Eventually(t, func() bool { return !m.Tenant.CanRegister(key) }, 10*time.Second, 50*time.Millisecond, "the key lives on")
}

// expectForward goes on with a mount that this version has back.
func (d *downgrade) expectForward(t *testing.T, m *stepped) {
	t.Helper()
	d.expectKept(t, m)
	key := d.expectKey(t, m)
	d.expectRevoked(t, m)
	requireDead(t, m, key)
	d.vault(t, "secrets", "disable", m.Path)
}
