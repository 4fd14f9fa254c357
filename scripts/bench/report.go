// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
)

// The targets of the engine: ratios to the baseline of the same run. The verdicts are
// printed, but no test depends on them.
const (
	readsTarget    = 0.94 // at least, of the reads a second
	queuedTarget   = 1.05 // at most, of the time
	syncTarget     = 0.90 // at least, of the revocations a second
	syncFloor      = 0.55 // the same, as far as a third durable write lets it come
	freshTarget    = 2.5  // at most, of the time
	slowTarget     = 3.0  // the same, without Graph's own time
	residentTarget = 1.10 // at most, of the memory
	furtherTarget  = 1.5  // the same, of a further mount
	startupTarget  = 1.15 // at most, of the time

	// With the most leases, compared with the fewest.
	grownReadTarget   = 1.1
	grownStatusTarget = 2.0
)

// text is the report, in Markdown that is also readable on a terminal.
func (r *result) text() string {
	var out strings.Builder
	s := r.setting
	fmt.Fprintf(&out, "`%s` on %s, in %v:\n%d CPUs, %s, %s, Vault %s with raft storage, engine %s,\nbaseline `%s`.\n\n",
		r.options.line, s.date.UTC().Format(time.DateOnly), s.took.Round(time.Second),
		s.cpus, s.platform, s.goVersion, s.vaultVersion, s.engineVersion, s.baseline)
	out.WriteString(r.targets().Markdown())
	out.WriteString("\n")
	out.WriteString(r.comparison().Markdown())
	if len(r.stages) > 0 {
		out.WriteString("\n")
		out.WriteString(r.curve().Markdown())
	}
	fmt.Fprintf(&out, "\nRegenerations of the key: %d by the reads of a shared key, %d and %d by the end of all leases,\n"+
		"%d by the %d regenerating reads of %d clients. Leases that Vault has given up: %d.\n",
		r.shared.posts, r.queued.posts, r.sync.posts, r.fresh.posts, len(r.fresh.latencies), r.options.readers, r.irrevocable)
	return out.String()
}

// target is a limit of the engine's ratio to the baseline.
type target struct {
	limit   float64
	atLeast bool
	floor   float64 // not 0: what cannot be helped, short of the limit
}

func (t target) String() string {
	if t.atLeast {
		return fmt.Sprintf("≥ %.2f", t.limit)
	}
	return fmt.Sprintf("≤ %.2f", t.limit)
}

// verdict compares the ratio, as it is printed, with the target.
func (t target) verdict(ratio float64) string {
	switch {
	case t.atLeast && ratio >= t.limit-0.005, !t.atLeast && ratio < t.limit+0.005:
		return "met"
	case t.floor > 0 && ratio >= t.floor:
		return "floor"
	default:
		return "**missed**"
	}
}

// none is an empty cell.
const none = "–"

// format formats a figure.
type format func(float64) string

func perSecond(rate float64) string { return fmt.Sprintf("%.0f/s", rate) }

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }

func inMilliseconds(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func megabytes(decimals int) format {
	return func(bytes float64) string { return figures.Megabytes(bytes, decimals) }
}

// spread formats a ratio.
func spread(s figures.Summary) string { return fmt.Sprintf("%.2f ± %s", s.Median, s.Spread()) }

// with formats a figure that has a unit.
func (f format) with(s figures.Summary) string {
	if s == (figures.Summary{}) {
		return none
	}
	return f(s.Median) + " ± " + s.Spread()
}

// sheet is a table of targets and verdicts, with two more columns for another revision.
type sheet struct {
	figures.Table
	compared string
}

// compare adds a row for figures of which each engine has some.
func (s *sheet) compare(what string, of series, f format, t target) {
	ratio := of.ratio(engineName, baselineName)
	s.row([]any{what, f(of.summary(baselineName).Median), f(of.summary(engineName).Median), spread(ratio), t, t.verdict(ratio.Median)},
		f(of.summary(s.compared).Median), spread(of.ratio(engineName, s.compared)))
}

// row adds a row, with what belongs into the other revision's columns if it has them.
func (s *sheet) row(cells []any, other ...any) {
	if s.compared != "" {
		cells = append(cells, other...)
	}
	s.Row(cells...)
}

// targets compares the engine with the baseline.
func (r *result) targets() *sheet {
	s := &sheet{compared: r.compared}
	s.row([]any{"", "baseline", "engine", "ratio", "target", "verdict"}, r.compared, "engine / "+r.compared)
	o := r.options
	s.compare(fmt.Sprintf("reads of a shared key, %d clients", o.readers), r.shared.rates, perSecond, target{limit: readsTarget, atLeast: true})
	s.compare(fmt.Sprintf("%d revocations, queued, one of %d rounds", o.leases, o.rounds), r.queued.took, seconds, target{limit: queuedTarget})
	s.compare("revocations in one request", r.sync.rates, perSecond, target{limit: syncTarget, atLeast: true, floor: syncFloor})
	if peer := r.fastestPeer(); peer != "" {
		ratio := r.sync.rates.ratio(engineName, peer)
		ahead := target{limit: 1, atLeast: true}
		s.row([]any{
			"… beside " + peer, perSecond(r.sync.rates.summary(peer).Median), perSecond(r.sync.rates.summary(engineName).Median),
			spread(ratio), ahead, ahead.verdict(ratio.Median),
		}, none, none)
	}
	s.compare("regenerating read, Graph at 0 ms, one client", r.prompt, inMilliseconds, target{limit: freshTarget})
	s.compare(fmt.Sprintf("… at %.0f ms, which are subtracted", milliseconds(slowGraph)), r.slow, inMilliseconds, target{limit: slowTarget})
	s.compare("memory with one mount", r.footprints.resident, megabytes(1), target{limit: residentTarget})
	s.compare(fmt.Sprintf("… each further mount of %d", o.mounts), r.footprints.further, megabytes(2), target{limit: furtherTarget})
	s.compare("start-up to first read", r.footprints.startup, inMilliseconds, target{limit: startupTarget})
	r.curveTargets(s)
	return s
}

// fastestPeer is the peer that revokes the most leases a second, if any is measured.
func (r *result) fastestPeer() string {
	if len(r.peers) == 0 {
		return ""
	}
	return slices.MaxFunc(r.peers, func(a, b string) int {
		return cmp.Compare(r.sync.rates.summary(a).Median, r.sync.rates.summary(b).Median)
	})
}

// names are those of all engines.
func (r *result) names() []string {
	names := []string{baselineName, engineName}
	if r.compared != "" {
		names = append(names, r.compared)
	}
	return append(names, r.peers...)
}

// comparison has everything that was measured of each engine.
func (r *result) comparison() *figures.Table {
	t := &figures.Table{}
	t.Row("", "reads/s", "median", "99th percentile", "revoked/s", "memory", "further mount", "binary", "start-up")
	plain := format(func(n float64) string { return fmt.Sprintf("%.0f", n) })
	for _, name := range r.names() {
		latencies := r.shared.latencies[name]
		t.Row(name, plain.with(r.shared.rates.summary(name)), figures.Milliseconds(figures.Median(latencies)),
			figures.Milliseconds(figures.Percentile(latencies, 99)), plain.with(r.sync.rates.summary(name)),
			megabytes(1).with(r.footprints.resident.summary(name)), megabytes(2).with(r.footprints.further.summary(name)),
			figures.Megabytes(float64(r.footprints.binary[name]), 1), format(inMilliseconds).with(r.footprints.startup.summary(name)))
		if name == engineName {
			t.Row("… regenerating", plain(r.fresh.rate()), figures.Milliseconds(figures.Median(r.fresh.latencies)),
				figures.Milliseconds(figures.Percentile(r.fresh.latencies, 99)), none, none, none, none, none)
		}
	}
	return t
}
