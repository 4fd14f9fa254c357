// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
)

// report is the outcome of a run.
type report struct {
	records     []*record
	posts       int       // regenerations of the key during the run
	rotatedAt   time.Time // zero: the key was not rotated
	irrevocable int
	disabled    *disabled // nil: the mount was not disabled
}

// totals are sums over the records.
type totals struct {
	reads, failedReads  int
	registered, refused int
	equipped            int // members whose first key registered a sensor
	latencies           []time.Duration
	problem             error // of one of the members that gave up
	gaveUp              int
}

func (r *report) totals() totals {
	var t totals
	for _, m := range r.records {
		t.reads += m.reads
		t.failedReads += m.failedReads
		t.latencies = append(t.latencies, m.latencies...)
		for _, a := range m.acquired {
			if a.registered {
				t.registered++
			} else {
				t.refused++
			}
		}
		if len(m.acquired) > 0 && m.acquired[0].registered {
			t.equipped++
		}
		if m.problem != nil {
			t.problem = m.problem
			t.gaveUp++
		}
	}
	return t
}

// newest returns the working key that a member acquired last.
func (r *report) newest() acquisition {
	var newest acquisition
	for _, m := range r.records {
		for _, a := range m.acquired {
			if a.registered && a.at.After(newest.at) {
				newest = a
			}
		}
	}
	return newest
}

// lags returns how long after the rotation each member got the new key, and how many did
// not get it. A member can have it before the answer to the rotation arrives; that is no
// lag.
func (r *report) lags() (lags []time.Duration, behind int) {
	key := r.newest().key
	for _, m := range r.records {
		held, ok := m.last()
		if !ok || held.key != key {
			behind++
			continue
		}
		lags = append(lags, max(0, held.at.Sub(r.rotatedAt)))
	}
	return lags, behind
}

// expectedPosts is the greatest number of regenerations that is in order.
func (r *report) expectedPosts() int {
	if r.rotatedAt.IsZero() {
		return 1
	}
	return 2
}

func (r *report) table(o options) *figures.Table {
	sum := r.totals()
	t := &figures.Table{}
	if o.agents > 0 {
		t.Row("Vault Agents", o.agents, fmt.Sprintf("started within %v", o.window))
	} else {
		t.Row("hosts", o.hosts, fmt.Sprintf("started within %v", o.window))
		t.Row("reads", sum.reads, fmt.Sprintf("%d failed", sum.failedReads))
		for _, p := range []float64{50, 90, 99, 100} {
			t.Row(fmt.Sprintf("read latency, p%.0f", p), figures.Milliseconds(figures.Percentile(sum.latencies, p)))
		}
	}
	t.Row("first key registered a sensor", fmt.Sprintf("%d of %d", sum.equipped, len(r.records)))
	t.Row("registrations", sum.registered, fmt.Sprintf("%d refused", sum.refused))
	t.Row("POSTs to Graph", r.posts, fmt.Sprintf("at most %d expected", r.expectedPosts()))
	t.Row("irrevocable leases", r.irrevocable)
	if !r.rotatedAt.IsZero() {
		lags, behind := r.lags()
		t.Row("new key after the rotation, p50", figures.Seconds(figures.Median(lags)))
		t.Row("new key after the rotation, last", figures.Seconds(figures.Percentile(lags, 100)),
			fmt.Sprintf("0.95 × ttl is %s, %d left behind", figures.Seconds(o.bound()), behind))
	}
	if r.disabled != nil {
		r.disabled.rows(t, o.thenDisable)
	}
	return t
}

func (d *disabled) rows(t *figures.Table, state outage) {
	t.Row("mount disabled, Graph "+string(state), figures.Seconds(d.took), fmt.Sprintf("%d live leases", d.leases))
	key, log := "dead", "the log says nothing of it"
	if d.works {
		key = "works"
	}
	if d.logged {
		log = "the log says that it lives on"
	}
	t.Row("the key afterwards", key, log)
}

// problems are what is not as it should be.
type problems []string

// add adds a problem if there is one.
func (p *problems) add(found bool, format string, args ...any) {
	if found {
		*p = append(*p, fmt.Sprintf(format, args...))
	}
}

func (r *report) problems(o options) (found problems) {
	sum := r.totals()
	missing := len(r.records) - sum.equipped
	found.add(sum.gaveUp > 0, "%d gave up, one because: %v", sum.gaveUp, sum.problem)
	found.add(missing > 0, "%d did not register a sensor with their first key", missing)
	found.add(sum.refused > 0, "%d registrations were refused", sum.refused)
	found.add(r.posts > r.expectedPosts() && o.maxKeyAge == anyAge, "the key was regenerated %d times", r.posts)
	found.add(r.irrevocable > 0, "%d leases are irrevocable", r.irrevocable)
	if !r.rotatedAt.IsZero() {
		lags, behind := r.lags()
		last := figures.Percentile(lags, 100)
		found.add(behind > 0, "%d do not hold the new key", behind)
		found.add(last > o.bound(), "the last got the new key %v after the rotation, later than 0.95 × ttl", last)
	}
	if r.disabled != nil {
		found = append(found, r.disabled.problems(o.thenDisable)...)
	}
	return found
}
