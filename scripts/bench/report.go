// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"vault-plugin-secrets-mdi/scripts/internal/figures"
)

// What the engine aims at, in comparison with the baseline.
const (
	readsTarget      = 0.6 // at least
	revocationTarget = 2.0 // at most
	postsTarget      = 1   // at most, for each revocation of all leases
)

// result is all that was measured.
type result struct {
	revocations []revocation
	readings    []reading
	irrevocable int
}

// print writes the tables. The ratios are printed and no test fails because of
// them: they depend on the machine.
func (r *result) print(w io.Writer, o options) error {
	_, err := fmt.Fprintf(w, "\nReads of a shared key: %d clients, %d s for each engine in %d turns, raft storage\n\n",
		o.clients, o.seconds, o.rounds)
	if err != nil {
		return err
	}
	if err := r.readsTable().Print(w); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\nRevocation of %d leases of one key by prefix in %d turns, until the last one is gone\n\n", o.leases, o.rounds); err != nil {
		return err
	}
	if err := r.revocationTable().Print(w); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nIrrevocable leases: %d, target 0\n", r.irrevocable)
	return err
}

func (r *result) readsTable() *figures.Table {
	t := &figures.Table{}
	t.Row("", "reads", "reads/s", "p50", "p99", "per turn, reads/s")
	base, engine := summarise(r.readings, "baseline"), summarise(r.readings, "engine")
	for _, s := range []summary{base, engine} {
		t.Row(s.who, s.reads, fmt.Sprintf("%.0f", s.rate()),
			figures.Milliseconds(figures.Median(s.latencies)), figures.Milliseconds(figures.Percentile(s.latencies, 99)), strings.Join(s.turns, " "))
	}
	t.Row("ratio", "", fmt.Sprintf("%.2f", engine.rate()/base.rate()), "", "", fmt.Sprintf("target: at least %.1f", readsTarget))
	t.Row("POSTs", engine.posts, "", "", "", "target: 0")
	return t
}

func (r *result) revocationTable() *figures.Table {
	t := &figures.Table{}
	t.Row("", "baseline", "engine", "ratio", "target", "POSTs", "target")
	for _, one := range r.revocations {
		way := "queued"
		if one.sync {
			way = "sync"
		}
		t.Row(way, figures.Seconds(one.baseline), figures.Seconds(one.engine),
			fmt.Sprintf("%.2f", float64(one.engine)/float64(one.baseline)), fmt.Sprintf("at most %.0f", revocationTarget),
			one.posts, fmt.Sprintf("at most %d", postsTarget))
	}
	return t
}

// summary is all turns of an engine taken together.
type summary struct {
	who       string
	reads     int64
	took      time.Duration
	latencies []time.Duration
	posts     int
	turns     []string // reads a second in each
}

func (s summary) rate() float64 { return float64(s.reads) / s.took.Seconds() }

func summarise(readings []reading, who string) summary {
	s := summary{who: who}
	for _, r := range readings {
		if r.who != who {
			continue
		}
		s.reads += r.reads
		s.took += r.took
		s.latencies = append(s.latencies, r.latencies...)
		s.posts += r.posts
		s.turns = append(s.turns, fmt.Sprintf("%.0f", r.rate()))
	}
	return s
}
