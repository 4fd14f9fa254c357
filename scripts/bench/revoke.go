// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"vault-plugin-secrets-mdi/backend/graphtest"
)

const (
	// lookEvery is how often the leases that are left are listed.
	lookEvery = 50 * time.Millisecond

	// retiresWithin is how long the engine has for the key after its last lease.
	retiresWithin = 10 * time.Second
)

// revocation is how the leases of both engines ended.
type revocation struct {
	sync             bool          // revoked within the request, or queued by it
	baseline, engine time.Duration // until the last one was gone, all rounds together
	posts            int           // regenerations of the key that came of it
}

// revocation makes the leases, all of the engine's on one key, and then revokes
// them by prefix, a round's share at a time.
func (a *arena) revocation(ctx context.Context, o options, sync bool) (revocation, error) {
	r := revocation{sync: sync}
	progress("making %d leases of each engine", o.leases)
	for _, who := range []contestant{a.baseline, a.engine} {
		if err := a.hold(ctx, who, o); err != nil {
			return r, err
		}
	}
	progress("revoking them in %d rounds, sync=%t", o.rounds, sync)
	posts := a.posts()
	for round := range o.rounds {
		for _, who := range a.order(round) {
			took, err := a.revoke(ctx, who.path(round), sync)
			if err != nil {
				return r, err
			}
			if who == a.engine {
				r.engine += took
			} else {
				r.baseline += took
			}
		}
	}
	err := a.awaitRetirement(ctx, posts)
	r.posts = a.posts() - posts
	return r, err
}

// hold makes an engine's leases, as many in each round's path.
func (a *arena) hold(ctx context.Context, who contestant, o options) error {
	for round := range o.rounds {
		n := o.share(round)
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
		return 0, fmt.Errorf("revoking the leases on %s: %w", path, err)
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
	leases, err := a.vault.List(ctx, "sys/leases/lookup/"+path)
	return len(leases), err
}

// awaitRetirement returns when the key that nobody has a lease on any more has been
// regenerated: later it would be counted for somebody else.
func (a *arena) awaitRetirement(ctx context.Context, before int) error {
	ctx, cancel := context.WithTimeout(ctx, retiresWithin)
	defer cancel()
	return a.tenant.Wait(ctx, graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed > before })
}
