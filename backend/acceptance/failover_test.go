// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// hostTTL is how long the leases of readers and agents last.
	hostTTL = 10 * time.Second

	// recordGrace is how long after the end of its lease the engine keeps a record
	// of it, see leaseGrace there.
	recordGrace = 90 * time.Second

	roundsEnv = "MDI_CHAOS_ROUNDS" // how many rounds there are
	seedEnv   = "MDI_CHAOS_SEED"   // repeats the dice of an earlier run
)

// moment is when in a regeneration the active node is lost.
type moment string

const (
	anyMoment   moment = "any moment"   // while keys are regenerated one after the other
	answerHeld  moment = "answer held"  // Graph has replaced the key and has not answered
	workPending moment = "work pending" // Graph has the request, and carries it out later
	workLost    moment = "work lost"    // Graph has the request, and never carries it out
)

// loss is how the active node is lost.
type loss string

const (
	killed   loss = "kill -9"                      // Vault and the plugin, as when a machine stops
	orphaned loss = "kill -9, the plugin lives on" // Vault only; the plugin can still talk to Graph
	stepDown loss = "step-down"
	frozen   loss = "frozen until another node is active" // both, as when a machine is cut off

	pluginKilled loss = "the plugin alone is killed" // Vault starts another one
)

// losses come one after the other.
func losses() []loss { return []loss{killed, stepDown, orphaned, stepDown, frozen, pluginKilled} }

// roundsPerSet is in how many rounds each moment comes up.
const roundsPerSet = 10

// failover is a cluster that loses its active node again and again while hosts read
// the key.
type failover struct {
	*cluster
	gauges
	tenant *graphtest.Client
	dice   *rand.Rand
	hosts  *tally // of reads under a role that shares the key
	others *tally // of what was read besides
	agents []agent
	worst  map[moment]time.Duration // until the first key after the loss of the node

	endGauges func()
	longest   [3]time.Duration // without an active node, an answer, a working key
	beyond    time.Duration    // that hosts were without, beyond the time without an active node
}

// testFailover takes the active node away, by kill -9 and by step-down in turns, and
// looks after every election whether the next key installs a sensor. Hosts that share the
// key are without one for the election and three seconds at most.
func (s *suite) testFailover(t *testing.T) {
	t.Parallel()
	rounds := numberFrom(t, roundsEnv, roundsPerSet)
	seed := numberFrom(t, seedEnv, rand.Int()) //nolint:gosec // to be repeated, not to be hard to guess
	t.Logf("%s=%d %s=%d", roundsEnv, rounds, seedEnv, seed)
	f := s.startFailover(t, rand.New(rand.NewPCG(uint64(seed), 0))) //nolint:gosec // as above
	var moments []moment
	for round := range rounds {
		if round%roundsPerSet == 0 {
			moments = f.shuffled()
		}
		f.round(t, moments[round%roundsPerSet], losses()[round%len(losses())])
	}
	require.Zero(t, f.retirements(t), "a key was retired although hosts held it")
	f.settle(t)
	f.report(t, rounds)
}

// numberFrom reads a number from the environment.
func numberFrom(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

func (s *suite) startFailover(t *testing.T, dice *rand.Rand) *failover {
	t.Helper()
	sc := s.startScenario(t, "failover", "tenant")
	f := &failover{
		cluster: startCluster(t, sc), tenant: sc.tenants[0].client, dice: dice,
		hosts: &tally{}, others: &tally{}, worst: map[moment]time.Duration{},
	}
	config := testbed.ConfigFields(sc.tenants[0].info)
	config["ttl"] = hostTTL.String()
	for path, fields := range map[string]any{
		"mdi/config":      config,
		"mdi/roles/hosts": map[string]any{"ttl": hostTTL.String()},
		"mdi/roles/long":  map[string]any{"ttl": "1h"},
	} {
		require.NoError(t, f.Call(t.Context(), http.MethodPost, path, fields, nil))
	}
	f.startGauges(t)
	f.startAgents(t)
	return f
}

// shuffled returns the moments of a set of rounds.
func (f *failover) shuffled() []moment {
	moments := []moment{
		anyMoment, anyMoment, anyMoment, anyMoment,
		answerHeld, answerHeld, answerHeld, workPending, workPending, workLost,
	}
	f.dice.Shuffle(len(moments), func(i, j int) { moments[i], moments[j] = moments[j], moments[i] })
	return moments
}

// round takes the active node away at a moment, and brings it back.
func (f *failover) round(t *testing.T, m moment, l loss) {
	t.Helper()
	ctx := t.Context()
	active, since, err := f.active(ctx, "")
	require.NoError(t, err)
	if m == workLost {
		l = killed // as long as anybody waits for the answer, the work may be done
	}
	interrupt := f.reach(t, m, l)
	began := time.Now()
	bringBack := f.takeAway(t, active, l)
	interrupt()
	if m == workPending && l != stepDown {
		pause(ctx, f.upTo(2*time.Second))
		require.NoError(t, f.tenant.Clear(ctx))
	}
	if l != pluginKilled {
		_, _, err = f.active(ctx, since)
		require.NoError(t, err)
	}
	elected := time.Since(began)
	if l == frozen {
		bringBack() // it takes itself for active
	}
	f.expectKey(t)
	recovered := time.Since(began)
	f.worst[m] = max(f.worst[m], recovered)
	t.Logf("%s, %s: new active node after %s, key after %s",
		m, l, elected.Round(10*time.Millisecond), recovered.Round(10*time.Millisecond))
	require.NoError(t, f.tenant.Clear(ctx))
	f.measure(t, m, l)
	bringBack()
	count, err := testbed.Irrevocable(ctx, f)
	require.NoError(t, err)
	require.Zero(t, count, "irrevocable leases")
}

// reach returns at the moment at which the node is to be lost. The function that it
// returns ends the reads that led there.
func (f *failover) reach(t *testing.T, m moment, l loss) (interrupt func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	calls, err := f.tenant.Calls(ctx)
	require.NoError(t, err)
	until := graphtest.WaitRequest{Operation: graphtest.Regenerate, Timeout: "1m"}
	fault := graphtest.Fault{Operation: graphtest.Regenerate, Latency: 10 * time.Minute, Times: 1}
	if l == stepDown {
		fault.Latency = 3 * time.Second // Vault waits for its handlers
	}
	switch m {
	case answerHeld:
		fault.AfterWork = true
		until.Performed = calls[graphtest.Regenerate].Performed + 1
	case workPending, workLost:
		fault.Stubborn = m == workPending
		until.Started = calls[graphtest.Regenerate].Started + 1
	case anyMoment:
		fault.Latency = f.upTo(300 * time.Millisecond)
		fault.Times = 0
	}
	require.NoError(t, f.tenant.Inject(ctx, fault))
	regenerating := make(chan struct{})
	go func() {
		defer close(regenerating)
		for ctx.Err() == nil {
			f.others.add(read(ctx, f.nodes[0].Client, "mdi/key"))
			pause(ctx, 50*time.Millisecond)
		}
	}()
	if m == anyMoment {
		pause(ctx, f.upTo(2*time.Second))
	} else {
		_, err = f.tenant.Wait(ctx, until)
		require.NoError(t, err)
	}
	return func() {
		cancel()
		<-regenerating
	}
}

// takeAway makes the active node lose its place. What it returns makes the cluster whole
// again.
func (f *failover) takeAway(t *testing.T, active *node, l loss) (bringBack func()) {
	t.Helper()
	switch l {
	case stepDown:
		if err := active.Call(t.Context(), http.MethodPut, "sys/step-down", nil, nil); err != nil {
			t.Logf("not active any longer: %v", err) // on a busy machine a node can lose its place
		}
		return func() {}
	case frozen:
		thaw, err := active.process.Freeze()
		require.NoError(t, err)
		t.Cleanup(thaw)
		return thaw
	case pluginKilled:
		plugins, err := active.process.Children()
		require.NoError(t, err)
		testbed.Kill(plugins...)
		return func() {}
	}
	orphans, err := active.process.Kill()
	require.NoError(t, err)
	if l == killed {
		testbed.Kill(orphans...)
	}
	return func() {
		testbed.Kill(orphans...)
		require.NoError(t, f.restart(t.Context(), active))
	}
}

// expectKey reads until there is a key that installs a sensor: nobody asks for another one
// meanwhile. One that does not must come with a warning.
func (f *failover) expectKey(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; pause(t.Context(), 50*time.Millisecond) {
		for _, n := range f.nodes {
			if f.keyOf(t, n) {
				return
			}
		}
		require.True(t, time.Now().Before(deadline), "no key")
	}
}

// keyOf reports whether a node answers with a key that installs a sensor.
func (f *failover) keyOf(t *testing.T, n *node) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	before, err := f.performed(t.Context())
	require.NoError(t, err)
	got := f.others.add(read(ctx, n.Client, "mdi/key/hosts"))
	return got.LeaseID != "" && f.judge(t.Context(), before, got)
}

// upTo returns a random time.
func (f *failover) upTo(limit time.Duration) time.Duration {
	return time.Duration(f.dice.Int64N(int64(limit)))
}
