// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

// footprints are what the engines need when idle. Memory is that of a plugin that has just
// started, and has signed in and answered with each mount.
type footprints struct {
	binary   map[string]int // bytes, by engine
	startup  series         // milliseconds
	resident series         // bytes, with one mount
	further  series         // bytes, for each further mount
}

// footprints measures all engines.
func (v *env) footprints(ctx context.Context) (*footprints, error) {
	f := &footprints{binary: map[string]int{}, further: series{}}
	for _, e := range v.engines() {
		program, err := os.Stat(e.plugin)
		if err != nil {
			return nil, err
		}
		f.binary[e.name] = int(program.Size())
	}
	var err error
	if f.startup, f.resident, err = v.restarted(ctx, 1); err != nil {
		return nil, err
	}
	for _, e := range v.engines() {
		command.Progress("mounting %d times: %s", v.mounts, e.name)
		for mount := 1; mount < v.mounts; mount++ {
			if err := e.open(ctx, v.vault, e.further(mount), 1); err != nil {
				return nil, err
			}
		}
	}
	_, large, err := v.restarted(ctx, v.mounts)
	for _, e := range v.engines() {
		for i, resident := range large[e.name] {
			f.further.add(e.name, (resident-f.resident[e.name][i])/float64(v.mounts-1))
		}
	}
	return f, err
}

// restarted restarts all engines in turn, again and again, and returns the milliseconds of
// each start and the bytes of memory after it.
func (v *env) restarted(ctx context.Context, mounts int) (startup, resident series, err error) {
	startup, resident = series{}, series{}
	for round := range v.restarts {
		command.Progress("start-up, and memory with %d mounts, round %d of %d", mounts, round+1, v.restarts)
		for _, e := range turns(round, v.engines()...) {
			took, err := v.restart(ctx, e)
			if err != nil {
				return nil, nil, err
			}
			if err := v.callAll(ctx, e, mounts); err != nil {
				return nil, nil, err
			}
			bytes, err := v.vault.Process().ResidentMemory(e.program())
			if err != nil {
				return nil, nil, err
			}
			startup.add(e.name, milliseconds(took))
			resident.add(e.name, float64(bytes))
		}
	}
	return startup, resident, nil
}

// restart has Vault restart a plugin and returns the time until the answer to the first read.
func (v *env) restart(ctx context.Context, e *engine) (time.Duration, error) {
	start := time.Now()
	if _, err := v.vault.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: e.program()}); err != nil {
		return 0, err
	}
	_, err := read(ctx, v.vault.Client, e.path(0))
	return time.Since(start), err
}

// callAll reads from each mount of an engine, a few at a time, so that it calls upstream.
func (v *env) callAll(ctx context.Context, e *engine, mounts int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for mount := range mounts {
		group.Go(func() error {
			_, err := read(ctx, v.vault.Client, e.callingPath(mount))
			return err
		})
	}
	return group.Wait()
}
