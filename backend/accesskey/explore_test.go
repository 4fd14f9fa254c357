// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"fmt"
	"hash/maphash"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// broken is a violation of an invariant, and the shortest way to it.
type broken struct {
	invariant string
	steps     []string
}

// explore visits every world that can be reached, nearest first. It ends at the first
// violation, or when it has seen all or limit.
func explore(x *explorer, f faults, limit int) (states int, found *broken) {
	type node struct {
		world  world
		parent int32
	}
	seed := maphash.MakeSeed()
	seen := map[uint64]struct{}{}
	var nodes []node
	add := func(w world, parent int32) {
		h := maphash.Comparable(seed, w)
		if _, old := seen[h]; !old {
			seen[h] = struct{}{}
			nodes = append(nodes, node{w, parent})
		}
	}
	for _, w := range x.start(f) {
		x.tidy(&w)
		add(w, -1)
	}
	for i := 0; i < len(nodes) && len(nodes) <= limit && found == nil; i++ {
		from := int32(i)
		x.next(nodes[i].world, func(what string, to world, problem string, _ [keyCount]uint8) {
			if problem == "" {
				add(to, from)
				return
			}
			if found != nil {
				return
			}
			path := []world{to}
			for j := from; j >= 0; j = nodes[j].parent {
				path = append(path, nodes[j].world)
			}
			slices.Reverse(path)
			name, _, _ := strings.Cut(problem, ":")
			found = &broken{name, append(x.retell(path, what), "=> "+problem)}
		})
	}
	return len(nodes), found
}

// retell names the steps of a path, by taking them again; the last is given. Keys are
// called K0, K1, ... in the order in which they are made.
func (x *explorer) retell(path []world, last string) (steps []string) {
	var name [keyCount]int
	made, ticks := 0, 0
	steps = []string{"start: " + x.text(&path[0], name)}
	for n := range len(path) - 1 {
		from, done := path[n], false
		x.next(from, func(what string, to world, _ string, order [keyCount]uint8) {
			if done || to != path[n+1] || n == len(path)-2 && what != last {
				return
			}
			done = true
			before := name
			for now, was := range order {
				switch {
				case x.used(&from).has(was):
					name[now] = before[was]
				case x.used(&to).has(uint8(now)):
					made++
					name[now] = made
				}
			}
			for k := range uint8(keyCount) {
				what = strings.Replace(what, fmt.Sprintf("#%d", k), fmt.Sprintf("K%d", before[k]), 1)
			}
			if ticks++; what != "a tick passes" {
				ticks = 0
			} else if ticks > 1 {
				what, steps = fmt.Sprintf("%d ticks pass", ticks), steps[:len(steps)-1]
			}
			steps = append(steps, fmt.Sprintf("%-60s %s", what, x.text(&to, name)))
		})
	}
	return steps
}

// scenario is what is explored: which faults, how many keys Graph and the engine can name
// at once, and how many states there are at most.
type scenario struct {
	faults
	keys  uint8
	limit int
}

func (s scenario) String() string { return fmt.Sprintf("%s, %d keys", s.faults, s.keys) }

// small is explored even with the race detector, which makes it ten times slower.
var small = []scenario{
	{faults{}, 3, 100_000},
	{faults{deletes: 1}, 3, 100_000},
	{faults{lost: 1}, 3, 250_000},
}

// usual takes seconds, and all of them together minutes.
var usual = []scenario{
	{faults{}, 4, 200_000},
	{faults{old: 1}, 3, 200_000},
	{faults{rotates: 1}, 3, 200_000},
	{faults{portals: 1}, 3, 200_000},
	{faults{darks: 1}, 3, 400_000},
	{faults{lost: 1, refused: 1}, 3, 400_000},
	{faults{kills: 1, writes: 1}, 3, 600_000},
}

// large takes minutes.
var large = []scenario{
	{faults{lost: 1}, 5, 20_000_000},
	{faults{rotates: 1}, 5, 20_000_000},
	{faults{portals: 1}, 5, 20_000_000},
	{faults{portals: 2}, 4, 20_000_000},
	{faults{lost: 1, refused: 1}, 4, 20_000_000},
	{faults{lost: 1, kills: 1}, 4, 20_000_000},
	{faults{lost: 1, outages: 1}, 4, 20_000_000},
	{faults{lost: 1, portals: 1}, 4, 20_000_000},
	{faults{lost: 1, old: 1}, 4, 20_000_000},
	{faults{lost: 2, outages: 1}, 3, 20_000_000},
	{faults{lost: 1, darks: 1}, 3, 20_000_000},
	{faults{lost: 1, kills: 1, writes: 1}, 3, 20_000_000},
	{faults{lost: 1, outages: 1, refused: 1}, 3, 20_000_000},
	{faults{lost: 1, outages: 1, rotates: 1}, 3, 20_000_000},
	{faults{lost: 1, deletes: 1, creates: 1}, 3, 20_000_000},
	{faults{lost: 1, outages: 1, deletes: 1, creates: 1}, 3, 20_000_000},
}

// listed is what is explored: MDI_EXPLORE=all adds what takes minutes.
func listed() []scenario {
	switch {
	case os.Getenv("MDI_EXPLORE") == "all":
		return slices.Concat(small, usual, large)
	case withRaceDetector():
		return small
	default:
		return slices.Concat(small, usual)
	}
}

func withRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestExploreTheWorld visits every state that the rules can reach in a world of faults,
// and holds each against the invariants.
func TestExploreTheWorld(t *testing.T) {
	for _, s := range listed() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			x := newExplorer(realRules(), s.keys)
			states, found := explore(x, s.faults, s.limit)
			t.Logf("%d states, %d memories, complete %v, %.1f s", states, len(x.all), states <= s.limit, time.Since(begun).Seconds())
			switch {
			case found != nil:
				t.Errorf("%s is broken:\n%s", found.invariant, strings.Join(found.steps, "\n"))
			case states > s.limit:
				t.Errorf("not complete: more than %d states", s.limit)
			}
		})
	}
}
