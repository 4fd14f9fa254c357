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
		cmd := exec.CommandContext(t.Context(), os.Args[0], argument)
		cmd.Env = append(os.Environ(), asPlugin+"=1")
		said, err := cmd.Output()
		require.NoError(t, err, argument)
		require.Regexp(t, wanted, string(said), argument)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-tls-skip-verify")
	cmd.Env = append(os.Environ(), asPlugin+"=1")
	require.Error(t, cmd.Run(), "without a server there is nothing to serve")
}
