// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
)

// The targets of the engine, compared with the baseline where there is one. The verdicts
// are printed, but no test depends on them, since they depend on the machine.
const (
	readsTarget      = 0.85                  // at least, of the reads a second
	revocationTarget = 1.3                   // at most, of the time
	freshTarget      = 10 * time.Millisecond // at most, on top of Graph's own time
	residentTarget   = 1.25                  // at most, of the memory
	furtherTarget    = 0.3e6                 // bytes at most, for each further mount
	binaryTarget     = 1.2                   // at most, of the size
	postsTarget      = 1                     // at most, for each revocation of all leases
)

// text is the report, in Markdown that is also readable on a terminal.
func (r *result) text() string {
	var out strings.Builder
	s := r.setting
	fmt.Fprintf(&out, "`%s` on %s, in %v:\n%d CPUs, %s, %s, Vault %s with raft storage, engine %s.\n\n",
		r.options.line, s.date.UTC().Format(time.DateOnly), s.took.Round(time.Second),
		s.cpus, s.platform, s.goVersion, s.vaultVersion, s.engineVersion)
	out.WriteString(r.targets().Markdown())
	out.WriteString("\n")
	out.WriteString(r.comparison().Markdown())
	fmt.Fprintf(&out, "\nThe %d regenerating reads of %d clients at a time cost %d regenerations of the key.\n",
		len(r.fresh.latencies), r.options.readers, r.fresh.posts)
	return out.String()
}

// sheet is a table of targets and verdicts.
type sheet struct{ figures.Table }

// none is an empty cell.
const none = "–"

// atMost adds a row whose comparison must not exceed a limit.
func (s *sheet) atMost(what, baseline, engine string, value, limit float64, unit string) {
	s.verdict(what, baseline, engine, fmt.Sprintf("%.2f%s", value, unit), fmt.Sprintf("≤ %.4g%s", limit, unit), value <= limit)
}

// count adds a row for a number that only the engine has.
func (s *sheet) count(what string, n, limit int) {
	target := "0"
	if limit > 0 {
		target = fmt.Sprintf("≤ %d", limit)
	}
	s.verdict(what, none, fmt.Sprint(n), none, target, n <= limit)
}

// plain adds a row without a target.
func (s *sheet) plain(what, baseline, engine, comparison string) {
	s.Row(what, baseline, engine, comparison, none, "")
}

func (s *sheet) verdict(what, baseline, engine, comparison, target string, met bool) {
	verdict := "met"
	if !met {
		verdict = "**not met**"
	}
	s.Row(what, baseline, engine, comparison, target, verdict)
}

// targets compares the engine with the baseline.
func (r *result) targets() *sheet {
	s := &sheet{}
	s.Row("", "baseline", "engine", "comparison", "target", "verdict")
	r.readTargets(s)
	r.revocationTargets(s)
	r.freshTargets(s)
	r.footprintTargets(s)
	s.count("leases that Vault has given up", r.irrevocable, 0)
	return s
}

func (r *result) readTargets(s *sheet) {
	base, engine := r.readings[baselineName], r.readings[engineName]
	ratio := engine.rate() / base.rate()
	s.verdict(fmt.Sprintf("reads of a shared key, %d clients", r.options.readers), perSecond(base.rate()), perSecond(engine.rate()),
		fmt.Sprintf("%.2f", ratio), fmt.Sprintf("≥ %.4g", readsTarget), ratio >= readsTarget)
	s.plain("… median", figures.Milliseconds(base.median()), figures.Milliseconds(engine.median()), none)
	s.plain("… 99th percentile", figures.Milliseconds(base.p99()), figures.Milliseconds(engine.p99()), none)
	s.count("… regenerations", engine.posts, 0)
}

func (r *result) revocationTargets(s *sheet) {
	ratio := func(of revocation) float64 { return float64(of.took[engineName]) / float64(of.took[baselineName]) }
	took := func(of revocation, name string) string { return figures.Seconds(of.took[name]) }
	s.atMost(fmt.Sprintf("revocation of %d leases, queued", r.queued.leases),
		took(r.queued, baselineName), took(r.queued, engineName), ratio(r.queued), revocationTarget, "")
	s.count("… regenerations", r.queued.posts, postsTarget)
	s.plain("… in one request for each turn", took(r.sync, baselineName), took(r.sync, engineName), fmt.Sprintf("%.2f", ratio(r.sync)))
	s.count("… regenerations", r.sync.posts, postsTarget)
}

func (r *result) freshTargets(s *sheet) {
	s.plain("read by one client, median", figures.Milliseconds(r.reference.median()), none, none)
	for _, one := range []struct {
		reading reading
		graph   time.Duration
	}{{r.prompt, 0}, {r.slow, slowGraph}} {
		s.atMost(fmt.Sprintf("… regenerating, Graph takes %.0f ms", milliseconds(one.graph)), none, figures.Milliseconds(one.reading.median()),
			milliseconds(one.reading.median()-one.graph), milliseconds(freshTarget), " ms")
	}
}

func (r *result) footprintTargets(s *sheet) {
	base, engine := r.footprints[baselineName], r.footprints[engineName]
	ratio := func(of, to int) float64 { return float64(of) / float64(to) }
	s.atMost("memory with one mount", figures.Megabytes(float64(base.resident), 1), figures.Megabytes(float64(engine.resident), 1),
		ratio(engine.resident, base.resident), residentTarget, "")
	s.atMost(fmt.Sprintf("… each further mount of %d", r.options.mounts), figures.Megabytes(base.further, 2),
		figures.Megabytes(engine.further, 2), engine.further/1e6, furtherTarget/1e6, " MB")
	s.atMost("stripped binary", figures.Megabytes(float64(base.binary), 1), figures.Megabytes(float64(engine.binary), 1),
		ratio(engine.binary, base.binary), binaryTarget, "")
	s.plain("start-up to first read", figures.Milliseconds(base.startup), figures.Milliseconds(engine.startup),
		fmt.Sprintf("%.2f", float64(engine.startup)/float64(base.startup)))
}

// comparison has everything that was measured of each engine.
func (r *result) comparison() *figures.Table {
	t := &figures.Table{}
	t.Row("", "reads/s", "median", "99th percentile", "revoked/s", "memory", "further mount", "binary", "start-up")
	row := func(name string, reading reading, revoked revocation) {
		f := r.footprints[name]
		t.Row(name, fmt.Sprintf("%.0f", reading.rate()), figures.Milliseconds(reading.median()), figures.Milliseconds(reading.p99()),
			fmt.Sprintf("%.0f", revoked.rate(name)), figures.Megabytes(float64(f.resident), 1), figures.Megabytes(f.further, 2),
			figures.Megabytes(float64(f.binary), 1), figures.Milliseconds(f.startup))
	}
	row(baselineName, r.readings[baselineName], r.sync)
	row(engineName, r.readings[engineName], r.sync)
	t.Row("… regenerating", fmt.Sprintf("%.0f", r.fresh.rate()), figures.Milliseconds(r.fresh.median()),
		figures.Milliseconds(r.fresh.p99()), none, none, none, none, none)
	for _, peer := range r.peers {
		row(peer, r.readings[peer], r.peersRevoked)
	}
	return t
}

func perSecond(rate float64) string { return fmt.Sprintf("%.0f/s", rate) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
