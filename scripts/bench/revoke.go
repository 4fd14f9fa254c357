// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// lookEvery is how often the leases that are left are listed.
	lookEvery = 50 * time.Millisecond

	// retiresWithin is how long the engine has for the key after its last lease.
	retiresWithin = 10 * time.Second
)

// revocation is how the leases of contestants ended.
type revocation struct {
	leases int                      // of each
	took   map[string]time.Duration // until the last one was gone, all rounds together
	posts  int                      // regenerations of the engine's key that came of it
}

// rate is how many leases of a contestant ended in a second.
func (r revocation) rate(name string) float64 { return float64(r.leases) / r.took[name].Seconds() }

// revocation makes leases, all of the engine's on one key, and then revokes them by
// prefix, a round's share at a time: within the request if sync is set, or queued by
// it.
func (a *arena) revocation(ctx context.Context, o options, leases int, sync bool, contestants ...*contestant) (revocation, error) {
	r := revocation{leases: leases, took: map[string]time.Duration{}}
	for _, who := range contestants {
		command.Progress("making %d leases: %s", leases, who.name)
		if err := a.hold(ctx, who, o, leases); err != nil {
			return r, err
		}
	}
	posts := a.posts()
	for round := range o.rounds {
		command.Progress("revoking leases, sync=%t, round %d of %d", sync, round+1, o.rounds)
		for _, who := range turns(round, contestants...) {
			took, err := a.revoke(ctx, who.path(round), sync)
			if err != nil {
				return r, err
			}
			r.took[who.name] += took
		}
	}
	var err error
	if _, ok := r.took[a.engine.name]; ok {
		err = a.awaitRetirement(ctx, posts)
		r.posts = a.posts() - posts
	}
	return r, err
}

// hold makes a contestant's leases, a share in each round's path.
func (a *arena) hold(ctx context.Context, who *contestant, o options, leases int) error {
	for round := range o.rounds {
		n := o.share(leases, round)
		if err := a.lease(ctx, who.path(round), n); err != nil {
			return err
		}
		made, err := a.left(ctx, who.path(round))
		if err != nil {
			return err
		}
		if made != n {
			return fmt.Errorf("%d leases on %s instead of %d", made, who.path(round), n)
		}
	}
	return nil
}

// revoke revokes the leases on a path and returns how long it took until none was
// left.
func (a *arena) revoke(ctx context.Context, path string, sync bool) (time.Duration, error) {
	start := time.Now()
	err := a.vault.Call(ctx, http.MethodPut, "sys/leases/revoke-prefix/"+path, map[string]any{"sync": sync}, nil)
	if err != nil {
		return 0, fmt.Errorf("revoking leases: %w", err)
	}
	for {
		left, err := a.left(ctx, path)
		if err != nil || left == 0 {
			return time.Since(start), err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// left returns how many leases Vault has on a path.
func (a *arena) left(ctx context.Context, path string) (int, error) {
	leases, err := testbed.List(ctx, a.vault, "sys/leases/lookup/"+path)
	return len(leases), err
}

// awaitRetirement returns when the key that nobody has a lease on any more has been
// regenerated: later it would be counted for somebody else.
func (a *arena) awaitRetirement(ctx context.Context, before int) error {
	ctx, cancel := context.WithTimeout(ctx, retiresWithin)
	defer cancel()
	return a.tenant().Wait(ctx, graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed > before })
}
