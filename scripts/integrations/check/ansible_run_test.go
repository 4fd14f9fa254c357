// SPDX-License-Identifier: MPL-2.0

package check

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// windowsModules do on this machine what the modules of ansible.windows do on a host. What
// runs is otherwise real: Ansible, community.hashi_vault with hvac, the playbook, Vault.
var windowsModules = map[string]string{
	"win_stat": `module.exit_json(stat=dict(exists=os.path.exists(module.params["path"])))`,
	"win_tempfile": `
path = tempfile.mkstemp(module.params["suffix"])[1]
module.exit_json(changed=True, path=path)`,
	"win_copy": `
with open(module.params["dest"], "w") as file:
    file.write(module.params["content"])
module.exit_json(changed=True)`,
	"win_file": `
os.remove(module.params["path"])
module.exit_json(changed=True)`,
}

const windowsModule = `#!/usr/bin/python3
import os, tempfile
from ansible.module_utils.basic import AnsibleModule
names = ("path", "state", "suffix", "content", "dest")
module = AnsibleModule({name: dict(type="str", no_log=name == "content") for name in names}, supports_check_mode=True)
`

// TestPlaybookOnARealVault runs the playbook, unmodified, for two hosts.
func TestPlaybookOnARealVault(t *testing.T) {
	need(t, "ansible-playbook", "ansible")
	python(t)
	s := mounted(t)
	hosts := s.ansibleHosts()

	out, err := hosts.play("--check")
	require.NoError(t, err, out)
	require.Equal(t, 2, strings.Count(out, "Vault answers."), out)
	require.Zero(t, s.tenant.Calls(graphtest.Regenerate).Started, "--check has read the key")
	require.Empty(t, hosts.installed())

	out, err = hosts.play("-vvv")
	require.NoError(t, err, out)
	require.NotContains(t, out, hosts.token)
	require.Len(t, hosts.installed(), 2)
	for _, key := range hosts.installed() {
		require.True(t, s.tenant.CanRegister(key), "a host has installed with another key")
	}
	require.EqualValues(t, "1", s.read("mdi/status")["live_leases"].(fmt.Stringer).String(), "one read for all hosts")
	require.Empty(t, hosts.left(), "the file with the key is removed")

	require.NoError(t, os.Remove(hosts.installer))
	out, err = hosts.play("--check")
	require.Error(t, err, "there is no package to install")
	require.Contains(t, out, "failed=1")
}

// ansibleHosts are hosts of an inventory that Ansible reaches on this machine.
type ansibleHosts struct {
	*server
	token, installer, inventory, script string
}

func (s *server) ansibleHosts() ansibleHosts {
	s.t.Helper()
	modules := filepath.Join(s.dir, "ansible_collections", "ansible", "windows", "plugins", "modules")
	for _, dir := range []string{modules, filepath.Join(s.dir, "installed"), filepath.Join(s.dir, "left")} {
		require.NoError(s.t, os.MkdirAll(dir, 0o700))
	}
	for name, text := range windowsModules {
		require.NoError(s.t, os.WriteFile(filepath.Join(modules, name+".py"), []byte(windowsModule+text+"\n"), 0o600))
	}
	return ansibleHosts{
		server:    s,
		token:     s.tokenOf("sensor-host"),
		installer: s.file("Azure ATP sensor Setup.exe", ""),
		inventory: s.file("inventory", "[sensor_hosts]\ndc1\ndc2\n[sensor_hosts:vars]\nansible_connection=local\n"),
		// Instead of install-sensor.ps1, whose parameters another test compares.
		script: s.file("install.sh", "#!/bin/sh\nset -eu\n[ \"$1 $3\" = '-AccessKeyFile -Installer' ]\n[ -e \"$4\" ]\ncp \"$2\" \"$(mktemp '"+s.dir+"/installed/XXXXXX')\"\n"),
	}
}

func (h ansibleHosts) play(args ...string) (string, error) {
	h.t.Helper()
	playbook, err := filepath.Abs(playbookFile)
	require.NoError(h.t, err)
	args = append(args, "-i", h.inventory, "-e", "install_script="+h.script, "-e", fmt.Sprintf(`{"installer": %q}`, h.installer), playbook)
	return h.output(h.dir, h.env(h.token, "ANSIBLE_COLLECTIONS_PATH="+h.dir, "ANSIBLE_LOCALHOST_WARNING=false", "TMPDIR="+filepath.Join(h.dir, "left"), "LANG=C.UTF-8"),
		"ansible-playbook", args...)
}

// installed returns the keys with which a host has run the installer.
func (h ansibleHosts) installed() (keys []string) {
	for _, file := range h.files("installed") {
		keys = append(keys, readFile(h.t, file))
	}
	return keys
}

// left returns the files that the playbook has left in the hosts' folder for such files.
func (h ansibleHosts) left() []string { return h.files("left") }

func (h ansibleHosts) files(folder string) []string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, folder, "*"))
	require.NoError(h.t, err)
	return files
}

// TestHVACReadsTheKey is Python's client for Vault: what a script of an administrator uses.
func TestHVACReadsTheKey(t *testing.T) {
	interpreter := python(t)
	s := mounted(t)
	script := `import hvac, os
vault = hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"])
answer = vault.read("mdi/key/sensor-hosts")
assert not answer["renewable"] and answer["lease_duration"] == 1800, "the lease"
assert vault.read("mdi/key-version")["data"]["key_version"] == answer["data"]["key_version"]
with open("key.txt", "w") as file:
    file.write(answer["data"]["deployment_access_key"])
`
	out, err := s.output(s.dir, s.env(s.tokenOf("sensor-host")), interpreter, "-c", script)
	require.NoError(t, err, out)
	require.True(t, s.tenant.CanRegister(readFile(t, filepath.Join(s.dir, "key.txt"))))
}

// python returns a Python that has hvac. A version manager's comes first on PATH on many
// machines, and Debian's has Debian's packages.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(t.Context(), name, "-c", "import hvac").Run() == nil { //nolint:gosec // one of two
			return name
		}
	}
	lacks(t, "no Python here has hvac; on Debian: apt-get install python3-hvac")
	return ""
}
