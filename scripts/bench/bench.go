// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// result is everything that was measured.
type result struct {
	setting      setting
	options      options
	footprints   *footprints
	queued, sync revocation
	shared       *readings
	fresh        reading  // of the engine by all clients, each read regenerating
	prompt, slow series   // milliseconds of reads by one client, those of the engine regenerating
	compared     string   // the other revision of the engine; empty: none
	peers        []string // names
	irrevocable  int
	stages       []stage // by number of leases
	churned      stage   // the last one, with more roles and versions
}

// setting is where and when it was measured.
type setting struct {
	cpus                        int
	platform, goVersion         string
	vaultVersion, engineVersion string
	baseline                    string // a hash of its source
	date                        time.Time
	took                        time.Duration
}

// measure measures everything: what engines need in one Vault, what they do in another, and
// how the engine grows in a third.
func (s *suite) measure(ctx context.Context) (*result, error) {
	res := &result{options: s.options, setting: setting{date: time.Now()}}
	if s.compared != nil {
		res.compared = s.compared.name
	}
	for _, peer := range s.peers {
		res.peers = append(res.peers, peer.name)
	}
	err := s.inVault(ctx, nil, s.engines(), func(v *env) (err error) {
		res.footprints, err = v.footprints(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.inVault(ctx, nil, s.engines(), func(v *env) error { return v.measure(ctx, res) })
	if err == nil && s.scale > 0 {
		err = s.inVault(ctx, telemetry, []*engine{s.baseline, s.engine}, func(v *env) error { return v.grow(ctx, res) })
	}
	res.setting.took = time.Since(res.setting.date)
	return res, err
}

// measure begins with revocation, while there are no other leases. Those of the reads are
// not revoked.
func (v *env) measure(ctx context.Context, res *result) (err error) {
	for _, step := range []func(){
		func() { res.queued, err = v.revocation(ctx, false, v.withBaseline()...) },
		func() { res.sync, err = v.revocation(ctx, true, v.engines()...) },
		func() { res.prompt, err = v.regenerations(ctx, v.reads, 0) },
		func() { res.slow, err = v.regenerations(ctx, max(v.reads/4, 1), slowGraph) },
		func() { res.shared, err = v.readings(ctx, v.engines()...) },
		func() { res.fresh, err = v.crowd(ctx, v.engine.callingPath(0), v.few()) },
		func() { res.irrevocable, err = testbed.Irrevocable(ctx, v.vault) },
		func() { err = v.describe(ctx, &res.setting) },
	} {
		if step(); err != nil {
			return err
		}
	}
	return nil
}

// describe notes what was measured, and on which machine.
func (v *env) describe(ctx context.Context, s *setting) error {
	health, err := v.vault.Sys().HealthWithContext(ctx)
	if err != nil {
		return err
	}
	s.vaultVersion = health.Version
	s.cpus, s.platform, s.goVersion = runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Version()
	source, err := os.ReadFile(filepath.Join(v.programs.Root, baselineSource, "main.go"))
	if err != nil {
		return err
	}
	s.baseline = fmt.Sprintf("%x", sha256.Sum256(source))[:12]
	s.engineVersion, err = testbed.Output(ctx, v.dir, nil, v.engine.plugin, "-version")
	return err
}
