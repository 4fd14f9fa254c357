// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// pollInterval is the time between two lists of the remaining leases.
	pollInterval = 50 * time.Millisecond

	// retiresWithin is how long the engine may take to retire the key after its last lease.
	retiresWithin = 10 * time.Second
)

// revocation is how the leases of engines ended.
type revocation struct {
	took  series // seconds until the last lease of a round was gone
	rates series // leases a second
	posts int    // regenerations of the engine's key because of it
}

// revocation makes leases, those of the engine on one key, and then revokes them by
// prefix, a round's share at a time: within the request if sync is set, or queued by it.
func (v *env) revocation(ctx context.Context, sync bool, engines ...*engine) (revocation, error) {
	r := revocation{took: series{}, rates: series{}}
	for _, e := range engines {
		if err := v.lease(ctx, e); err != nil {
			return r, err
		}
	}
	posts := v.posts()
	for round := range v.rounds {
		command.Progress("revoking leases, sync=%t, round %d of %d", sync, round+1, v.rounds)
		for _, e := range turns(round, engines...) {
			took, err := v.revoke(ctx, e.path(round), sync)
			if err != nil {
				return r, err
			}
			r.took.add(e.name, took.Seconds())
			r.rates.add(e.name, float64(v.share(v.leasesOf(e), round))/took.Seconds())
		}
	}
	err := v.awaitRetirement(ctx, posts)
	r.posts = v.posts() - posts
	return r, err
}

// leasesOf is the number of leases that an engine is to revoke. A peer has fewer, since each
// takes a call to its service.
func (v *env) leasesOf(e *engine) int {
	if slices.Contains(v.peers, e) {
		return max(v.leases/5, v.rounds)
	}
	return v.leases
}

// lease makes the leases of an engine, a share on each round's path.
func (v *env) lease(ctx context.Context, e *engine) error {
	command.Progress("making %d leases: %s", v.leasesOf(e), e.name)
	for round := range v.rounds {
		n := v.share(v.leasesOf(e), round)
		if _, err := v.everyClient(ctx, e.path(round), func(before int) bool { return before < n }); err != nil {
			return err
		}
		made, err := v.remaining(ctx, e.path(round))
		if err != nil {
			return err
		}
		if made != n {
			return fmt.Errorf("%d leases on %s instead of %d", made, e.path(round), n)
		}
	}
	return nil
}

// revoke revokes the leases on a path and returns the time until none was left.
func (v *env) revoke(ctx context.Context, path string, sync bool) (time.Duration, error) {
	start := time.Now()
	err := v.vault.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: path, Prefix: true, Sync: sync})
	if err != nil {
		return 0, fmt.Errorf("revoking leases: %w", err)
	}
	for {
		remaining, err := v.remaining(ctx, path)
		if err != nil || remaining == 0 {
			return time.Since(start), err
		}
		if err := command.Pause(ctx, pollInterval); err != nil {
			return 0, err
		}
	}
}

// remaining returns the number of leases that Vault has on a path.
func (v *env) remaining(ctx context.Context, path string) (int, error) {
	leases, err := testbed.List(ctx, v.vault, "sys/leases/lookup/"+path)
	return len(leases), err
}

// awaitRetirement returns when the engine has regenerated the key because its last lease
// ended: later, the regeneration would count for another measurement.
func (v *env) awaitRetirement(ctx context.Context, before int) error {
	ctx, cancel := context.WithTimeout(ctx, retiresWithin)
	defer cancel()
	return v.tenant().Wait(ctx, graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed > before })
}
