// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// measured is a result of which every figure is known.
func measured(t *testing.T) *result {
	t.Helper()
	o, err := parse([]string{"-leases", "100"})
	require.NoError(t, err)
	of := func(baseline, engine, peer float64) series {
		s := series{}
		for _, change := range []float64{1, 1.1, 0.9} { // of the machine's speed
			s[baselineName] = append(s[baselineName], baseline*change)
			s[engineName] = append(s[engineName], engine*change)
			s["peer v1"] = append(s["peer v1"], peer*change)
		}
		return s
	}
	each := func(ms time.Duration) []time.Duration { return []time.Duration{ms * time.Millisecond} }
	grown := func(baseline, engine, status float64) series {
		return series{baselineName: {baseline}, engineName: {engine}, statusName: {status}}
	}
	return &result{
		options: o,
		setting: setting{
			cpus: 2, platform: "linux/amd64", goVersion: "go1.26.0", vaultVersion: "1.21.1", engineVersion: "v0.1.0",
			baseline: "0123456789ab", date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), took: 301 * time.Second,
		},
		footprints: &footprints{
			binary:  map[string]int{baselineName: 20_000_000, engineName: 25_000_000, "peer v1": 24_000_000},
			startup: of(100, 120, 110), resident: of(30e6, 33e6, 32e6), further: of(0.2e6, 0.3e6, 0.25e6),
		},
		queued: revocation{took: of(2, 3, 0), posts: 1},
		sync:   revocation{rates: of(600, 400, 450), posts: 1},
		shared: &readings{
			rates:     of(1000, 940, 500),
			latencies: map[string][]time.Duration{baselineName: each(20), engineName: each(30), "peer v1": each(80)},
		},
		fresh:  reading{took: 2 * time.Second, latencies: append(each(40), each(50)...), posts: 1},
		prompt: of(2, 5, 0), slow: of(2, 7, 0),
		peers: []string{"peer v1"},
		stages: []stage{
			{size: "100", times: grown(2, 3, 1), start: 60 * time.Millisecond, memory: 40e6, tick: 3 * time.Millisecond},
			{size: "1000", times: grown(4, 6, 1.5), start: 70 * time.Millisecond, memory: 41e6},
			{size: "10000", times: grown(4, 9, 2.5), start: 80 * time.Millisecond, memory: 50e6},
		},
		churned: stage{size: "… more", times: grown(4, 9, 3), start: 90 * time.Millisecond, memory: 51e6, tick: 5 * time.Millisecond},
	}
}

func TestReport(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "report.txt"))
	require.NoError(t, err)
	require.Equal(t, string(want), measured(t).text())
}

// A ratio is judged as it is printed.
func TestVerdict(t *testing.T) {
	least, most := target{limit: 0.9, atLeast: true, floor: 0.5}, target{limit: 1.1}
	require.Equal(t, "met", least.verdict(0.896))
	require.Equal(t, "floor", least.verdict(0.5))
	require.Equal(t, "**missed**", least.verdict(0.49))
	require.Equal(t, "met", most.verdict(1.104))
	require.Equal(t, "**missed**", most.verdict(1.106))
}

func TestReportOfTwoRevisions(t *testing.T) {
	res := measured(t)
	res.compared, res.peers = "peer v1", nil
	report := res.text()
	require.Regexp(t, `(?m)^\| +\| baseline +\| .*\| peer v1 +\| engine / peer v1 \|$`, report)
	require.Regexp(t, `(?m)^\| revocations in one request .*\| floor +\| 450/s +\| 0.89 ± 0% +\|$`, report)
	require.Regexp(t, `(?m)^\| peer v1 +\| 500 ± 10% +\|`, report)
}

func TestCharts(t *testing.T) {
	charts := measured(t).charts()
	require.Len(t, charts, 2)
	require.Equal(t, []bar{{"baseline", 1000, 900, 1100}, {"engine", 940, 846, 1034}, {"peer v1", 500, 450, 550}}, charts[0].Bars)
}

// The program is a module of its own, so nothing else compiles it here.
func TestDraw(t *testing.T) {
	if testing.Short() {
		t.Skip("it may have to download the library that draws")
	}
	root, err := testbed.Repository()
	require.NoError(t, err)
	s := &suite{dir: t.TempDir(), programs: testbed.Programs{Root: root}}
	require.NoError(t, s.draw(t.Context(), filepath.Join(s.dir, "page.md"), measured(t).charts()))
	drawn, err := os.ReadFile(filepath.Join(s.dir, "page.svg"))
	require.NoError(t, err)
	require.Contains(t, string(drawn), ">peer v1</text>")
}

func TestRatioIsOfTheSameRounds(t *testing.T) {
	slowing := series{"a": {2, 20, 200}, "b": {1, 10, 100}}
	require.Equal(t, figures.Summary{Median: 2, Low: 2, High: 2}, slowing.ratio("a", "b"))
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
