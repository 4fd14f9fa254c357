// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// graphsLatency is how long Graph takes to regenerate a key when it takes its time.
const graphsLatency = 200 * time.Millisecond

// reading is what reading from a contestant came to, all turns together.
type reading struct {
	took      time.Duration
	latencies []time.Duration
	posts     int // regenerations of the key
}

func (r reading) rate() float64 { return float64(len(r.latencies)) / r.took.Seconds() }

func (r reading) median() time.Duration { return figures.Median(r.latencies) }

func (r reading) p99() time.Duration { return figures.Percentile(r.latencies, 99) }

// readings lets the contestants take turns in being read from by all clients.
func (a *arena) readings(ctx context.Context, o options, contestants ...*contestant) (map[string]reading, error) {
	found := map[string]reading{}
	for round := range o.rounds {
		command.Progress("reading, round %d of %d: %d clients, %v from each", round+1, o.rounds, len(a.clients), o.turn())
		for _, who := range turns(round, contestants...) {
			r, err := a.crowd(ctx, who.path(round), o.turn())
			if err != nil {
				return nil, err
			}
			before := found[who.name]
			found[who.name] = reading{before.took + r.took, append(before.latencies, r.latencies...), before.posts + r.posts}
		}
	}
	return found, nil
}

// crowd lets all clients read a path for a while, after a first read that brings what
// the engine and Vault remember up to date.
func (a *arena) crowd(ctx context.Context, path string, length time.Duration) (reading, error) {
	if err := a.clients[0].Call(ctx, http.MethodGet, path, nil, nil); err != nil {
		return reading{}, err
	}
	posts := a.posts()
	start := time.Now()
	latencies, err := a.everyClient(ctx, path, func(int64) bool { return time.Since(start) < length })
	return reading{took: time.Since(start), latencies: latencies, posts: a.posts() - posts}, err
}

// alone lets one client read a path, one read after the other.
func (a *arena) alone(ctx context.Context, path string, reads int) (reading, error) {
	r := reading{}
	start := time.Now()
	for range reads {
		took, err := read(ctx, a.clients[0], path)
		if err != nil {
			return r, err
		}
		r.latencies = append(r.latencies, took)
	}
	r.took = time.Since(start)
	return r, nil
}

// regenerations lets one client read that regenerates the key each time, while Graph
// does so at once and while it takes its time.
func (a *arena) regenerations(ctx context.Context, o options) (prompt, slow reading, err error) {
	command.Progress("regenerating reads, one after the other")
	path := a.engine.mount + "/key/" + fresh
	if prompt, err = a.alone(ctx, path, o.alone); err != nil {
		return prompt, slow, err
	}
	a.tenant().Inject(graphtest.Fault{Operation: graphtest.Regenerate, Latency: graphsLatency})
	defer a.tenant().Clear()
	slow, err = a.alone(ctx, path, max(o.alone/4, 1))
	return prompt, slow, err
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
					return fmt.Errorf("reading: %w", err)
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
