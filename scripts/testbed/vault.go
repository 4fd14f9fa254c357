// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"path/filepath"
)

// Vault is a server with one node, for one run. Its client has the root token.
type Vault struct {
	*Client
	UnsealKey string
	process   *Process
	dir       string // for all of its files; Stop removes it
}

// StartVault runs a server with its own folder and address, initialises and unseals it.
// The folder is below the system's folder for temporary files, whose short path leaves
// room for the sockets of plugins.
func StartVault(ctx context.Context, s Server) (*Vault, error) {
	dir, err := os.MkdirTemp("", "mdi-vault")
	if err != nil {
		return nil, err
	}
	v := &Vault{dir: dir}
	if err = v.start(ctx, s); err == nil {
		err = v.unseal(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, v.Stop())
	}
	return v, nil
}

// Stop ends the server with its plugins, and removes its files.
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

func (v *Vault) start(ctx context.Context, s Server) (err error) {
	// Vault refuses plugins in a folder behind a symbolic link, as /tmp can be.
	if v.dir, err = filepath.EvalSymlinks(v.dir); err != nil {
		return err
	}
	temporary := filepath.Join(v.dir, "tmp")
	if err := errors.Join(os.Mkdir(v.pluginDir(), 0o700), os.Mkdir(temporary, 0o700)); err != nil {
		return err
	}
	if s.Address, err = FreeAddress(ctx); err != nil {
		return err
	}
	s.Name, s.Dir, s.Log, s.Plugins = "single", v.dir, v.LogFile(), v.pluginDir()
	s.Env = append(Environment(v.dir, temporary), s.Env...)
	v.Client = NewClient(s.URL(), "", 0)
	v.process, err = s.Start(ctx)
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
	v.UnsealKey, v.Client = key, v.As(token)
	return v.process.Await(ctx, v.active)
}

func (v *Vault) active(ctx context.Context) bool { return v.Health(ctx) == http.StatusOK }

// StartDevVault runs the vault on PATH as a server in dev mode, at its usual port if that
// is free. Its files are in dir, and its catalog has the plugins of a folder. Ctrl-C does
// not reach it, see [StartApart].
func StartDevVault(ctx context.Context, dir, plugins string, env []string) (*Vault, error) {
	address, err := FreeAddress(ctx, usualPort)
	if err != nil {
		return nil, err
	}
	token := rand.Text()
	v := &Vault{Client: NewClient("http://"+address, token, 0), dir: dir}
	// The token is in the environment, since every user can read a command line.
	v.process, err = StartApart(v.LogFile(), append(env, "VAULT_DEV_ROOT_TOKEN_ID="+token), "vault", "server", "-dev",
		"-log-level=debug", "-dev-no-store-token", "-dev-plugin-dir="+plugins, "-dev-listen-address="+address)
	if err != nil {
		return nil, err
	}
	return v, v.process.Await(ctx, v.active)
}
