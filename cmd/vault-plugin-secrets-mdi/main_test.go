// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend"
)

// asPlugin names the variable with which this test's binary is the plugin.
const asPlugin = "MDI_TEST_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A person who starts the plugin learns what it is; a server still gets the plugin.
func TestArguments(t *testing.T) {
	for argument, wanted := range map[string]string{
		"-version": "^" + backend.Version + "\n$", "--version": "^" + backend.Version + "\n$",
		"-h": "(?s)Vault or OpenBao starts it.*plugin register", "-help": "It is a plugin", "--help": "It is a plugin",
	} {
		said, err := start(t, argument)
		require.NoError(t, err, argument)
		require.Regexp(t, wanted, string(said), argument)
	}
	_, err := start(t, "-tls-skip-verify")
	require.Error(t, err, "without a server there is nothing to serve")
}

func start(t *testing.T, argument string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], argument) //nolint:gosec // this test
	cmd.Env = append(os.Environ(), asPlugin+"=1")
	return cmd.Output()
}
