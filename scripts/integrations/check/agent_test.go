// SPDX-License-Identifier: MPL-2.0

package check

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const installScript = "../../sensor-host/install-sensor.ps1"

// TestAgentPassesWhatTheScriptTakes compares the parameters that the agents' configurations
// pass to install-sensor.ps1 with those that it declares, and the files that it reads beside
// the key with those that the agents write.
func TestAgentPassesWhatTheScriptTakes(t *testing.T) {
	script := readFile(t, installScript)
	beside := regexp.MustCompile(`Join-Path \(Split-Path \$AccessKeyFile\) '([^']+)'`).FindAllStringSubmatch(script, -1)
	require.Len(t, beside, 2)
	for _, file := range []string{"../windows-agent/agent.hcl", "../../sensor-host/agent.hcl"} {
		text := readFile(t, file)
		_, arguments, found := strings.Cut(text, `install-sensor.ps1", `)
		require.True(t, found, file)
		arguments, _, _ = strings.Cut(arguments, "\n")
		passed := regexp.MustCompile(`"-(\w+)", "`).FindAllStringSubmatch(arguments, -1)
		require.Len(t, passed, 2, file)
		for _, parameter := range passed {
			require.Contains(t, script, "[string] $"+parameter[1], file)
		}
		for _, name := range beside {
			require.Regexp(t, `(path|destination) += "([^"]*/)?`+regexp.QuoteMeta(name[1])+`"`, text, file)
		}
		require.NotRegexp(t, `(?m)^\s*(listener|api_proxy|cache)\b`, text, "%s: every user of the host could read the key", file)
	}
}
