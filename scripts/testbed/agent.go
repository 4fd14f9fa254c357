// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Agent describes a real Vault Agent that keeps the deployment access key in a file.
type Agent struct {
	Binary  string // of Vault
	Address string // URL of the server
	Token   string
	Path    string // to read the key from
	Dir     string // for its configuration and the key; it must exist
	Log     string // file
	Level   string // of the log
	Env     []string
}

// Start runs the agent.
func (a Agent) Start() (*Process, error) {
	config, err := json.Marshal(a.config())
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(a.file("token"), []byte(a.Token), 0o600),
		os.WriteFile(a.file("agent.json"), config, 0o600),
	)
	if err != nil {
		return nil, err
	}
	return Start(a.Log, a.Env, a.Binary, "agent", "-config="+a.file("agent.json"), "-log-level="+a.Level)
}

// KeyFile is where the agent puts the key. The agent writes another file and renames
// it, so this one is always complete.
func (a Agent) KeyFile() string { return a.file("access-key.txt") }

func (a Agent) config() map[string]any {
	return map[string]any{
		"vault": map[string]any{"address": a.Address},
		"auto_auth": map[string]any{"method": []map[string]any{{
			"type":   "token_file",
			"config": map[string]any{"token_file_path": a.file("token")},
		}}},
		"template": []map[string]any{{
			"contents":             fmt.Sprintf("{{- with secret %q -}}{{- .Data.deployment_access_key -}}{{- end -}}", a.Path),
			"destination":          a.KeyFile(),
			"perms":                "0600",
			"error_on_missing_key": true,
		}},
	}
}

func (a Agent) file(name string) string { return filepath.Join(a.Dir, name) }
