// SPDX-License-Identifier: MPL-2.0

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// measured is a result of which every figure is known.
func measured(t *testing.T) *result {
	t.Helper()
	o, err := parse([]string{"-leases", "100"})
	require.NoError(t, err)
	reads := func(n int, each time.Duration) reading {
		r := reading{took: 2 * time.Second}
		for range n {
			r.latencies = append(r.latencies, each)
		}
		return r
	}
	revoked := func(leases int, took map[string]time.Duration) revocation {
		return revocation{leases: leases, took: took, posts: 1}
	}
	return &result{
		options: o,
		setting: setting{
			cpus: 2, platform: "linux/amd64", goVersion: "go1.26.0", vaultVersion: "1.21.1", engineVersion: "v0.1.0",
			date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), took: 301 * time.Second,
		},
		footprints: map[string]footprint{
			baselineName: {binary: 20_000_000, startup: 100 * time.Millisecond, resident: 30_000_000, further: 50_000},
			engineName:   {binary: 25_000_000, startup: 120 * time.Millisecond, resident: 36_000_000, further: 250_000},
			"peer v1":    {binary: 24_000_000, startup: 110 * time.Millisecond, resident: 33_000_000, further: 100_000},
		},
		queued: revoked(100, map[string]time.Duration{baselineName: 2 * time.Second, engineName: 3 * time.Second}),
		sync:   revoked(100, map[string]time.Duration{baselineName: 4 * time.Second, engineName: 5 * time.Second}),
		readings: map[string]reading{
			baselineName: reads(2000, 20*time.Millisecond), engineName: reads(1700, 30*time.Millisecond), "peer v1": reads(500, 80*time.Millisecond),
		},
		fresh:     reading{took: 2 * time.Second, latencies: []time.Duration{40 * time.Millisecond, 50 * time.Millisecond}, posts: 1},
		reference: reads(9, 2*time.Millisecond), prompt: reads(9, 8*time.Millisecond), slow: reads(9, 212*time.Millisecond),
		peers: []string{"peer v1"}, peersRevoked: revoked(20, map[string]time.Duration{"peer v1": time.Second}),
	}
}

func TestReport(t *testing.T) {
	want := "`make bench ARGS=\"-leases=100\"` on 2026-01-02, in 5m1s:\n" + `2 CPUs, linux/amd64, go1.26.0, Vault 1.21.1 with raft storage, engine v0.1.0.

|                                    | baseline | engine   | comparison | target   | verdict     |
|------------------------------------|----------|----------|------------|----------|-------------|
| reads of a shared key, 64 clients  | 1000/s   | 850/s    | 0.85       | ≥ 0.85   | met         |
| … median                           | 20.0 ms  | 30.0 ms  | –          | –        |             |
| … 99th percentile                  | 20.0 ms  | 30.0 ms  | –          | –        |             |
| … regenerations                    | –        | 0        | –          | 0        | met         |
| revocation of 100 leases, queued   | 2.0 s    | 3.0 s    | 1.50       | ≤ 1.3    | **not met** |
| … regenerations                    | –        | 1        | –          | ≤ 1      | met         |
| … in one request for each turn     | 4.0 s    | 5.0 s    | 1.25       | –        |             |
| … regenerations                    | –        | 1        | –          | ≤ 1      | met         |
| read by one client, median         | 2.0 ms   | –        | –          | –        |             |
| … regenerating, Graph takes 0 ms   | –        | 8.0 ms   | 8.00 ms    | ≤ 10 ms  | met         |
| … regenerating, Graph takes 200 ms | –        | 212.0 ms | 12.00 ms   | ≤ 10 ms  | **not met** |
| memory with one mount              | 30.0 MB  | 36.0 MB  | 1.20       | ≤ 1.25   | met         |
| … each further mount of 100        | 0.05 MB  | 0.25 MB  | 0.25 MB    | ≤ 0.3 MB | met         |
| stripped binary                    | 20.0 MB  | 25.0 MB  | 1.25       | ≤ 1.2    | **not met** |
| start-up to first read             | 100.0 ms | 120.0 ms | 1.20       | –        |             |
| leases that Vault has given up     | –        | 0        | –          | 0        | met         |

|                | reads/s | median  | 99th percentile | revoked/s | memory  | further mount | binary  | start-up |
|----------------|---------|---------|-----------------|-----------|---------|---------------|---------|----------|
| baseline       | 1000    | 20.0 ms | 20.0 ms         | 25        | 30.0 MB | 0.05 MB       | 20.0 MB | 100.0 ms |
| engine         | 850     | 30.0 ms | 30.0 ms         | 20        | 36.0 MB | 0.25 MB       | 25.0 MB | 120.0 ms |
| … regenerating | 1       | 40.0 ms | 50.0 ms         | –         | –       | –             | –       | –        |
| peer v1        | 250     | 80.0 ms | 80.0 ms         | 20        | 33.0 MB | 0.10 MB       | 24.0 MB | 110.0 ms |

The 2 regenerating reads of 64 clients at a time cost 1 regenerations of the key.
`
	require.Equal(t, want, measured(t).text())
}

func TestReportReplacesTheOneBefore(t *testing.T) {
	const before, after = "# Benchmarks\n\nHow.\n\n", "\nWhy.\n"
	document, err := replaceReport(before+reportBegins+reportEnds+after, "first\n")
	require.NoError(t, err)
	document, err = replaceReport(document, "second\n")
	require.NoError(t, err)
	require.Equal(t, before+reportBegins+"\nsecond\n\n"+reportEnds+after, document)
}

func TestReportNeedsItsMarks(t *testing.T) {
	for _, document := range []string{"# Benchmarks\n", reportBegins, reportEnds + reportBegins} {
		_, err := replaceReport(document, "report\n")
		require.ErrorContains(t, err, "no place for the report")
	}
}
