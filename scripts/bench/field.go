// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	baselineName = "baseline"
	engineName   = "engine"

	// fresh is a role of the engine whose every read regenerates the key.
	fresh = "fresh"
)

// field is everybody who is measured, with what is behind them.
type field struct {
	dir      string // of what was built
	programs testbed.Programs
	baseline *contestant
	engine   *contestant
	peers    []*contestant

	tenants   map[string]*testbed.Tenant // by the engine's mount
	terraform *terraformAPI
	directory *testbed.Process

	directoryAddress string
}

// gather builds the engines and starts what they talk to.
func gather(ctx context.Context, o options) (*field, error) {
	f := &field{tenants: map[string]*testbed.Tenant{}}
	if err := f.gather(ctx, o); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *field) gather(ctx context.Context, o options) (err error) {
	if f.dir, err = os.MkdirTemp("", "mdi-bench"); err != nil {
		return err
	}
	if f.programs, err = testbed.Build(ctx); err != nil {
		return err
	}
	f.baseline = &contestant{
		name: baselineName, plugin: filepath.Join(f.dir, baselineName), mount: baselineName, leased: "key/bench-",
		configure: func(context.Context, testbed.Caller, string, int) error { return nil },
	}
	f.engine = &contestant{
		name: engineName, plugin: f.programs.Plugin, mount: "mdi", leased: "key/bench-", configure: f.configureEngine,
	}
	if err := testbed.BuildPackage(ctx, f.programs.Root, "./scripts/bench/baseline", "", f.baseline.plugin); err != nil {
		return err
	}
	if !o.peers {
		return nil
	}
	command.Progress("building the peers")
	return f.gatherPeers(ctx)
}

// everybody returns the contestants, the baseline first.
func (f *field) everybody() []*contestant {
	return append([]*contestant{f.baseline, f.engine}, f.peers...)
}

// configureEngine gives a mount a tenant of its own, since a tenant has one key and
// one mount to manage it.
func (f *field) configureEngine(ctx context.Context, vault testbed.Caller, mount string, rounds int) error {
	tenant, ok := f.tenants[mount]
	if !ok {
		var err error
		if tenant, err = testbed.StartTenant(ctx); err != nil {
			return err
		}
		f.tenants[mount] = tenant
	}
	if err := vault.Call(ctx, http.MethodPost, mount+"/config", tenant.Config(), nil); err != nil {
		return err
	}
	renewing := map[string]any{"ttl": leaseTTL.String(), "max_key_age": 0}
	if err := vault.Call(ctx, http.MethodPost, mount+"/roles/"+fresh, renewing, nil); err != nil {
		return err
	}
	return roles(ctx, vault, mount+"/roles/bench-", rounds, map[string]any{"ttl": leaseTTL.String()})
}

// tenant is that of the engine's mount that is read from.
func (f *field) tenant() *testbed.Tenant { return f.tenants[f.engine.mount] }

// posts is how often its key has been regenerated.
func (f *field) posts() int { return f.tenant().Calls(graphtest.Regenerate).Performed }

func (f *field) close() error {
	var failed []error
	for _, tenant := range f.tenants {
		failed = append(failed, tenant.Stop())
	}
	if f.terraform != nil {
		f.terraform.Close()
	}
	if f.directory != nil {
		f.directory.Stop()
	}
	return errors.Join(append(failed, os.RemoveAll(f.dir))...)
}
