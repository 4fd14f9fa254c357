// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// slowGraph is how long Graph takes to regenerate a key when it is slow.
	slowGraph = 200 * time.Millisecond

	// apart is how long after a regenerating read the next one begins: the engine sends
	// Graph one regeneration a second at most, and the wait for it is not to be measured.
	apart = 1100 * time.Millisecond
)

// reading is the outcome of reading from an engine, of all its turns together.
type reading struct {
	took      time.Duration
	latencies []time.Duration
	posts     int // regenerations of the key
}

func (r reading) rate() float64 { return float64(len(r.latencies)) / r.took.Seconds() }

func (r reading) median() time.Duration { return figures.Median(r.latencies) }

func (r reading) p99() time.Duration { return figures.Percentile(r.latencies, 99) }

// readings has all clients read from the engines in turn.
func (v *env) readings(ctx context.Context, engines ...*engine) (map[string]reading, error) {
	found := map[string]reading{}
	for round := range v.rounds {
		command.Progress("reading, round %d of %d: %d clients, %v from each", round+1, v.rounds, len(v.clients), v.turn())
		for _, e := range turns(round, engines...) {
			r, err := v.crowd(ctx, e.path(round), v.turn())
			if err != nil {
				return nil, err
			}
			before := found[e.name]
			found[e.name] = reading{before.took + r.took, append(before.latencies, r.latencies...), before.posts + r.posts}
		}
	}
	return found, nil
}

// crowd has all clients read a path for a while, after one read that brings the caches of
// Vault and of the engine up to date.
func (v *env) crowd(ctx context.Context, path string, length time.Duration) (reading, error) {
	if _, err := read(ctx, v.clients[0], path); err != nil {
		return reading{}, err
	}
	posts, start := v.posts(), time.Now()
	latencies, err := v.everyClient(ctx, path, func(int) bool { return time.Since(start) < length })
	return reading{took: time.Since(start), latencies: latencies, posts: v.posts() - posts}, err
}

// alone has one client read a path, one read after the other, with a pause before each.
func (v *env) alone(ctx context.Context, path string, reads int, pause time.Duration) (reading, error) {
	r := reading{latencies: make([]time.Duration, reads)}
	start := time.Now()
	for i := range reads {
		var err error
		time.Sleep(pause)
		if r.latencies[i], err = read(ctx, v.clients[0], path); err != nil {
			return r, err
		}
	}
	r.took = time.Since(start)
	return r, nil
}

// regenerations has one client read so that each read regenerates the key, with a prompt
// Graph and with a slow one.
func (v *env) regenerations(ctx context.Context) (prompt, slow reading, err error) {
	command.Progress("%d regenerating reads, one after the other, %v apart", v.reads+max(v.reads/4, 1), apart)
	path := v.engine.mount + "/key/" + fresh
	if prompt, err = v.alone(ctx, path, v.reads, apart); err != nil {
		return prompt, slow, err
	}
	v.tenant().Inject(graphtest.Fault{Operation: graphtest.Regenerate, Latency: slowGraph})
	defer v.tenant().Clear()
	slow, err = v.alone(ctx, path, max(v.reads/4, 1), apart)
	return prompt, slow, err
}

// everyClient has all clients read as long as more agrees, which is called before each
// read with the number of those before it. It returns the latencies.
func (v *env) everyClient(ctx context.Context, path string, more func(before int) bool) ([]time.Duration, error) {
	var begun atomic.Int64
	latencies := make([][]time.Duration, len(v.clients))
	group, ctx := errgroup.WithContext(ctx)
	for i, client := range v.clients {
		group.Go(func() error {
			for more(int(begun.Add(1) - 1)) {
				took, err := read(ctx, client, path)
				if err != nil {
					return fmt.Errorf("reading: %w", err)
				}
				latencies[i] = append(latencies[i], took)
			}
			return nil
		})
	}
	err := group.Wait()
	return slices.Concat(latencies...), err
}

func read(ctx context.Context, client *testbed.Client, path string) (time.Duration, error) {
	start := time.Now()
	err := client.Call(ctx, http.MethodGet, path, nil, nil)
	return time.Since(start), err
}
