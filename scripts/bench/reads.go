// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"vault-plugin-secrets-mdi/backend/graphtest"
	"vault-plugin-secrets-mdi/scripts/internal/testbed"
)

// reading is what one turn of reading came to.
type reading struct {
	who       string
	reads     int64
	took      time.Duration
	latencies []time.Duration
	posts     int
}

func (r reading) rate() float64 { return float64(r.reads) / r.took.Seconds() }

// reading lets all clients read for a while, after a first read that brings what
// the engine and Vault remember up to date.
func (a *arena) reading(ctx context.Context, who contestant, round int, length time.Duration) (reading, error) {
	if err := a.clients[0].Call(ctx, http.MethodGet, who.path(round), nil, nil); err != nil {
		return reading{}, err
	}
	progress("reading from the %s: %d clients for %v", who.name, len(a.clients), length)
	posts := a.posts()
	start := time.Now()
	latencies, err := a.everyClient(ctx, who.path(round), func(int64) bool { return time.Since(start) < length })
	r := reading{
		who:       who.name,
		reads:     int64(len(latencies)),
		took:      time.Since(start),
		latencies: latencies,
		posts:     a.posts() - posts,
	}
	return r, err
}

// lease makes n leases.
func (a *arena) lease(ctx context.Context, path string, n int) error {
	_, err := a.everyClient(ctx, path, func(done int64) bool { return done < int64(n) })
	return err
}

// everyClient lets all clients read as long as more agrees, which is asked before
// each read with the number of reads begun so far, and returns the latencies.
func (a *arena) everyClient(ctx context.Context, path string, more func(begun int64) bool) ([]time.Duration, error) {
	var begun atomic.Int64
	latencies := make([][]time.Duration, len(a.clients))
	group, ctx := errgroup.WithContext(ctx)
	for i, client := range a.clients {
		group.Go(func() error {
			for more(begun.Add(1) - 1) {
				took, err := read(ctx, client, path)
				if err != nil {
					return fmt.Errorf("reading %s: %w", path, err)
				}
				latencies[i] = append(latencies[i], took)
			}
			return nil
		})
	}
	err := group.Wait()
	var all []time.Duration
	for _, some := range latencies {
		all = append(all, some...)
	}
	return all, err
}

func read(ctx context.Context, client *testbed.Client, path string) (time.Duration, error) {
	start := time.Now()
	err := client.Call(ctx, http.MethodGet, path, nil, nil)
	return time.Since(start), err
}

// posts is how often the tenant's key has been regenerated.
func (a *arena) posts() int { return a.tenant.Calls(graphtest.Regenerate).Performed }
