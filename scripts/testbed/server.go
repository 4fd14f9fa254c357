// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/hashicorp/vault/api"
)

// Raft is the storage that keeps a server's state on disk. The other one is "inmem".
const Raft = "raft"

// Server describes a Vault server that listens on the loopback interface without TLS.
type Server struct {
	Binary  string   // of Vault
	Name    string   // of the node
	Dir     string   // for the configuration and the state; it must exist
	Log     string   // file
	Plugins string   // folder of the plugins
	Env     []string // of the process; its plugins inherit it
	Address string   // host and port; the next port is the cluster's
	Storage string   // [Raft] or "inmem"
	Join    []string // URLs of the nodes of a cluster, of which this is one
	Level   string   // of the log

	Settings map[string]any // more of the configuration
}

// Start runs the server and returns once it answers, sealed or not initialised. It
// keeps the state of an earlier process with the same folder.
func (s Server) Start(ctx context.Context) (*Process, error) {
	settings, err := s.settings()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.Dir, s.Name+".json")
	if err := errors.Join(os.MkdirAll(s.state(), 0o700), os.WriteFile(config, text, 0o600)); err != nil {
		return nil, err
	}
	process, err := Start(s.Log, s.Env, s.Binary, "server", "-config="+config)
	if err != nil {
		return nil, err
	}
	client := NewClient(s.URL(), "", 0)
	defer client.CloseIdle()
	return process, process.Await(ctx, func(ctx context.Context) bool { return client.Health(ctx) != 0 })
}

// URL is where the server answers.
func (s Server) URL() string { return "http://" + s.Address }

func (s Server) state() string { return filepath.Join(s.Dir, s.Name) }

// settings are the server's configuration. The longest request revokes ten thousand
// leases, for which Vault's 90 s may not be enough.
func (s Server) settings() (map[string]any, error) {
	cluster, err := next(s.Address)
	if err != nil {
		return nil, err
	}
	settings := map[string]any{
		"storage":                      map[string]any{s.Storage: s.storage()},
		"listener":                     map[string]any{"tcp": map[string]any{"address": s.Address, "tls_disable": true}},
		"api_addr":                     s.URL(),
		"cluster_addr":                 "https://" + cluster,
		"plugin_directory":             s.Plugins,
		"disable_mlock":                true,
		"log_level":                    s.Level,
		"default_max_request_duration": "30m",
	}
	maps.Copy(settings, s.Settings)
	return settings, nil
}

func (s Server) storage() map[string]any {
	if s.Storage != Raft {
		return map[string]any{}
	}
	settings := map[string]any{"path": s.state(), "node_id": s.Name, "performance_multiplier": "1"}
	var join []map[string]string
	for _, url := range s.Join {
		join = append(join, map[string]string{"leader_api_addr": url})
	}
	if len(join) > 0 { // Vault does not take an empty list
		settings["retry_join"] = join
	}
	return settings
}

// Environment is that of a process of the test bed: without the settings of the user's
// other Vault servers, and with temporary files, sockets included, in a folder of the run.
func Environment(home, temporary string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + temporary}
}

// Initialise prepares a server that has no state, for [Client.Unseal].
func (c *Client) Initialise(ctx context.Context) (unsealKey, rootToken string, err error) {
	secrets, err := c.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return "", "", fmt.Errorf("initialising: %w", err)
	}
	return secrets.KeysB64[0], secrets.RootToken, nil
}

// Unseal gives a server its unseal key.
func (c *Client) Unseal(ctx context.Context, key string) error {
	if _, err := c.Sys().UnsealWithContext(ctx, key); err != nil {
		return fmt.Errorf("unsealing: %w", err)
	}
	return nil
}
