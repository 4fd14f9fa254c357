// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	baselineName   = "baseline"
	baselineSource = "scripts/bench/baseline"
	engineName     = "engine"

	// fresh is a role of the engine that regenerates the key at every read.
	fresh = "fresh"
)

// suite is all engines that are measured, with the services that they call.
type suite struct {
	options
	dir      string // for what is built
	programs testbed.Programs
	baseline *engine
	engine   *engine
	compared *engine // another revision of the engine; nil: none
	peers    []*engine

	tenants   map[string]*testbed.Tenant // by the engine's mount
	terraform *terraformAPI
	directory *testbed.Process

	directoryAddress string
}

// build builds the engines and starts the services.
func (s *suite) build(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "mdi-bench"); err != nil {
		return err
	}
	if s.programs, err = testbed.Build(ctx); err != nil {
		return err
	}
	s.baseline = &engine{
		name: baselineName, plugin: filepath.Join(s.dir, baselineName), mount: baselineName, leased: "key/bench-",
		configure: func(context.Context, *testbed.Vault, string, int) error { return nil },
	}
	s.engine = &engine{
		name: engineName, plugin: s.programs.Plugin, mount: "mdi", leased: "key/bench-", calling: "key/" + fresh,
		configure: s.configureEngine,
	}
	if err := testbed.BuildPackage(ctx, s.programs.Root, "./"+baselineSource, "", s.baseline.plugin); err != nil {
		return err
	}
	if s.revision != "" {
		if err := s.buildRevision(ctx); err != nil {
			return err
		}
	}
	if !s.withPeers {
		return nil
	}
	command.Progress("building the peers")
	return s.buildPeers(ctx)
}

// buildRevision builds the engine of the revision that this one is compared with.
func (s *suite) buildRevision(ctx context.Context) error {
	command.Progress("building %s", s.revision)
	name, err := testbed.Output(ctx, s.programs.Root, nil, "git", "describe", "--tags", "--always", "--match=v[0-9]*", s.revision)
	if err != nil {
		return err
	}
	other := *s.engine
	other.name, other.plugin, other.mount = name, filepath.Join(s.dir, "compared"), "compared"
	s.compared = &other
	return testbed.BuildRevision(ctx, s.programs.Root, s.revision, "", other.plugin)
}

// ours returns the engine, and the other revision of it.
func (s *suite) ours() []*engine {
	if s.compared == nil {
		return []*engine{s.engine}
	}
	return []*engine{s.engine, s.compared}
}

// withBaseline returns what is compared: the baseline and the engine.
func (s *suite) withBaseline() []*engine { return append([]*engine{s.baseline}, s.ours()...) }

// engines returns all engines, the baseline first.
func (s *suite) engines() []*engine { return append(s.withBaseline(), s.peers...) }

// configureEngine gives each mount its own tenant: a tenant has one key, which only one
// mount may manage.
func (s *suite) configureEngine(ctx context.Context, vault *testbed.Vault, mount string, rounds int) (err error) {
	if s.tenants[mount] == nil {
		if s.tenants[mount], err = testbed.StartTenant(ctx); err != nil {
			return err
		}
	}
	if _, err := vault.Logical().WriteWithContext(ctx, mount+"/config", s.tenants[mount].Config()); err != nil {
		return err
	}
	role := map[string]any{"ttl": leaseTTL.String()}
	if err := writeRoles(ctx, vault, mount+"/roles/bench-", rounds, role); err != nil {
		return err
	}
	role["max_key_age"] = 0
	_, err = vault.Logical().WriteWithContext(ctx, mount+"/roles/"+fresh, role)
	return err
}

// tenant is that of the engine's first mount.
func (s *suite) tenant() *testbed.Tenant { return s.tenants[s.engine.mount] }

// posts is the number of regenerations of its key.
func (s *suite) posts() int { return s.tenant().Calls(graphtest.Regenerate).Performed }

func (s *suite) close() error {
	var failed []error
	for _, tenant := range s.tenants {
		failed = append(failed, tenant.Stop())
	}
	if s.terraform != nil {
		s.terraform.Close()
	}
	if s.directory != nil {
		s.directory.Stop()
	}
	return errors.Join(append(failed, os.RemoveAll(s.dir))...)
}
