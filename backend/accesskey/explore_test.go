// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// step is one transition of the walk, and what is allowed of it.
type step struct {
	name        string
	next        Record
	undecided   bool // a comparison with a key that decides nothing, although it is late enough
	rash        bool // one that calls a regeneration not carried out, although it still may be
	undelivered bool
	turnedAway  bool
}

// TestExploreEveryRecordThatEventsReach walks through all records that sequences of events
// make of the first one, in a world of three keys, two workspaces and four times, of which
// each event may happen at any: clocks differ. Version and the times of the last
// regeneration and comparison do not influence a transition, so that records which differ
// only in them are explored once, and the walk ends.
func TestExploreEveryRecordThatEventsReach(t *testing.T) {
	keys := []string{"a", "b", "c"}
	times := []time.Time{noon.Add(-time.Hour), noon, noon.Add(postLife - 1), noon.Add(postLife)}
	seen := map[string]bool{}
	for queue := []Record{newRecord()}; len(queue) > 0; queue = queue[1:] {
		from := queue[0]
		for _, now := range times {
			for _, s := range stepsFrom(from, keys, now) {
				if problem := violated(from, s, now); problem != "" {
					t.Fatalf("%s at %v: %s\nfrom %+v\nto %+v", s.name, now, problem, from, s.next)
				}
				if id := identity(s.next); !seen[id] {
					seen[id] = true
					queue = append(queue, s.next)
				}
			}
		}
	}
	require.Greater(t, len(seen), 1000, "the walk has hardly begun")
	t.Logf("%d records", len(seen))
}

// stepsFrom returns what can happen to a record at a time.
func stepsFrom(r Record, keys []string, now time.Time) []step {
	steps := []step{
		{name: "begin", next: r.begin(nil, now)},
		{name: "lost", next: r.lost(now)},
		{name: "disclosed", next: r.disclosed()},
		{name: "undelivered", next: r.undelivered(), undelivered: true},
		{name: "turned away", next: r.turnedAway(abroad), turnedAway: r.Workspace != abroad},
		{name: "at home", next: r.turnedAway(home), turnedAway: r.Workspace != home},
	}
	if r.Intent != nil {
		steps = append(steps, step{name: "refused", next: r.refused()})
	}
	for _, key := range append([]string{""}, keys...) {
		next, found := r.compared(key, now)
		late := r.Intent == nil || !now.Before(r.Intent.Deadline)
		steps = append(steps, step{
			name: "compared with " + key, next: next,
			undecided: found == undecided && late && key != "", rash: !late && (found == notCarried || found == external),
		})
	}
	for _, key := range keys {
		steps = append(steps, step{name: "begin after " + key, next: r.begin(r.mac(key), now)})
		if r.Intent != nil && !r.holds(r.current(), key) && !r.holds(r.Superseded, key) { // Graph makes no key twice
			steps = append(steps, step{name: "answered " + key, next: r.answered(key, CauseRead, now)})
		}
	}
	return steps
}

// violated returns the invariant that a step breaks, or "".
func violated(from Record, s step, now time.Time) string {
	next, rises := s.next, s.next.Version > from.Version
	switch {
	case next.Version < from.Version:
		return "the version falls"
	case s.undecided:
		return "a comparison is undecided for no reason"
	case s.rash:
		return "a comparison decides before the deadline"
	case s.turnedAway:
		if identity(next) != identity(Record{Version: from.Version, Workspace: next.Workspace, Salt: from.Salt}) {
			return "a record turned away keeps more than its version and salt"
		}
		return ""
	case rises != (next.Key != from.Key), next.Version > from.Version+1:
		return "the version and the key do not change together"
	case rises && from.holds(from.Superseded, next.Key):
		return "a superseded key is adopted"
	case rises && from.Key != "" && !next.holds(next.Superseded, from.Key):
		return "the replaced key is not remembered"
	case rises && (next.Disclosed || next.Intent != nil):
		return "a new key is disclosed or in doubt"
	case from.Disclosed && !next.Disclosed && !rises && !s.undelivered:
		return "the disclosure is lost"
	case len(next.Superseded) > supersededKept:
		return "too many superseded keys"
	case next.Intent == nil:
		return ""
	case next.usable(),
		decide(next, Terms{MaxAge: AnyAge, Fresh: 1, Unverified: true}, Policy{Workspace: home}, now) != regenerateFirst:
		return "a key in doubt may be handed out"
	}
	return ""
}

// identity tells records apart by all that influences what becomes of them.
func identity(r Record) string {
	id := fmt.Sprintf("%q %t %q %x", r.Key, r.Disclosed, r.Workspace.TenantID, r.Superseded)
	if r.Intent != nil {
		id += fmt.Sprintf(" %d %d %x", r.Intent.StartedAt.UnixNano(), r.Intent.Deadline.UnixNano(), r.Intent.Baseline)
	}
	return id
}
