// SPDX-License-Identifier: MPL-2.0

package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const repository = "../../.."

// programs builds the plugin, and finds or builds a Vault, once for all tests.
var programs = sync.OnceValues(func() (p testbed.Programs, err error) {
	ctx := context.Background()
	if p.Root, err = filepath.Abs(repository); err != nil {
		return p, err
	}
	if _, err = testbed.Output(ctx, p.Root, nil, "make", "--no-print-directory", "build"); err != nil {
		return p, err
	}
	p.Plugin = filepath.Join(p.Root, "dist", "plugins", testbed.PluginName)
	p.Vault, err = testbed.FindVault(ctx, p.Root)
	return p, err
})

// server is a real Vault that has the plugin in its catalog, and a simulated tenant.
type server struct {
	*testbed.Vault
	t       *testing.T
	tenant  *testbed.Tenant
	binary  string // of Vault
	dir     string // for files of the test
	version string // of the plugin
	sha256  string
	root    string // token
}

// startVault runs a server. The plugin's file has the name that it has in a release.
func startVault(t *testing.T) *server {
	t.Helper()
	found, err := programs()
	require.NoError(t, err)
	tenant, err := testbed.StartTenant(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tenant.Stop()) })
	vault, err := testbed.StartVault(t.Context(), testbed.Server{Binary: found.Vault, Storage: "inmem", Level: "info"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Stop()) })
	s := &server{Vault: vault, t: t, tenant: tenant, binary: found.Vault, dir: t.TempDir()}
	s.version, err = testbed.Output(t.Context(), "", nil, found.Plugin, "-version")
	require.NoError(t, err)
	text := readFile(t, found.Plugin)
	s.root, s.sha256 = vault.Token(), fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	plugin := s.file(fmt.Sprintf("%s_%s_linux_amd64", testbed.PluginName, strings.TrimPrefix(s.version, "v")), text)
	require.NoError(t, os.Chmod(plugin, 0o700)) //nolint:gosec // it is to be run
	require.NoError(t, vault.Install(t.Context(), plugin, s.version))
	return s
}

// mounted returns a server whose engine owns the key of the tenant and has the role and the
// policies of the examples.
func mounted(t *testing.T) *server {
	t.Helper()
	s := startVault(t)
	require.NoError(t, s.Mount(t.Context(), testbed.PluginName, "mdi", s.tenant.Config()))
	s.write("mdi/roles/sensor-hosts", map[string]any{"ttl": "30m"})
	for _, policy := range []string{"sensor-host", "monitor"} {
		require.NoError(t, s.Sys().PutPolicy(policy, readFile(t, "../../policies/"+policy+".hcl")))
	}
	return s
}

func (s *server) write(path string, data map[string]any) map[string]any {
	s.t.Helper()
	secret, err := s.Logical().WriteWithContext(s.t.Context(), path, data)
	require.NoError(s.t, err)
	if secret == nil {
		return nil
	}
	return secret.Data
}

func (s *server) read(path string) map[string]any {
	s.t.Helper()
	secret, err := s.Logical().ReadWithContext(s.t.Context(), path)
	require.NoError(s.t, err)
	require.NotNil(s.t, secret, path)
	return secret.Data
}

// tokenOf returns a token with a policy of the project.
func (s *server) tokenOf(policy string) string {
	s.t.Helper()
	secret, err := s.Logical().WriteWithContext(s.t.Context(), "auth/token/create", map[string]any{"policies": policy, "ttl": "1h"})
	require.NoError(s.t, err)
	return secret.Auth.ClientToken
}

// appRole makes an AppRole and writes its role id and secret id into the test's folder, for
// an agent.
func (s *server) appRole(policy string) {
	s.t.Helper()
	methods, err := s.Sys().ListAuth()
	require.NoError(s.t, err)
	if methods["approle/"] == nil {
		s.write("sys/auth/approle", map[string]any{"type": "approle"})
	}
	role := "auth/approle/role/" + policy
	s.write(role, map[string]any{"token_policies": policy, "token_ttl": "1h"})
	s.file("role-id", s.read(role + "/role-id")["role_id"].(string))
	s.file("secret-id", s.write(role+"/secret-id", nil)["secret_id"].(string))
}

// file writes a file of the test's folder and returns its path.
func (s *server) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	require.NoError(s.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// env is the environment of a client's process.
func (s *server) env(token string, more ...string) []string {
	return append(append(testbed.Environment(s.dir, s.dir), "VAULT_ADDR="+s.Address(), "VAULT_TOKEN="+token), more...)
}

// start runs a program in the background until the test ends.
func (s *server) start(env []string, name string, args ...string) *testbed.Process {
	s.t.Helper()
	process, err := testbed.Start(filepath.Join(s.dir, filepath.Base(name)+".log"), env, name, args...)
	require.NoError(s.t, err)
	s.t.Cleanup(process.Stop)
	return process
}

// output runs a program and returns what it printed, also if it failed.
func (s *server) output(dir string, env []string, name string, args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), name, args...) //nolint:gosec // a client that the test is for
	var out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &out
	err := cmd.Run()
	for _, key := range s.tenant.Issued() {
		require.NotContains(s.t, out.String(), key, "the output has a key")
	}
	return out.String(), err
}

// adapted returns an example with its places replaced by those of the test.
func adapted(t *testing.T, file string, replacements ...string) string {
	t.Helper()
	text := readFile(t, file)
	for pair := range slices.Chunk(replacements, 2) {
		require.Contains(t, text, pair[0], file)
		text = strings.ReplaceAll(text, pair[0], pair[1])
	}
	return text
}

func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, within, 100*time.Millisecond, what)
}
