// SPDX-License-Identifier: MPL-2.0

package check

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// TestTerraformOnARealVault applies the example, unmodified, for an app with a client secret:
// the variant that takes the most steps.
func TestTerraformOnARealVault(t *testing.T) {
	tf := startTerraform(t)
	tf.example()

	tf.run("apply", "-target=vault_mount.mdi")
	tf.write("mdi/config", tf.tenant.Config())
	tf.run("apply")
	tf.unchanged()
	tf.run("apply", "-refresh-only") // the provider adds empty lists to the AppRole's role
	tf.unchanged()
	require.Zero(t, tf.regenerations(), "Terraform has read a key")

	tf.write("mdi/config", map[string]any{"max_key_age": 5})
	tf.changed("a change by hand")
	tf.run("apply")
	tf.unchanged()
	tf.edit("max_key_age ", "maximum_key_age ")
	tf.run("apply")
	tf.changed("a mistyped field, even after it was applied")
	tf.edit("    maximum_key_age                = 0\n", "")
	tf.run("apply")
	tf.changed("a field that is not named, even after that was applied")

	key := tf.read("mdi/key/sensor-hosts")["deployment_access_key"].(string)
	tf.changed("it still is not named")
	state := readFile(t, filepath.Join(tf.folder, "terraform.tfstate"))
	require.Contains(t, state, tf.tenant.App().ClientID)
	require.NotContains(t, state, tf.tenant.App().ClientSecret)
	require.NotContains(t, state, key)
	require.EqualValues(t, 1, tf.regenerations())
	require.True(t, tf.tenant.CanRegister(key))
	tf.run("destroy")
	require.False(t, tf.tenant.CanRegister(key), "the key is regenerated before its mount goes")
}

// TestTerraformFirstApplyNeedsTheSecret is what the operator's step is for.
func TestTerraformFirstApplyNeedsTheSecret(t *testing.T) {
	tf := startTerraform(t)
	tf.example()
	out, err := tf.try("apply", "-auto-approve")
	require.Error(t, err)
	require.Contains(t, out, "client_secret")
}

// TestTerraformThatReadsTheKey is why docs/integrations.md warns of it: it counts how often a
// plan, an apply without a change and a destroy regenerate the key.
func TestTerraformThatReadsTheKey(t *testing.T) {
	for name, c := range map[string]struct {
		read    string
		costs   []int
		inState bool
	}{
		"a data source":              {`data "vault_generic_secret" "key" { path = "mdi/key" }`, []int{1, 1, 1}, true},
		"an ephemeral resource":      {`ephemeral "vault_generic_secret" "key" { path = "mdi/key" }`, []int{1, 2, 1}, false},
		"a data source under a role": {`data "vault_generic_secret" "key" { path = "mdi/key/sensor-hosts" }`, []int{0, 0, 0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			tf := startTerraform(t)
			require.NoError(t, tf.Mount(t.Context(), testbed.PluginName, "mdi", tf.tenant.Config()))
			tf.write("mdi/roles/sensor-hosts", nil)
			tf.read("mdi/key/sensor-hosts")
			tf.config("main.tf", readFile(t, terraformDir+"/versions.tf")+"resource \"terraform_data\" \"any\" {}\n"+c.read)
			out, err := tf.try("init", tf.plugins()...)
			require.NoError(t, err, out)
			for i, command := range [][]string{{"plan"}, {"apply", "-auto-approve"}, {"destroy", "-auto-approve"}} {
				before := tf.regenerations()
				out, err := tf.try(command[0], command[1:]...)
				require.NoError(t, err, out)
				require.Equal(t, c.costs[i], tf.regenerations()-before, command[0])
				if command[0] == "apply" {
					state, err := os.ReadFile(filepath.Join(tf.folder, "terraform.tfstate"))
					require.True(t, err == nil || errors.Is(err, os.ErrNotExist), err)
					require.Equal(t, c.inState, strings.Contains(string(state), tf.tenant.Key()))
				}
			}
		})
	}
}

// terraformRun is Terraform or OpenTofu, in a folder of its own.
type terraformRun struct {
	*server
	program, folder string
}

func startTerraform(t *testing.T) terraformRun {
	t.Helper()
	for _, program := range []string{"terraform", "tofu"} {
		if _, err := exec.LookPath(program); err != nil {
			continue
		}
		tf := terraformRun{server: startVault(t), program: program}
		tf.folder = filepath.Join(tf.dir, "scripts", "integrations", "terraform")
		require.NoError(t, os.MkdirAll(tf.folder, 0o700))
		tf.needProvider()
		return tf
	}
	lacks(t, "there is neither terraform nor tofu")
	return terraformRun{}
}

// needProvider skips the test if the provider is not to be had: neither from its registry nor
// from the folder that MDI_TERRAFORM_PLUGINS names.
func (tf terraformRun) needProvider() {
	tf.t.Helper()
	tf.config("versions.tf", readFile(tf.t, terraformDir+"/versions.tf"))
	out, err := tf.try("init", tf.plugins()...)
	if err != nil && strings.Contains(out, "Failed to query available provider packages") {
		lacks(tf.t, "%s cannot get hashicorp/vault from its registry; MDI_TERRAFORM_PLUGINS can name a folder to take it from, as terraform init -plugin-dir does", tf.program)
	}
	require.NoError(tf.t, err, out)
	require.NoError(tf.t, os.Remove(filepath.Join(tf.folder, "versions.tf")))
}

func (tf terraformRun) plugins() []string {
	if folder := os.Getenv("MDI_TERRAFORM_PLUGINS"); folder != "" {
		return []string{"-plugin-dir=" + folder}
	}
	return nil
}

// example copies the example and the policies that it reads, and writes its variables.
func (tf terraformRun) example() {
	tf.t.Helper()
	files, err := filepath.Glob(terraformDir + "/*.tf")
	require.NoError(tf.t, err)
	for _, file := range files {
		tf.config(filepath.Base(file), readFile(tf.t, file))
	}
	require.NoError(tf.t, os.Mkdir(filepath.Join(tf.dir, "scripts", "policies"), 0o700))
	for _, policy := range []string{"sensor-host.hcl", "monitor.hcl"} {
		tf.file(filepath.Join("scripts", "policies", policy), readFile(tf.t, "../../policies/"+policy))
	}
	connection := testbed.AppFields(tf.tenant.Info())
	maps.Copy(connection, map[string]any{
		"credential_type": "client_secret",
		"ca_certificate":  strings.TrimSpace(tf.tenant.CACertificate()), // as variables.tf says
	})
	variables, err := json.Marshal(map[string]any{
		"plugin_versions": map[string]string{tf.version: tf.sha256},
		"plugin_version":  tf.version,
		"connection":      connection,
	})
	require.NoError(tf.t, err)
	tf.config("site.auto.tfvars.json", string(variables))
	out, err := tf.try("init", tf.plugins()...)
	require.NoError(tf.t, err, out)
}

func (tf terraformRun) config(name, text string) {
	tf.t.Helper()
	require.NoError(tf.t, os.WriteFile(filepath.Join(tf.folder, name), []byte(text), 0o600))
}

// edit changes the example.
func (tf terraformRun) edit(from, to string) {
	tf.t.Helper()
	text := readFile(tf.t, filepath.Join(tf.folder, "main.tf"))
	require.Contains(tf.t, text, from)
	tf.config("main.tf", strings.ReplaceAll(text, from, to))
}

func (tf terraformRun) run(command string, args ...string) {
	tf.t.Helper()
	out, err := tf.try(command, append(args, "-auto-approve")...)
	require.NoError(tf.t, err, out)
}

// unchanged makes a plan that must have no change.
func (tf terraformRun) unchanged() {
	tf.t.Helper()
	out, err := tf.try("plan", "-detailed-exitcode")
	require.NoError(tf.t, err, out)
}

// changed makes a plan that must have a change.
func (tf terraformRun) changed(why string) {
	tf.t.Helper()
	out, err := tf.try("plan", "-detailed-exitcode")
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(tf.t, ok && exit.ExitCode() == 2, "%s: %s", why, out)
}

func (tf terraformRun) try(command string, args ...string) (string, error) {
	tf.t.Helper()
	args = append([]string{command, "-no-color", "-input=false"}, args...)
	return tf.output(tf.folder, tf.env(tf.root, "TF_CLI_CONFIG_FILE=/dev/null", "CHECKPOINT_DISABLE=1"), tf.program, args...)
}
