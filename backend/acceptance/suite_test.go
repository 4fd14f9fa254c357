// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	pluginName    = "vault-plugin-secrets-mdi"
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
	root, err := filepath.Abs(filepath.Join("..", ".."))
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
	tool := func(name string, args ...string) string {
		return output(t, root, os.Environ(), name, args...)
	}
	require.NoError(t, os.Symlink(tool(filepath.Join(s.scripts, "vault.sh")), filepath.Join(s.bin, "vault")))
	tool("go", "build", "-o", filepath.Join(s.bin, simulatorName), "./cmd/"+simulatorName)
	tool("go", "build", "-o", filepath.Join(s.bin, proxyName), "./backend/acceptance/internal/proxy")
	// As in the Makefile: what is tested is what ships.
	output(t, root, append(os.Environ(), "CGO_ENABLED=0"), "go", "build", "-trimpath",
		"-ldflags", "-s -w -X "+pluginName+"/backend.Version="+pluginVersion,
		"-o", filepath.Join(s.plugins, pluginName), "./cmd/"+pluginName)
	return s
}

// output runs a program and returns what it prints.
func output(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...) //nolint:gosec // newSuite names the programs
	cmd.Dir, cmd.Env = dir, env
	cmd.Stderr = os.Stderr // building a Vault takes minutes, and says so
	out, err := cmd.Output()
	require.NoErrorf(t, err, "%s %s", name, strings.Join(args, " "))
	return strings.TrimSpace(string(out))
}
