// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// bench is a run.
type bench struct {
	*field
	options options
}

// result is all that was measured.
type result struct {
	setting      setting
	options      options
	footprints   map[string]footprint // by contestant
	queued, sync revocation
	readings     map[string]reading // by contestant
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

func prepare(ctx context.Context, o options) (*bench, error) {
	f, err := gather(ctx, o)
	if err != nil {
		return nil, err
	}
	return &bench{field: f, options: o}, nil
}

// measure does everything, on one Vault for what engines need and on another for what
// they do.
func (b *bench) measure(ctx context.Context) (*result, error) {
	start := time.Now()
	res := &result{options: b.options}
	for _, peer := range b.peers {
		res.peers = append(res.peers, peer.name)
	}
	var err error
	if res.footprints, err = b.footprints(ctx, b.options); err != nil {
		return nil, err
	}
	a, err := openArena(ctx, b.field, b.options)
	if err != nil {
		return nil, err
	}
	if err = a.measure(ctx, b.options, res); err == nil {
		err = a.describe(ctx, res)
	}
	res.setting.took = time.Since(start)
	return res, errors.Join(err, a.close())
}

// measure begins with revocation, while there are no other leases; nobody has to
// revoke those of the readers.
func (a *arena) measure(ctx context.Context, o options, res *result) (err error) {
	if res.queued, err = a.revocation(ctx, o, o.leases, false, a.baseline, a.engine); err != nil {
		return err
	}
	if res.sync, err = a.revocation(ctx, o, o.leases, true, a.baseline, a.engine); err != nil {
		return err
	}
	if len(a.peers) > 0 {
		if res.peersRevoked, err = a.revocation(ctx, o, o.peerLeases(), true, a.peers...); err != nil {
			return err
		}
	}
	if res.reference, err = a.alone(ctx, a.baseline.path(0), o.alone); err != nil {
		return err
	}
	if res.prompt, res.slow, err = a.regenerations(ctx, o); err != nil {
		return err
	}
	if res.readings, err = a.readings(ctx, o, a.baseline, a.engine); err != nil {
		return err
	}
	command.Progress("regenerating reads, %d clients", o.clients)
	if res.fresh, err = a.crowd(ctx, a.engine.mount+"/key/"+fresh, o.few()); err != nil {
		return err
	}
	for _, peer := range a.peers {
		command.Progress("reading: %s", peer.name)
		if res.readings[peer.name], err = a.crowd(ctx, peer.path(0), o.few()); err != nil {
			return err
		}
	}
	res.irrevocable, err = testbed.Irrevocable(ctx, a.vault)
	return err
}

// describe takes down what the figures are of.
func (a *arena) describe(ctx context.Context, res *result) error {
	var health struct {
		Version string `json:"version"`
	}
	if err := a.vault.Call(ctx, http.MethodGet, "sys/health", nil, &health); err != nil {
		return err
	}
	version, err := testbed.Output(ctx, a.dir, nil, a.engine.plugin, "-version")
	res.setting = setting{
		cpus: runtime.NumCPU(), platform: runtime.GOOS + "/" + runtime.GOARCH, goVersion: runtime.Version(),
		vaultVersion: health.Version, engineVersion: version, date: time.Now(),
	}
	return err
}
