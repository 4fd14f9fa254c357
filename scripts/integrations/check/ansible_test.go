// SPDX-License-Identifier: MPL-2.0

package check

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const playbookFile = "../ansible/install-sensor.yml"

// keyField finds the fields of an answer that a task uses.
var keyField = regexp.MustCompile(`\w+\)?\.data\.data\.(\w+)`)

// The playbook reads the key once for all hosts, and again only for a host that finds it
// replaced. What has the key is never logged.
func TestPlaybookReadsTheKeyOnceAndLogsItNever(t *testing.T) {
	var reads []map[string]any
	asked := 0
	for _, task := range tasks(t) {
		read, reading := task["community.hashi_vault.vault_read"].(map[string]any)
		text, err := json.Marshal(task)
		require.NoError(t, err)
		if reading {
			u := use{op: "read", path: strings.TrimPrefix(read["path"].(string), "mdi/"), out: []string{"key_version"}}
			require.Equal(t, "localhost", task["delegate_to"])
			if u.path == "key-version" {
				asked++
				require.Equal(t, false, task["failed_when"], "an older engine does not know it")
			} else {
				reads = append(reads, task)
				u.out = append(u.out, "deployment_access_key")
			}
			require.NoError(t, u.wrong(newEngine(t).openAPI()))
			reading = u.path != "key-version"
		}
		if reading || keyField.Match(text) {
			require.Equal(t, true, task["no_log"], "%s has the key", task["name"])
		}
	}
	require.Equal(t, 1, asked)
	require.Len(t, reads, 2)
	require.Equal(t, true, reads[0]["run_once"])
	require.Contains(t, reads[1]["when"], "current.data.data.key_version != access.data.data.key_version")
	for _, read := range reads {
		require.Contains(t, fmt.Sprint(read["when"]), "not ansible_check_mode", "--check must not read the key")
	}
	require.Contains(t, readFile(t, playbookFile), "(again if again.data is defined else access).data.data.deployment_access_key")
}

// TestPlaybookPassesWhatTheScriptTakes compares the parameters that the playbook passes
// with those that install-sensor.ps1 declares.
func TestPlaybookPassesWhatTheScriptTakes(t *testing.T) {
	runs := 0
	file := at(t, play(t), "vars", "install_script").(string)
	script := readFile(t, filepath.Join(filepath.Dir(playbookFile), file))
	for _, task := range tasks(t) {
		line, runsScript := task["ansible.builtin.script"].(string)
		if !runsScript {
			continue
		}
		runs++
		require.True(t, strings.HasPrefix(line, "{{ install_script }} "))
		for _, parameter := range regexp.MustCompile(` -(\w+) "`).FindAllStringSubmatch(line, -1) {
			require.Contains(t, script, "[string] $"+parameter[1])
		}
	}
	require.Equal(t, 1, runs)
}

func play(t *testing.T) map[string]any {
	t.Helper()
	var plays []map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(readFile(t, playbookFile)), &plays))
	require.Len(t, plays, 1)
	return plays[0]
}

// tasks returns all tasks of the playbook, including those in blocks.
func tasks(t *testing.T) []map[string]any {
	t.Helper()
	return flatten(play(t)["tasks"])
}

func flatten(list any) []map[string]any {
	var all []map[string]any
	items, _ := list.([]any)
	for _, item := range items {
		task := item.(map[string]any)
		inner := append(flatten(task["block"]), flatten(task["always"])...)
		if len(inner) == 0 {
			inner = append(inner, task)
		}
		all = append(all, inner...)
	}
	return all
}
