// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"runtime"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// result is everything that was measured.
type result struct {
	setting      setting
	options      options
	footprints   map[string]footprint // by engine
	queued, sync revocation
	readings     map[string]reading // by engine
	fresh        reading            // of the engine by all clients, each read regenerating
	reference    reading            // of the baseline by one client
	prompt, slow reading            // of the engine by one client, each read regenerating
	peers        []string           // their names
	peersRevoked revocation
	irrevocable  int
}

// setting is where and when it was measured.
type setting struct {
	cpus                        int
	platform, goVersion         string
	vaultVersion, engineVersion string
	date                        time.Time
	took                        time.Duration
}

// measure measures everything: what engines need in one Vault, and what they do in
// another.
func (s *suite) measure(ctx context.Context) (*result, error) {
	res := &result{options: s.options, setting: setting{date: time.Now()}}
	for _, peer := range s.peers {
		res.peers = append(res.peers, peer.name)
	}
	err := s.inVault(ctx, func(v *env) (err error) {
		res.footprints, err = v.footprints(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.inVault(ctx, func(v *env) error { return v.measure(ctx, res) })
	res.setting.took = time.Since(res.setting.date)
	return res, err
}

// measure begins with revocation, while there are no other leases. Those of the reads are
// not revoked.
func (v *env) measure(ctx context.Context, res *result) (err error) {
	for _, step := range []func(){
		func() { res.queued, err = v.revocation(ctx, v.leases, false, v.baseline, v.engine) },
		func() { res.sync, err = v.revocation(ctx, v.leases, true, v.baseline, v.engine) },
		func() { res.peersRevoked, err = v.revocation(ctx, v.peerLeases(), true, v.peers...) },
		func() { res.reference, err = v.alone(ctx, v.baseline.path(0), v.reads, 0) },
		func() { res.prompt, res.slow, err = v.regenerations(ctx) },
		func() { res.readings, err = v.readings(ctx, v.baseline, v.engine) },
		func() { res.fresh, err = v.crowd(ctx, v.engine.mount+"/key/"+fresh, v.few()) },
		func() { err = v.readPeers(ctx, res.readings) },
		func() { res.irrevocable, err = testbed.Irrevocable(ctx, v.vault) },
		func() { err = v.describe(ctx, &res.setting) },
	} {
		if step(); err != nil {
			return err
		}
	}
	return nil
}

// readPeers reads from each of the peers.
func (v *env) readPeers(ctx context.Context, readings map[string]reading) (err error) {
	for _, peer := range v.peers {
		command.Progress("reading: %s", peer.name)
		if readings[peer.name], err = v.crowd(ctx, peer.path(0), v.few()); err != nil {
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
	s.engineVersion, err = testbed.Output(ctx, v.dir, nil, v.engine.plugin, "-version")
	return err
}
