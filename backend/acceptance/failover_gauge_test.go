// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const (
	// clientsOfAKind is how many clients there are for each gauge.
	clientsOfAKind = 4

	// answerLimit is how long a client waits for an answer before it asks another node.
	answerLimit = 4 * time.Second

	// beyondElection is how much longer than without an active node a host may be without
	// a working key.
	beyondElection = 3 * time.Second

	// comparedWithin is how old a comparison may be on watch, after which a key is shared.
	comparedWithin = 10 * time.Second
)

// gauge measures how long clients go without what they ask for.
type gauge struct {
	mu      sync.Mutex
	last    [clientsOfAKind]time.Time
	longest time.Duration
}

// got notes that a client has what it asks for.
func (g *gauge) got(client int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if last := g.last[client]; !last.IsZero() {
		g.longest = max(g.longest, now.Sub(last))
	}
	g.last[client] = now
}

// all reports whether all clients have got what they ask for since a time.
func (g *gauge) all(since time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, last := range g.last {
		if last.Before(since) {
			return false
		}
	}
	return true
}

// take returns the longest time since the last take.
func (g *gauge) take() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	longest := g.longest
	g.longest = 0
	return longest
}

// gauges are what is measured while nodes are lost.
type gauges struct {
	writes  gauge // to a kv mount: how long there was no active node
	answers gauge // with a key
	keys    gauge // that install a sensor

	mu        sync.Mutex
	dead      int // keys that were dead when they were handed out, without a warning
	warned    int // those with a warning
	overtaken int // keys that were replaced while they were on their way
}

// startGauges starts the clients: hosts that share the key, and writers to a kv mount.
func (f *failover) startGauges(t *testing.T) {
	t.Helper()
	require.NoError(t, f.Call(t.Context(), http.MethodPost, "sys/mounts/kv", map[string]string{"type": "kv"}, nil))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	f.endGauges = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(f.endGauges)
	for i := range clientsOfAKind {
		wg.Go(func() { f.repeat(ctx, i, f.write) })
		wg.Go(func() { f.repeat(ctx, i, f.host) })
	}
	require.Eventually(t, func() bool { return f.writes.all(time.Time{}.Add(1)) && f.keys.all(time.Time{}.Add(1)) },
		time.Minute, 50*time.Millisecond, "a client has not begun")
}

// repeat has a client ask the nodes again and again; when one fails it asks the next.
func (f *failover) repeat(ctx context.Context, client int, ask func(context.Context, *node, int) bool) {
	for at := client; ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
		limited, cancel := context.WithTimeout(ctx, answerLimit)
		if !ask(limited, f.nodes[at%len(f.nodes)], client) {
			at++
		}
		cancel()
	}
}

// write writes to the kv mount.
func (f *failover) write(ctx context.Context, n *node, client int) bool {
	if n.Call(ctx, http.MethodPut, "kv/x", map[string]int{"client": client}, nil) != nil {
		return false
	}
	f.writes.got(client)
	return true
}

// host reads under a role that shares the key, and tries the key.
func (f *failover) host(ctx context.Context, n *node, client int) bool {
	before, err := f.performed(ctx)
	got := f.hosts.add(read(ctx, n.Client, "mdi/key/hosts"))
	if err != nil || got.LeaseID == "" {
		return false
	}
	f.answers.got(client)
	if f.judge(context.WithoutCancel(ctx), before, got) {
		f.keys.got(client)
	}
	return true
}

// judge reports whether a key installs a sensor, and counts those that do not. Before is
// how often Graph had replaced the key when it was asked for.
func (f *failover) judge(ctx context.Context, before int, got leasedKey) bool {
	registers, err := f.tenant.Register(ctx, got.Data.Key)
	if err != nil || registers {
		return err == nil
	}
	now, err := f.performed(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
	case now != before:
		f.overtaken++
	case len(got.Warnings) > 0:
		f.warned++
	default:
		f.dead++
	}
	return false
}

// performed returns how often Graph has replaced the key.
func (f *failover) performed(ctx context.Context) (int, error) {
	calls, err := f.tenant.Calls(ctx)
	return calls[graphtest.Regenerate].Performed, err
}

// measure waits until each client has recovered, and compares how long hosts were without
// a key with how long there was no active node. Graph may carry out a regeneration after
// the election, which hosts learn of with the next comparison.
func (f *failover) measure(t *testing.T, m moment, l loss) {
	t.Helper()
	since := time.Now()
	require.Eventually(t, func() bool {
		return f.writes.all(since) && f.answers.all(since) && f.keys.all(since)
	}, time.Minute, 50*time.Millisecond, "a client has not recovered")
	election, answers, keys := f.writes.take(), f.answers.take(), f.keys.take()
	late := time.Duration(0)
	if m == workPending {
		late = comparedWithin
	}
	t.Logf("%s, %s: longest time without an active node %s, without an answer %s, without a working key %s", m, l,
		election.Round(10*time.Millisecond), answers.Round(10*time.Millisecond), keys.Round(10*time.Millisecond))
	require.LessOrEqual(t, answers, election+beyondElection)
	require.LessOrEqual(t, keys, election+beyondElection+late)
	f.longest[0], f.longest[1], f.longest[2] = max(f.longest[0], election), max(f.longest[1], answers), max(f.longest[2], keys)
	f.beyond = max(f.beyond, answers-election)
	if m != workPending {
		f.beyond = max(f.beyond, keys-election)
	}
}

// retirements returns how often the engine has retired a key.
func (f *failover) retirements(t *testing.T) int {
	t.Helper()
	return f.logged(t, "deployment access key regenerated: cause=retired")
}

// logged counts the lines of all nodes' logs that have a text.
func (c *cluster) logged(t *testing.T, text string) int {
	t.Helper()
	count := 0
	for _, n := range c.nodes {
		log, err := os.ReadFile(n.server.Log)
		require.NoError(t, err)
		count += strings.Count(string(log), text)
	}
	return count
}
