// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// profile looks into the engine while it is read from, while its leases are revoked
// and while it regenerates, and writes what it sees to the folder of the options.
func profile(ctx context.Context, o options) (err error) {
	o.peers = false
	f, err := gather(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := os.MkdirAll(o.profiles, 0o750); err != nil {
		return err
	}
	f.engine.plugin, f.engine.arguments = filepath.Join(f.dir, "profiled"), []string{f.dir}
	if err := testbed.BuildPackage(ctx, f.programs.Root, "./scripts/bench/profiled", "", f.engine.plugin); err != nil {
		return err
	}
	a, err := openArena(ctx, f, o)
	if err != nil {
		return err
	}
	return errors.Join(a.profile(ctx, o), a.close())
}

func (a *arena) profile(ctx context.Context, o options) error {
	p, err := a.profiler(o)
	if err != nil {
		return err
	}
	if err := a.hold(ctx, a.engine, o, o.leases); err != nil {
		return err
	}
	for _, one := range []struct {
		name string
		work func() error
	}{
		{"revocation", func() error { return a.revokeAll(ctx, o) }},
		{"reads", func() error { return a.crowdFor(ctx, a.engine.path(0), o) }},
		{"regenerating", func() error { return a.crowdFor(ctx, a.engine.mount+"/key/"+fresh, o) }},
	} {
		command.Progress("profile of: %s", one.name)
		if err := p.watch(ctx, one.name, one.work); err != nil {
			return err
		}
	}
	return nil
}

func (a *arena) revokeAll(ctx context.Context, o options) error {
	for round := range o.rounds {
		if _, err := a.revoke(ctx, a.engine.path(round), true); err != nil {
			return err
		}
	}
	return nil
}

func (a *arena) crowdFor(ctx context.Context, path string, o options) error {
	_, err := a.crowd(ctx, path, o.few())
	return err
}

// profiler gets the profiles of a plugin's process.
type profiler struct {
	address string
	dir     string
}

// profiler finds the process of the engine.
func (a *arena) profiler(o options) (*profiler, error) {
	pids, err := a.vault.Process().Running(a.engine.program())
	if err != nil {
		return nil, err
	}
	if len(pids) != 1 {
		return nil, fmt.Errorf("%d processes of the engine instead of one", len(pids))
	}
	address, err := os.ReadFile(filepath.Join(a.dir, strconv.Itoa(pids[0])))
	return &profiler{address: string(address), dir: o.profiles}, err
}

// watch profiles the engine while it works: the processor's time for as long as the
// work takes, and then what was allocated and waited for since the engine's start.
func (p *profiler) watch(ctx context.Context, name string, work func() error) error {
	if err := p.get(ctx, "cpu/start", io.Discard); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	if err := p.save(ctx, "cpu/stop", name+".cpu"); err != nil {
		return err
	}
	for _, kind := range []string{"allocs", "mutex", "block"} {
		if err := p.save(ctx, "debug/pprof/"+kind, name+"."+kind); err != nil {
			return err
		}
	}
	return nil
}

// save writes a profile to a file.
func (p *profiler) save(ctx context.Context, path, name string) error {
	file, err := os.Create(filepath.Join(p.dir, name+".pprof")) //nolint:gosec // the folder that the flag names
	if err != nil {
		return err
	}
	return errors.Join(p.get(ctx, path, file), file.Close())
}

func (p *profiler) get(ctx context.Context, path string, into io.Writer) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/"+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP %d", path, resp.StatusCode)
	}
	_, err = io.Copy(into, resp.Body)
	return err
}
