// SPDX-License-Identifier: MPL-2.0

// Command dev runs a development server until Ctrl-C, or until a command that uses it
// has ended:
//
//	dev                             Vault in dev mode, with the engine at mdi/
//	dev scripts/demo.sh             the same for a command, whose VAULT_ADDR leads there
//	dev -plugins DIR COMMAND...     Vault in dev mode, with nothing but the plugins in DIR
//
// The engine is configured for a simulated tenant, or for a real one if AZURE_TENANT_ID,
// AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are set. vault and mdi-simulator have to be on
// PATH. All files are in one folder, which is removed at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const tenantWarning = `
WARNING: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are set: this is the
real tenant %s. A read of mdi/key regenerates its deployment access key;
the previous one no longer installs sensors. When the last lease ends, so does the new
one. Unset the variables to work with the simulator.`

const vaultSteps = `
Vault v%s is up after %v, with the engine at mdi/. In another terminal:

  export VAULT_ADDR=%s VAULT_TOKEN=%s
  export PATH="%s:$PATH"
  vault read mdi/key
  vault read mdi/status
  vault lease revoke <lease_id>
`

const simulatorSteps = `
The tenant is simulated. Can a sensor be installed with the key? The file for it is in a
folder that is removed with the rest.

  export MDI_SIMULATOR_DIR="%s"
  vault read -field=deployment_access_key mdi/key | tr -d '\n' > $MDI_SIMULATOR_DIR/key.txt
  mdi-simulator register -key-file $MDI_SIMULATOR_DIR/key.txt
  mdi-simulator calls
`

// unmountWithin is how long the engine may take to retire the key of a real tenant.
const unmountWithin = time.Minute

func main() {
	syscall.Umask(0o077) // keys and secrets are in the files
	command.Main(run)
}

func run(ctx context.Context, arguments []string) (err error) {
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	plugins := flags.String("plugins", "", "`folder` of plugins to run instead of the engine; none is mounted, no tenant simulated")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	s := &server{started: time.Now()}
	defer func() { err = errors.Join(err, s.stop(err != nil && ctx.Err() == nil)) }()
	if err := s.start(ctx, *plugins); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return s.run(ctx, flags.Args())
	}
	dashboard, err := s.startDashboard(ctx)
	if err != nil {
		return err
	}
	if err := s.printSteps(ctx, dashboard); err != nil {
		return err
	}
	select {
	case <-s.vault.Process().Ended():
		return errors.New("vault ended unexpectedly")
	case <-ctx.Done(): // Ctrl-C is how it is meant to end
		return nil
	}
}

// server is a Vault with the engine, and the simulator unless the tenant is a real one.
type server struct {
	dir        string // of all files
	started    time.Time
	simulator  *testbed.Process
	vault      *testbed.Vault
	realTenant bool
	watchers   []*testbed.Process // of the dashboard
}

func (s *server) start(ctx context.Context, plugins string) (err error) {
	if s.dir, err = os.MkdirTemp("", "mdi-dev."); err != nil {
		return err
	}
	if plugins != "" {
		s.vault, err = testbed.StartDevVault(ctx, s.dir, plugins, environment())
		return err
	}
	config, err := s.tenant(ctx)
	if err != nil {
		return err
	}
	if s.vault, err = testbed.StartDevVault(ctx, s.dir, "dist/plugins", environment()); err != nil {
		return err
	}
	return s.vault.Mount(ctx, testbed.PluginName, "mdi", config)
}

// tenant returns the fields of mdi/config for the real tenant that the environment names,
// or for one that it simulates.
func (s *server) tenant(ctx context.Context) (map[string]any, error) {
	id, app, secret := os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID"), os.Getenv("AZURE_CLIENT_SECRET")
	if s.realTenant = id != "" && app != "" && secret != ""; s.realTenant {
		command.Progress(tenantWarning, id)
		return map[string]any{"tenant_id": id, "client_id": app, "client_secret": secret}, nil
	}
	var err error
	s.simulator, err = testbed.Start(s.file("simulator.log"), os.Environ(), "mdi-simulator", "serve", "-dir", s.file("simulator"))
	if err != nil {
		return nil, err
	}
	var info graphtest.Info
	err = s.simulator.Await(ctx, func(context.Context) bool {
		info, err = testbed.SimulatorIn(s.file("simulator"))
		return err == nil
	})
	return testbed.ConfigFields(info), err
}

// environment is the user's without the settings of other Vault servers: an address or a
// namespace would lead requests there. The licence of an Enterprise binary stays.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "VAULT_") && !strings.HasPrefix(variable, "VAULT_LICENSE")
	})
}

// run runs a command that uses the server.
func (s *server) run(ctx context.Context, arguments []string) error {
	cmd := exec.CommandContext(ctx, arguments[0], arguments[1:]...) //nolint:gosec // this is what the arguments are for
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(environment(),
		"VAULT_ADDR="+s.vault.Address(), "VAULT_TOKEN="+s.vault.Token(), "MDI_SIMULATOR_DIR="+s.file("simulator"))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// printSteps prints what the user can do next.
func (s *server) printSteps(ctx context.Context, dashboard string) error {
	health, err := s.vault.Sys().HealthWithContext(ctx)
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	fmt.Printf(vaultSteps, health.Version, time.Since(s.started).Round(time.Second), s.vault.Address(), s.vault.Token(), path)
	if !s.realTenant {
		fmt.Printf(simulatorSteps, s.file("simulator"))
	}
	fmt.Printf("\n%s\nServer log: %s\nCtrl-C stops everything and removes it.\n", dashboard, s.vault.LogFile())
	return nil
}

// stop ends and removes everything. Before that it unmounts the engine of a real tenant,
// which retires a key that has been read.
func (s *server) stop(failed bool) (err error) {
	for _, process := range s.watchers {
		process.Stop()
	}
	if s.vault != nil {
		if s.realTenant {
			ctx, cancel := context.WithTimeout(context.Background(), unmountWithin)
			defer cancel()
			err = s.vault.Sys().UnmountWithContext(ctx, "mdi")
		}
		if failed {
			s.vault.ShowComplaints()
		}
		err = errors.Join(err, s.vault.Stop())
	}
	if s.simulator != nil {
		s.simulator.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }
