// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
)

// report is what became of a fleet.
type report struct {
	journals    []*journal
	posts       int       // regenerations of the key meanwhile
	rotatedAt   time.Time // zero: the key was not rotated
	irrevocable int
	disabled    *disabled // nil: the mount was not disabled
}

// totals are sums over the journals.
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
	for _, j := range r.journals {
		t.reads += j.reads
		t.failedReads += j.failedReads
		t.latencies = append(t.latencies, j.latencies...)
		for _, a := range j.acquired {
			if a.registered {
				t.registered++
			} else {
				t.refused++
			}
		}
		if len(j.acquired) > 0 && j.acquired[0].registered {
			t.equipped++
		}
		if j.problem != nil {
			t.problem = j.problem
			t.gaveUp++
		}
	}
	return t
}

// newest returns the key that was acquired last of those that worked.
func (r *report) newest() acquisition {
	var newest acquisition
	for _, j := range r.journals {
		for _, a := range j.acquired {
			if a.registered && a.at.After(newest.at) {
				newest = a
			}
		}
	}
	return newest
}

// lags returns how long after the rotation each member came to hold the new key, and
// how many never did. A member can have it before the answer to the rotation arrives;
// that is no lag.
func (r *report) lags() (lags []time.Duration, behind int) {
	key := r.newest().key
	for _, j := range r.journals {
		held, ok := j.last()
		if !ok || held.key != key {
			behind++
			continue
		}
		lags = append(lags, max(0, held.at.Sub(r.rotatedAt)))
	}
	return lags, behind
}

// expectedPosts is how often the key may have been regenerated at most.
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
	t.Row("first key registered a sensor", fmt.Sprintf("%d of %d", sum.equipped, len(r.journals)))
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

// problems tells what should not be.
func (r *report) problems(o options) []string {
	sum := r.totals()
	var found []string
	if sum.gaveUp > 0 {
		found = append(found, fmt.Sprintf("%d gave up, one because: %v", sum.gaveUp, sum.problem))
	}
	if missing := len(r.journals) - sum.equipped; missing > 0 {
		found = append(found, fmt.Sprintf("%d did not register a sensor with their first key", missing))
	}
	if sum.refused > 0 {
		found = append(found, fmt.Sprintf("%d registrations were refused", sum.refused))
	}
	if r.posts > r.expectedPosts() && o.maxKeyAge == anyAge {
		found = append(found, fmt.Sprintf("the key was regenerated %d times", r.posts))
	}
	if r.irrevocable > 0 {
		found = append(found, fmt.Sprintf("%d leases are irrevocable", r.irrevocable))
	}
	if !r.rotatedAt.IsZero() {
		found = append(found, r.leftBehind(o)...)
	}
	if r.disabled != nil {
		found = append(found, r.disabled.problems(o.thenDisable)...)
	}
	return found
}

// leftBehind tells who did not have the new key in time.
func (r *report) leftBehind(o options) []string {
	var found []string
	lags, behind := r.lags()
	if behind > 0 {
		found = append(found, fmt.Sprintf("%d do not hold the new key", behind))
	}
	if last := figures.Percentile(lags, 100); last > o.bound() {
		found = append(found, fmt.Sprintf("the last got the new key %v after the rotation, later than 0.95 × ttl", last))
	}
	return found
}
