// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// agentConfig is that of an agent that keeps a key in a file.
const agentConfig = `
auto_auth {
  method "token_file" {
    config = { token_file_path = %q }
  }
}
vault { address = %q }
template {
  contents             = "{{ with secret \"mdi/key/hosts\" }}{{ .Data.deployment_access_key }}{{ end }}"
  destination          = %q
  error_on_missing_key = true
}
`

// startAgents runs an agent for each node but the first.
func (f *failover) startAgents(t *testing.T) {
	t.Helper()
	token := filepath.Join(f.sc.work, "token")
	require.NoError(t, os.WriteFile(token, []byte(f.nodes[0].token), 0o600))
	for i, n := range f.nodes[1:] {
		config := filepath.Join(f.sc.work, fmt.Sprintf("agent-%d.hcl", i+1))
		text := fmt.Appendf(nil, agentConfig, token, n.address, f.agentFile(i))
		require.NoError(t, os.WriteFile(config, text, 0o600))
		agent, err := start(filepath.Join(f.sc.logs, fmt.Sprintf("agent-%d.log", i+1)), f.sc.env,
			filepath.Join(f.sc.suite.bin, "vault"), "agent", "-config="+config, "-log-level=trace")
		require.NoError(t, err)
		t.Cleanup(agent.shutdown)
		f.agents = append(f.agents, agent)
	}
}

func (f *failover) agentFile(i int) string {
	return filepath.Join(f.sc.work, fmt.Sprintf("agent-%d.key", i+1))
}

// expectAgents waits until each agent's file has a key that installs a sensor. Agents
// wait longer each time that they get none.
func (f *failover) expectAgents(t *testing.T) {
	t.Helper()
	for i := range f.agents {
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			key, err := os.ReadFile(f.agentFile(i))
			assert.NoError(c, err)
			registers, err := f.tenant.Register(t.Context(), string(key))
			assert.NoError(c, err)
			assert.True(c, registers)
		}, 90*time.Second, 200*time.Millisecond)
	}
}
