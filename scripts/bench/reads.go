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
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// slowGraph is how long Graph takes to regenerate a key when it is slow.
	slowGraph = 200 * time.Millisecond

	// idle is the time before each read of one client. With the baseline's read in between,
	// those of the engine are more than a second apart: it sends Graph one regeneration a second
	// at most, and the wait for it is not to be measured.
	idle = 550 * time.Millisecond
)

// reading is the outcome of one turn of reading.
type reading struct {
	took      time.Duration
	latencies []time.Duration
	posts     int // regenerations of the key
}

func (r reading) rate() float64 { return float64(len(r.latencies)) / r.took.Seconds() }

// readings are the outcome of all turns.
type readings struct {
	rates     series                     // reads a second
	latencies map[string][]time.Duration // by engine, of all turns together
	posts     int                        // regenerations of the engine's key
}

// readings has all clients read from the engines in turn.
func (v *env) readings(ctx context.Context, engines ...*engine) (*readings, error) {
	found := &readings{rates: series{}, latencies: map[string][]time.Duration{}}
	for round := range v.rounds {
		command.Progress("reading, round %d of %d: %d clients", round+1, v.rounds, len(v.clients))
		for _, e := range turns(round, engines...) {
			r, err := v.crowd(ctx, e.path(round), v.turnOf(e))
			if err != nil {
				return nil, err
			}
			found.rates.add(e.name, r.rate())
			found.latencies[e.name] = append(found.latencies[e.name], r.latencies...)
			if e == v.engine {
				found.posts += r.posts
			}
		}
	}
	return found, nil
}

// turnOf is how long clients read from an engine in a round. A peer's figures need less
// precision.
func (v *env) turnOf(e *engine) time.Duration {
	if slices.Contains(v.peers, e) {
		return v.turn() / 4
	}
	return v.turn()
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

// regenerations has one client read from the baseline and from the engine, one read after
// the other. Each read of the engine regenerates the key, for which Graph takes a while.
func (v *env) regenerations(ctx context.Context, reads int, graph time.Duration) (series, error) {
	command.Progress("%d regenerating reads by one client, Graph takes %v", reads, graph)
	if graph > 0 {
		for _, e := range v.ours() {
			v.tenants[e.mount].Inject(graphtest.Fault{Operation: graphtest.Regenerate, Latency: graph})
			defer v.tenants[e.mount].Clear()
		}
	}
	found := series{}
	for range reads {
		for _, e := range v.withBaseline() { // always in turn, hence evenly spaced
			path, upstream := e.path(0), time.Duration(0)
			if e != v.baseline {
				path, upstream = e.callingPath(0), graph
			}
			if err := command.Pause(ctx, idle); err != nil {
				return nil, err
			}
			took, err := read(ctx, v.clients[0], path)
			if err != nil {
				return nil, err
			}
			found.add(e.name, milliseconds(took-upstream))
		}
	}
	return found, nil
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
