// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	simulatorName = "mdi-simulator"
	proxyName     = "forward-proxy"

	// pluginVersion is stamped into the plugin, to see that Vault runs this one.
	pluginVersion = "v0.0.0-acceptance"
)

// suite is what all scenarios of a run share.
type suite struct {
	scripts  string // the repository's scripts
	bin      string // vault and the programs of the tests, by their names
	plugins  string // the plugin and nothing else: Vault registers every file
	sockets  string // where Vault and the plugin meet
	logs     string // a folder of logs for each scenario
	work     string // and one to run in
	evidence evidence
}

// newSuite builds the programs and finds a Vault. Without one it fails: these tests
// say nothing if they do not run.
func newSuite(t *testing.T) *suite {
	t.Helper()
	root, err := testbed.Repository()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "mdi") //nolint:usetesting // the path of t.TempDir is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	s := &suite{
		scripts: filepath.Join(root, "scripts"),
		bin:     filepath.Join(dir, "bin"),
		plugins: filepath.Join(dir, "plugins"),
		sockets: filepath.Join(dir, "sockets"),
		logs:    filepath.Join(dir, "logs"),
		work:    filepath.Join(dir, "work"),
	}
	for _, d := range []string{s.bin, s.plugins, s.sockets, s.logs, s.work} {
		require.NoError(t, os.Mkdir(d, 0o700))
	}
	vault, err := testbed.FindVault(t.Context(), root)
	require.NoError(t, err)
	require.NoError(t, os.Symlink(vault, s.program("vault")))
	for _, program := range []struct{ pkg, version, file string }{
		{"./cmd/" + simulatorName, "", s.program(simulatorName)},
		{"./backend/acceptance/internal/proxy", "", s.program(proxyName)},
		{"./cmd/" + testbed.PluginName, pluginVersion, s.plugin()},
	} {
		require.NoError(t, testbed.BuildPackage(t.Context(), root, program.pkg, program.version, program.file))
	}
	return s
}

// program returns the file of a program of the tests, or of Vault.
func (s *suite) program(name string) string { return filepath.Join(s.bin, name) }

// plugin returns the file of the plugin.
func (s *suite) plugin() string { return filepath.Join(s.plugins, testbed.PluginName) }
