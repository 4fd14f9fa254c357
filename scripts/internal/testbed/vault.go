// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

// Vault is a server of its own with one node, on the loopback interface and
// without TLS. Its client has the root token.
type Vault struct {
	*Client
	process *Process
	dir     string // everything of the server's; removed by Stop
}

// ServerOptions say how a server runs.
type ServerOptions struct {
	Binary   string // of Vault
	Storage  string // "raft", which is on disk, or "inmem"
	LogLevel string // of the server and its plugins
}

// StartVault runs a server, initialises and unseals it. Its folder is below the
// system's folder for temporary files, whose short path leaves room for the sockets
// of plugins.
func StartVault(ctx context.Context, o ServerOptions) (*Vault, error) {
	dir, err := os.MkdirTemp("", "mdi-vault")
	if err != nil {
		return nil, err
	}
	v := &Vault{dir: dir}
	err = v.start(ctx, o)
	if err == nil {
		err = v.unseal(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, v.Stop())
	}
	return v, nil
}

// Stop ends the server with its plugins, and removes all traces.
func (v *Vault) Stop() error {
	if v.process != nil {
		v.process.Stop()
	}
	return os.RemoveAll(v.dir)
}

// LogFile is where the server and its plugins write, until Stop.
func (v *Vault) LogFile() string { return filepath.Join(v.dir, "vault.log") }

func (v *Vault) pluginDir() string { return filepath.Join(v.dir, "plugins") }

func (v *Vault) start(ctx context.Context, o ServerOptions) error {
	// Plugins are refused in a folder behind a symbolic link, as /tmp can be one.
	dir, err := filepath.EvalSymlinks(v.dir)
	if err != nil {
		return err
	}
	v.dir = dir
	for _, sub := range []string{v.pluginDir(), filepath.Join(dir, "raft"), filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
	}
	api, cluster, err := freeAddresses(ctx)
	if err != nil {
		return err
	}
	text, err := json.Marshal(v.config(o, api, cluster))
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "vault.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return err
	}
	v.Client = NewClient("http://"+api, "")
	v.process, err = Start(v.LogFile(), environment(dir), o.Binary, "server", "-config="+config)
	if err != nil {
		return err
	}
	return v.process.await(ctx, func(ctx context.Context) bool {
		_, answered := v.health(ctx)
		return answered
	})
}

// config is the server's configuration. The longest request is that which revokes
// ten thousand leases, for which Vault's 90 s may not be enough.
func (v *Vault) config(o ServerOptions, api, cluster string) map[string]any {
	storage := map[string]any{o.Storage: map[string]any{}}
	if o.Storage == "raft" {
		storage[o.Storage] = map[string]any{
			"path":                   filepath.Join(v.dir, "raft"),
			"node_id":                "single",
			"performance_multiplier": "1",
		}
	}
	return map[string]any{
		"storage":                      storage,
		"listener":                     map[string]any{"tcp": map[string]any{"address": api, "tls_disable": true}},
		"api_addr":                     "http://" + api,
		"cluster_addr":                 "https://" + cluster,
		"plugin_directory":             v.pluginDir(),
		"disable_mlock":                true,
		"log_level":                    o.LogLevel,
		"default_max_request_duration": "30m",
	}
}

// environment is what a process of the test bed gets: nothing of the user's other
// Vault servers, and its temporary files, sockets included, in the run's folder.
func environment(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + filepath.Join(dir, "tmp")}
}

func (v *Vault) unseal(ctx context.Context) error {
	var initialised struct {
		Keys      []string `json:"keys"`
		RootToken string   `json:"root_token"`
	}
	if err := v.Call(ctx, http.MethodPut, "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &initialised); err != nil {
		return fmt.Errorf("initialising: %w", err)
	}
	if len(initialised.Keys) != 1 {
		return fmt.Errorf("initialising: %d unseal keys instead of one", len(initialised.Keys))
	}
	if err := v.Call(ctx, http.MethodPut, "sys/unseal", map[string]string{"key": initialised.Keys[0]}, nil); err != nil {
		return fmt.Errorf("unsealing: %w", err)
	}
	v.Client = v.As(initialised.RootToken)
	return v.process.await(ctx, func(ctx context.Context) bool {
		active, _ := v.health(ctx)
		return active
	})
}

// health tells whether the server answers at all, and is active and unsealed.
func (v *Vault) health(ctx context.Context) (active, answered bool) {
	err := v.Call(ctx, http.MethodGet, "sys/health", nil, nil)
	_, refused := errors.AsType[*StatusError](err)
	return err == nil, err == nil || refused
}

// freeAddresses returns two loopback addresses whose ports are free.
func freeAddresses(ctx context.Context) (first, second string, err error) {
	var listeners [2]net.Listener
	for i := range listeners {
		listeners[i], err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer func() { _ = listeners[i].Close() }() // only its port was wanted
	}
	address := func(l net.Listener) string {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return address(listeners[0]), address(listeners[1]), nil
}
