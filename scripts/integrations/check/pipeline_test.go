// SPDX-License-Identifier: MPL-2.0

package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	workflowFile = "../pipeline/github-workflow.yml"
	pipelineFile = "../pipeline/azure-pipelines.yml"

	// idToken has the characters that can occur in a token.
	idToken = "header.payload+/=.signature"
)

// standIns are programs that record their calls in the folder $CALLS.
// ansible-playbook fails if $FAIL is set.
var standIns = map[string]string{
	"vault": `echo "vault $*" >>"$CALLS/lines"
if [[ $1 == write ]]; then cat >"$CALLS/id-token"; echo hvs.token; fi`,
	"ansible-playbook": `echo "ansible-playbook $*" >>"$CALLS/lines"; env >"$CALLS/env"
[[ -z ${FAIL:-} ]]`,
	"curl": `echo "curl $*" >"$CALLS/curl"
while (($# > 0)); do if [[ $1 == --header ]]; then cat "${2#@}" >"$CALLS/header"; fi; shift; done
echo '{"count":1,"value":"` + idToken + `"}'`,
	"jq": `sed 's/.*"value":"\([^"]*\)".*/\1/'`,
}

func TestWorkflowInstallsAndRevokes(t *testing.T) {
	job := at(t, yamlDocuments(t, workflowFile)[0], "jobs", "install")
	steps := at(t, job, "steps").([]any)
	script := at(t, steps[len(steps)-1], "run").(string)
	audience := at(t, job, "env", "VAULT_AUDIENCE").(string)
	require.Equal(t, []any{audience}, at(t, role(t, "github"), "bound_audiences"))
	require.Contains(t, at(t, role(t, "github"), "bound_subject"), ":environment:"+at(t, job, "environment").(string))

	calls := run(t, script, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token",
		"ACTIONS_ID_TOKEN_REQUEST_URL=https://example.com/token?a=b", "VAULT_AUDIENCE="+audience)
	require.Equal(t, "Authorization: bearer request-token", calls.file("header"))
	require.NotContains(t, calls.file("curl"), "request-token", "it is on no command line")
	require.Contains(t, calls.file("curl"), "audience="+audience)
	calls.signedIn("github")
}

func TestPipelineInstallsAndRevokes(t *testing.T) {
	document := yamlDocuments(t, pipelineFile)[0]
	deployment := at(t, document, "jobs").([]any)[0]
	steps := at(t, deployment, "strategy", "runOnce", "deploy", "steps").([]any)
	inputs := at(t, steps[len(steps)-1], "inputs")
	require.Equal(t, true, at(t, inputs, "addSpnToEnvironment"), "without it there is no idToken")
	require.Contains(t, at(t, role(t, "azure"), "bound_subject"), "/"+at(t, inputs, "azureSubscription").(string))

	calls := run(t, at(t, inputs, "inlineScript").(string), "idToken="+idToken)
	calls.signedIn("azure-pipelines")
	require.NotContains(t, calls.file("env"), idToken)
}

func TestTokenIsRevokedAfterAFailure(t *testing.T) {
	script := "printf %s " + idToken + " | ./with-vault-token.sh github install-sensors ansible-playbook x"
	calls := runScript(t, script, "FAIL=1")
	require.Error(t, calls.err, "the pipeline fails with its command")
	require.Contains(t, calls.file("lines"), "vault token revoke -self")
}

// calls are the recorded calls of stand-ins.
type calls struct {
	t   *testing.T
	dir string
	err error // of the script
}

// run runs a script that must succeed.
func run(t *testing.T, script string, env ...string) calls {
	t.Helper()
	c := runScript(t, script, env...)
	require.NoError(t, c.err)
	return c
}

// runScript runs a script of a pipeline in the folder of its helper, with stand-ins for
// the programs that it calls.
func runScript(t *testing.T, script string, env ...string) calls {
	t.Helper()
	bin := t.TempDir()
	c := calls{t: t, dir: t.TempDir()}
	for name, text := range standIns {
		text = "#!/usr/bin/env bash\nset -euo pipefail\n" + text + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700)) //nolint:gosec // it is to be run
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-eo", "pipefail", "-c", script) //nolint:gosec // of this repository
	cmd.Dir = filepath.Dir(workflowFile)
	cmd.Env = append([]string{"CALLS=" + c.dir, "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH")}, env...)
	var out []byte
	out, c.err = cmd.CombinedOutput()
	require.NotContains(t, string(out), idToken)
	require.NotContains(t, string(out), "hvs.token")
	return c
}

// signedIn checks that the script got a token from Vault, used and revoked it, and that
// neither that nor the ID token was on a command line.
func (c calls) signedIn(path string) {
	c.t.Helper()
	lines := strings.Split(strings.TrimSpace(c.file("lines")), "\n")
	require.Equal(c.t, []string{
		"vault write -field=token auth/" + path + "/login role=install-sensors jwt=-",
		"ansible-playbook -i inventory install-sensor.yml",
		"vault token revoke -self",
	}, lines[len(lines)-3:])
	require.Equal(c.t, idToken, strings.TrimSpace(c.file("id-token")))
	require.NotContains(c.t, c.file("lines"), idToken)
	require.Contains(c.t, c.file("env"), "VAULT_TOKEN=hvs.token")
}

func (c calls) file(name string) string {
	c.t.Helper()
	return readFile(c.t, filepath.Join(c.dir, name))
}

// role returns a role of Vault's JWT auth method.
func role(t *testing.T, provider string) map[string]any {
	t.Helper()
	return decode(t, []byte(readFile(t, "../pipeline/"+provider+"-role.json")))
}
