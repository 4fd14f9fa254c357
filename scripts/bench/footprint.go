// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
)

// footprint is what an engine needs when idle. Memory is that of a plugin that has just
// started and has answered one read from each mount.
type footprint struct {
	binary   int // bytes
	startup  time.Duration
	resident int     // bytes, with one mount
	further  float64 // bytes, for each further mount
}

// footprints measures all engines.
func (v *env) footprints(ctx context.Context) (map[string]footprint, error) {
	command.Progress("start-up, and memory with one mount")
	startups, small := map[string][]time.Duration{}, map[string][]int{}
	for round := range v.restarts {
		for _, e := range turns(round, v.engines()...) {
			took, resident, err := v.restart(ctx, e, 1)
			if err != nil {
				return nil, err
			}
			startups[e.name] = append(startups[e.name], took)
			small[e.name] = append(small[e.name], resident)
		}
	}
	found := map[string]footprint{}
	for _, e := range v.engines() {
		command.Progress("memory with %d mounts: %s", v.mounts, e.name)
		large, err := v.withAllMounts(ctx, e)
		if err != nil {
			return nil, err
		}
		program, err := os.Stat(e.plugin)
		if err != nil {
			return nil, err
		}
		resident := figures.Median(small[e.name])
		found[e.name] = footprint{
			binary: int(program.Size()), startup: figures.Median(startups[e.name]),
			resident: resident, further: float64(large-resident) / float64(v.mounts-1),
		}
	}
	return found, nil
}

// withAllMounts adds the further mounts of an engine, which stay, and returns its memory.
func (v *env) withAllMounts(ctx context.Context, e *engine) (int, error) {
	for mount := 1; mount < v.mounts; mount++ {
		if err := e.open(ctx, v.vault, e.further(mount), 1); err != nil {
			return 0, err
		}
	}
	found := make([]int, v.restarts)
	for i := range found {
		var err error
		if _, found[i], err = v.restart(ctx, e, v.mounts); err != nil {
			return 0, err
		}
	}
	return figures.Median(found), nil
}

// restart has Vault restart a plugin and reads once from each of its mounts, a few at a
// time. It returns the time from the request to restart until the answer to the first
// read, and the memory of the plugin after the last one.
func (v *env) restart(ctx context.Context, e *engine, mounts int) (took time.Duration, resident int, err error) {
	start := time.Now()
	if _, err := v.vault.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: e.program()}); err != nil {
		return 0, 0, err
	}
	if _, err := read(ctx, v.vault.Client, e.path(0)); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for mount := 1; mount < mounts; mount++ {
		group.Go(func() error {
			_, err := read(inner, v.vault.Client, e.pathAt(e.further(mount), 0))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	resident, err = v.vault.Process().ResidentMemory(e.program())
	return took, resident, err
}
