// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// env is what a fleet uses: a Vault with the engine, and the simulated tenant behind it.
type env struct {
	operator *testbed.Client
	tenant   *graphtest.Client
	binary   string // of Vault, for agents
	dir      string // for files of agents

	// Of an environment of the fleet's own; nil if it uses that of make dev.
	vault     *testbed.Vault
	simulator *testbed.Tenant
}

// open starts an environment, or finds the one that the options name, and writes the role.
func (e *env) open(ctx context.Context, o options) error {
	programs, err := testbed.Build(ctx)
	if err != nil {
		return err
	}
	e.binary = programs.Vault
	if e.dir, err = os.MkdirTemp("", "mdi-fleet"); err != nil {
		return err
	}
	var info graphtest.Info
	if o.vaultAddr != "" {
		e.operator = testbed.NewClient(o.vaultAddr, os.Getenv("VAULT_TOKEN"), 0)
		info, err = testbed.SimulatorIn(o.simulatorDir)
	} else {
		info, err = e.startOwn(ctx, o, programs)
	}
	if err != nil {
		return err
	}
	if e.tenant, err = graphtest.NewClient(info); err != nil {
		return err
	}
	role := map[string]any{"ttl": o.ttl.String()}
	if o.maxKeyAge >= 0 {
		role["max_key_age"] = o.maxKeyAge.String()
	}
	if _, err := e.operator.Logical().WriteWithContext(ctx, o.mount+"/roles/"+o.role, role); err != nil {
		return fmt.Errorf("writing the role: %w", err)
	}
	return nil
}

// startOwn runs a Vault and a tenant whose key the engine does not know yet.
func (e *env) startOwn(ctx context.Context, o options, programs testbed.Programs) (info graphtest.Info, err error) {
	if e.simulator, err = testbed.StartTenant(ctx); err != nil {
		return info, err
	}
	e.vault, err = testbed.StartVault(ctx, testbed.Server{Binary: programs.Vault, Storage: o.storage, Level: "warn"})
	if err != nil {
		return info, err
	}
	e.operator = e.vault.Client
	if err := e.vault.Install(ctx, programs.Plugin, ""); err != nil {
		return info, err
	}
	return e.simulator.Info(), e.vault.Mount(ctx, testbed.PluginName, o.mount, e.simulator.Config())
}

// posts returns how often Graph has regenerated the key.
func (e *env) posts(ctx context.Context) (int, error) {
	calls, err := e.tenant.Calls(ctx)
	return calls[graphtest.Regenerate].Performed, err
}

// close ends what open has started. After a failure it first shows the complaints of the
// fleet's own Vault.
func (e *env) close(failed bool) error {
	var err error
	if e.vault != nil {
		if failed {
			e.vault.ShowComplaints()
		}
		err = e.vault.Stop()
	}
	if e.simulator != nil {
		err = errors.Join(err, e.simulator.Stop())
	}
	return errors.Join(err, os.RemoveAll(e.dir))
}
