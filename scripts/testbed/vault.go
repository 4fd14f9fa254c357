// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
)

// Vault is a server of its own with one node. Its client has the root token.
type Vault struct {
	*Client
	process *Process
	dir     string // everything of the server's; removed by Stop
}

// ServerOptions say how a server of its own runs.
type ServerOptions struct {
	Binary   string // of Vault
	Storage  string // [Raft] or "inmem"
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

// Process is that of the server.
func (v *Vault) Process() *Process { return v.process }

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
	temporary := filepath.Join(dir, "tmp")
	for _, sub := range []string{v.pluginDir(), temporary} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
	}
	address, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	server := Server{
		Binary: o.Binary, Name: "single", Dir: dir, Log: v.LogFile(), Plugins: v.pluginDir(),
		Env: Environment(dir, temporary), Address: address, Storage: o.Storage, Level: o.LogLevel,
	}
	v.Client = NewClient(server.URL(), "", 0)
	v.process, err = server.Start(ctx)
	return err
}

func (v *Vault) unseal(ctx context.Context) error {
	key, token, err := v.Initialise(ctx)
	if err != nil {
		return err
	}
	if err := v.Unseal(ctx, key); err != nil {
		return err
	}
	v.Client = v.As(token)
	return v.process.Await(ctx, func(ctx context.Context) bool { return v.Health(ctx) == http.StatusOK })
}
