// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func acquired(key string, seconds int, registered bool) acquisition {
	return acquisition{key: key, at: noon.Add(time.Duration(seconds) * time.Second), registered: registered}
}

func options10s() options {
	return options{hosts: 2, ttl: 10 * time.Second, maxKeyAge: anyAge, mount: "mdi", role: "fleet"}
}

func TestAllIsWell(t *testing.T) {
	r := &report{posts: 1, records: []*record{
		{reads: 1, latencies: []time.Duration{time.Millisecond}, acquired: []acquisition{acquired("a", 0, true)}},
		{reads: 2, latencies: []time.Duration{3 * time.Millisecond, time.Millisecond}, acquired: []acquisition{acquired("a", 1, true)}},
	}}
	require.Empty(t, r.problems(options10s()))
	var out strings.Builder
	require.NoError(t, r.table(options10s()).Print(&out))
	require.Equal(t, strings.TrimLeft(`
hosts                           2   started within 0s
reads                           3   0 failed
read latency, p50               1.0 ms
read latency, p90               3.0 ms
read latency, p99               3.0 ms
read latency, p100              3.0 ms
first key registered a sensor   2 of 2
registrations                   2   0 refused
POSTs to Graph                  1   at most 1 expected
irrevocable leases              0
`, "\n"), out.String())
}

func TestProblems(t *testing.T) {
	well := &record{acquired: []acquisition{acquired("a", 0, true)}}
	for _, test := range []struct {
		name    string
		report  *report
		problem string
	}{
		{"no key", &report{records: []*record{well, {}}}, "1 did not register"},
		{"a dead key", &report{records: []*record{well, {acquired: []acquisition{acquired("b", 1, false)}}}}, "1 registrations were refused"},
		{"gave up", &report{records: []*record{{acquired: well.acquired, problem: errors.New("sealed")}}}, "1 gave up, one because: sealed"},
		{"too many keys", &report{posts: 2, records: []*record{well}}, "regenerated 2 times"},
		{"irrevocable", &report{irrevocable: 3, records: []*record{well}}, "3 leases are irrevocable"},
		{"a key outlives its mount", &report{records: []*record{well}, disabled: &disabled{works: true}}, "still works"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options10s()
			o.thenDisable = graphUp
			require.Contains(t, strings.Join(test.report.problems(o), "; "), test.problem)
		})
	}
}

func TestLagsAfterARotation(t *testing.T) {
	r := &report{rotatedAt: noon.Add(20 * time.Second), posts: 2, records: []*record{
		{acquired: []acquisition{acquired("a", 0, true), acquired("b", 27, true)}},
		{acquired: []acquisition{acquired("a", 1, true), acquired("b", 19, true)}}, // before the answer to the operator
		{acquired: []acquisition{acquired("a", 2, true)}},
	}}
	lags, behind := r.lags()
	require.Equal(t, []time.Duration{7 * time.Second, 0}, lags)
	require.Equal(t, 1, behind)
	require.Equal(t, problems{"1 do not hold the new key"}, r.problems(options10s()))

	r.records[2].acquired = append(r.records[2].acquired, acquired("b", 30, true))
	require.Contains(t, strings.Join(r.problems(options10s()), "; "), "later than 0.95 × ttl")
}

func TestDisabledWithoutGraph(t *testing.T) {
	require.Empty(t, (&disabled{works: true, logged: true, took: 10 * time.Second}).problems(graphDown))
	require.Len(t, (&disabled{works: true, took: 16 * time.Second}).problems(graphSilent), 2)
}

// tenant is one whose current key registers.
type tenant struct {
	key   string
	asked int
}

func (t *tenant) Register(_ context.Context, key string) (bool, error) {
	t.asked++
	return key == t.key, nil
}

func TestAKeyIsTriedWhenItIsNew(t *testing.T) {
	sim := &tenant{key: "b"}
	var r record
	for i, key := range []string{"a", "a", "b", "b"} {
		require.NoError(t, r.hold(t.Context(), sim, key, noon.Add(time.Duration(i)*time.Second)))
	}
	require.Equal(t, []acquisition{acquired("a", 0, false), acquired("b", 2, true)}, r.acquired)
	require.Equal(t, 2, sim.asked)
}
