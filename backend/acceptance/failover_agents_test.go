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

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// agent is one that keeps a key in a file.
type agent struct {
	process *testbed.Process
	file    string
}

// startAgents runs an agent for each node but the first.
func (f *failover) startAgents(t *testing.T) {
	t.Helper()
	for i, n := range f.nodes[1:] {
		name := fmt.Sprintf("agent-%d", i+1)
		settings := testbed.Agent{
			Binary: f.sc.suite.program("vault"), Address: n.Address(), Token: n.Token(), Path: "mdi/key/hosts",
			Dir: filepath.Join(f.sc.work, name), Log: filepath.Join(f.sc.logs, name+".log"), Level: "trace", Env: f.sc.env,
		}
		require.NoError(t, os.Mkdir(settings.Dir, 0o700))
		process, err := settings.Start()
		require.NoError(t, err)
		t.Cleanup(process.Stop)
		f.agents = append(f.agents, agent{process, settings.KeyFile()})
	}
}

// expectAgents waits until each agent's file has a key that installs a sensor. Agents
// wait longer each time that they get none.
func (f *failover) expectAgents(t *testing.T) {
	t.Helper()
	for _, a := range f.agents {
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			key, err := os.ReadFile(a.file)
			assert.NoError(c, err)
			registers, err := f.tenant.Register(t.Context(), string(key))
			assert.NoError(c, err)
			assert.True(c, registers)
		}, 90*time.Second, 200*time.Millisecond)
	}
}
