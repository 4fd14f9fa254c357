// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// site is where a fleet plays: a Vault with the engine, and the simulated tenant
// behind it.
type site struct {
	operator *testbed.Client
	tenant   *graphtest.Client
	binary   string // of Vault, for agents
	dir      string // for what agents need

	// Of an environment of the fleet's own; nil if it uses somebody's.
	vault     *testbed.Vault
	simulator *testbed.Tenant
}

// openSite starts an environment, or finds the one that the options name, and
// writes the role.
func openSite(ctx context.Context, o options) (*site, error) {
	s := &site{}
	err := s.open(ctx, o)
	if err == nil {
		err = s.writeRole(ctx, o)
	}
	if err != nil {
		return nil, errors.Join(err, s.close(true))
	}
	return s, nil
}

func (s *site) open(ctx context.Context, o options) error {
	programs, err := testbed.Build(ctx)
	if err != nil {
		return err
	}
	s.binary = programs.Vault
	if s.dir, err = os.MkdirTemp("", "mdi-fleet"); err != nil {
		return err
	}
	var info graphtest.Info
	if o.vaultAddr != "" {
		s.operator = testbed.NewClient(o.vaultAddr, os.Getenv("VAULT_TOKEN"), 0)
		info, err = describedIn(o.simulatorDir)
	} else {
		info, err = s.start(ctx, o, programs)
	}
	if err != nil {
		return err
	}
	s.tenant, err = graphtest.NewClient(info)
	return err
}

// describedIn returns what a simulator says of itself in its folder.
func describedIn(dir string) (graphtest.Info, error) {
	var info graphtest.Info
	text, err := os.ReadFile(filepath.Join(dir, "simulator.json")) //nolint:gosec // naming the folder is what the flag is for
	if err != nil {
		return info, err
	}
	return info, json.Unmarshal(text, &info)
}

// start runs a Vault and a tenant whose key the engine does not know yet.
func (s *site) start(ctx context.Context, o options, programs testbed.Programs) (graphtest.Info, error) {
	var err error
	if s.simulator, err = testbed.StartTenant(ctx); err != nil {
		return graphtest.Info{}, err
	}
	s.vault, err = testbed.StartVault(ctx, testbed.ServerOptions{Binary: programs.Vault, Storage: o.storage, LogLevel: "warn"})
	if err != nil {
		return graphtest.Info{}, err
	}
	s.operator = s.vault.Client
	if err := s.vault.Mount(ctx, programs.Plugin, o.mount); err != nil {
		return graphtest.Info{}, err
	}
	if err := s.operator.Call(ctx, http.MethodPost, o.mount+"/config", s.simulator.Config(), nil); err != nil {
		return graphtest.Info{}, err
	}
	return s.simulator.Info(), nil
}

func (s *site) writeRole(ctx context.Context, o options) error {
	role := map[string]any{"ttl": o.ttl.String()}
	if o.maxKeyAge >= 0 {
		role["max_key_age"] = o.maxKeyAge.String()
	}
	if err := s.operator.Call(ctx, http.MethodPost, o.mount+"/roles/"+o.role, role, nil); err != nil {
		return fmt.Errorf("writing the role: %w", err)
	}
	return nil
}

// tokens makes a token for each member, which lasts for the whole run: leases end
// with the token that read them.
func (s *site) tokens(ctx context.Context, o options) ([]string, error) {
	lasting := o.window + o.length + o.ttl + 10*time.Minute
	return s.operator.IssueTokens(ctx, o.members(), "mdi-"+o.role, lasting, o.keyPath())
}

// calls returns how often an operation of the tenant has been performed.
func (s *site) calls(ctx context.Context, op graphtest.Operation) (int, error) {
	calls, err := s.tenant.Calls(ctx)
	return calls[op].Performed, err
}

// close ends what open has started. After a failure it shows first what the own
// Vault complained about.
func (s *site) close(failed bool) error {
	var err error
	if s.vault != nil {
		if failed {
			s.showComplaints()
		}
		err = s.vault.Stop()
	}
	if s.simulator != nil {
		err = errors.Join(err, s.simulator.Stop())
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

func (s *site) showComplaints() {
	lines, err := s.vault.Complaints()
	if err != nil {
		command.Progress("no log of Vault: %v", err)
	}
	for _, line := range lines {
		command.Progress("%s", line)
	}
}
