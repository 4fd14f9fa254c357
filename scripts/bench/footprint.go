// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// footprint is what an engine needs before anybody asks for much. Memory is that of
// a plugin that has just been started and has answered one read from each mount.
type footprint struct {
	binary   int // bytes
	startup  time.Duration
	resident int     // bytes, with one mount
	further  float64 // bytes, for each further mount
}

// footprints measures every contestant on a Vault of their own.
func (f *field) footprints(ctx context.Context, o options) (map[string]footprint, error) {
	a, err := openArena(ctx, f, o)
	if err != nil {
		return nil, err
	}
	found, err := a.footprints(ctx, o)
	if err != nil {
		_ = a.close() // the first failure tells more
		return nil, err
	}
	return found, a.close()
}

func (a *arena) footprints(ctx context.Context, o options) (map[string]footprint, error) {
	command.Progress("start-up, and memory with one mount")
	startups, small := map[string][]time.Duration{}, map[string][]int{}
	for round := range o.restarts {
		for _, who := range turns(round, a.everybody()...) {
			took, resident, err := a.restart(ctx, who, 1)
			if err != nil {
				return nil, err
			}
			startups[who.name] = append(startups[who.name], took)
			small[who.name] = append(small[who.name], resident)
		}
	}
	found := map[string]footprint{}
	for _, who := range a.everybody() {
		command.Progress("memory with %d mounts: %s", o.mounts, who.name)
		large, err := a.crowded(ctx, who, o)
		if err != nil {
			return nil, err
		}
		program, err := os.Stat(who.plugin)
		if err != nil {
			return nil, err
		}
		resident := figures.Median(small[who.name])
		found[who.name] = footprint{
			binary: int(program.Size()), startup: figures.Median(startups[who.name]),
			resident: resident, further: float64(large-resident) / float64(o.mounts-1),
		}
	}
	return found, nil
}

// crowded returns the memory of a contestant with all its mounts. The further ones
// are there from then on.
func (a *arena) crowded(ctx context.Context, who *contestant, o options) (int, error) {
	for mount := 1; mount < o.mounts; mount++ {
		if err := who.open(ctx, a.vault, who.numbered(mount), 1); err != nil {
			return 0, err
		}
	}
	var found []int
	for range o.restarts {
		_, resident, err := a.restart(ctx, who, o.mounts)
		if err != nil {
			return 0, err
		}
		found = append(found, resident)
	}
	return figures.Median(found), nil
}

// restart lets Vault start a plugin anew and reads once from each of its mounts, from
// a few at the same time. It returns how long the first read took, from the request to
// end the plugin until its answer, and what memory the plugin has after the last one.
func (a *arena) restart(ctx context.Context, who *contestant, mounts int) (time.Duration, int, error) {
	start := time.Now()
	if err := testbed.Reload(ctx, a.vault, who.program()); err != nil {
		return 0, 0, err
	}
	if err := a.vault.Call(ctx, http.MethodGet, who.path(0), nil, nil); err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for mount := 1; mount < mounts; mount++ {
		group.Go(func() error {
			return a.vault.Call(inner, http.MethodGet, who.pathAt(who.numbered(mount), 0), nil, nil)
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	resident, err := a.vault.Process().ResidentMemory(who.program())
	return took, resident, err
}
