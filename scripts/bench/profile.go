// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// profile profiles the engine while its leases are revoked, while it is read from and
// while it regenerates.
func (s *suite) profile(ctx context.Context) error {
	s.engine.plugin, s.engine.arguments = filepath.Join(s.dir, "profiled"), []string{s.dir}
	if err := testbed.BuildPackage(ctx, s.programs.Root, "./scripts/bench/profiled", "", s.engine.plugin); err != nil {
		return err
	}
	return s.inVault(ctx, nil, []*engine{s.engine}, func(v *env) error {
		if err := v.lease(ctx, v.engine); err != nil {
			return err
		}
		for _, one := range []struct {
			name string
			work func() error
		}{
			{"revocation", func() error { return v.revokeAll(ctx) }},
			{"reads", func() error { return v.readFrom(ctx, v.engine.path(0)) }},
			{"regenerating", func() error { return v.readFrom(ctx, v.engine.callingPath(0)) }},
		} {
			command.Progress("profile of: %s", one.name)
			if err := v.watch(ctx, one.name, one.work); err != nil {
				return err
			}
		}
		return nil
	})
}

func (v *env) revokeAll(ctx context.Context) error {
	for round := range v.rounds {
		if _, err := v.revoke(ctx, v.engine.path(round), true); err != nil {
			return err
		}
	}
	return nil
}

func (v *env) readFrom(ctx context.Context, path string) error {
	_, err := v.crowd(ctx, path, v.few())
	return err
}

// watch has the plugin profile itself while it works, and write the files.
func (v *env) watch(ctx context.Context, name string, work func() error) error {
	prefix, err := filepath.Abs(filepath.Join(v.profiles, name))
	if err != nil {
		return err
	}
	pids, err := v.vault.Process().Running(v.engine.program())
	if err != nil || len(pids) != 1 {
		return fmt.Errorf("%d processes of the engine instead of one: %w", len(pids), err)
	}
	address, err := os.ReadFile(filepath.Join(v.dir, strconv.Itoa(pids[0])))
	if err != nil {
		return err
	}
	if err := post(ctx, "http://"+string(address)+"/start"); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	return post(ctx, "http://"+string(address)+"/stop?prefix="+url.QueryEscape(prefix))
}

func post(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP %d", address, resp.StatusCode)
	}
	return nil
}
