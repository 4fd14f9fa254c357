// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPrint(t *testing.T) {
	o, err := parse([]string{"-seconds", "4", "-rounds", "2", "-leases", "100"})
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, o.turn())
	reads := func(who string, n int64, p50 time.Duration) reading {
		return reading{who: who, reads: n, took: 2 * time.Second, latencies: []time.Duration{p50}}
	}
	res := &result{
		revocations: []revocation{
			{baseline: 2 * time.Second, engine: 3 * time.Second, posts: 1},
			{baseline: 4 * time.Second, engine: 6 * time.Second, posts: 1, sync: true},
		},
		readings: []reading{
			reads("baseline", 2000, 20*time.Millisecond), reads("engine", 1500, 30*time.Millisecond),
			reads("engine", 1700, 32*time.Millisecond), reads("baseline", 2000, 22*time.Millisecond),
		},
	}
	var out strings.Builder
	require.NoError(t, res.print(&out, o))
	want := `
Reads of a shared key: 64 clients, 4 s for each engine in 2 turns, raft storage

           reads   reads/s   p50       p99       per turn, reads/s
baseline   4000    1000      20.0 ms   22.0 ms   1000 1000
engine     3200    800       30.0 ms   32.0 ms   750 850
ratio              0.80                          target: at least 0.6
POSTs      0                                     target: 0

Revocation of 100 leases of one key by prefix in 2 turns, until the last one is gone

         baseline   engine   ratio   target      POSTs   target
queued   2.0 s      3.0 s    1.50    at most 2   1       at most 1
sync     4.0 s      6.0 s    1.50    at most 2   1       at most 1

Irrevocable leases: 0, target 0
`
	require.Equal(t, want, out.String())
}

func TestParametersThatMakeNoSense(t *testing.T) {
	_, err := parse([]string{"-clients", "0"})
	require.ErrorContains(t, err, "above 0")
	_, err = parse([]string{"-leases", "3", "-rounds", "4"})
	require.ErrorContains(t, err, "as many leases")
	_, err = parse([]string{"fast"})
	require.ErrorContains(t, err, "no arguments")
}

func TestRoundsShareTheLeases(t *testing.T) {
	o := options{leases: 11, rounds: 4}
	require.Equal(t, []int{3, 3, 3, 2}, []int{o.share(0), o.share(1), o.share(2), o.share(3)})
}
