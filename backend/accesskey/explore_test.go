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

// broken is a violation of an invariant, and a shortest way to it.
type broken struct {
	invariant string
	steps     []string
}

// visit is a world that was reached: by which of the steps from which other one.
type visit struct {
	world world
	from  int32
	step  int32
}

// search is a walk through all worlds that can be reached, nearest first.
type search struct {
	*explorer

	seed   maphash.Seed
	seen   map[uint64]bool
	visits []visit
	found  *broken
}

// explore visits every world that can be reached. It ends at the first violation, or when
// it has seen all or limit.
func explore(x *explorer, f faults, limit int) (states int, found *broken) {
	s := &search{explorer: x, seed: maphash.MakeSeed(), seen: map[uint64]bool{}}
	for _, w := range x.start(f) {
		x.tidy(&w)
		s.reach(visit{w, -1, 0})
	}
	for at := 0; at < len(s.visits) && len(s.visits) <= limit && s.found == nil; at++ {
		s.leave(int32(at))
	}
	return len(s.visits), s.found
}

// reach notes a world, unless it has been reached before.
func (s *search) reach(v visit) {
	id := maphash.Comparable(s.seed, v.world)
	if !s.seen[id] {
		s.seen[id] = true
		s.visits = append(s.visits, v)
	}
}

// leave takes each step from a world that was reached.
func (s *search) leave(at int32) {
	step := int32(0)
	s.next(s.visits[at].world, func(_ string, to world, problem string) {
		switch {
		case s.found != nil:
		case problem == "":
			s.reach(visit{to, at, step})
		default:
			name, _, _ := strings.Cut(problem, ":")
			s.found = &broken{name, append(s.story(visit{to, at, step}), "=> "+problem)}
		}
		step++
	})
}

// story tells how a world is reached, in words. Keys have the number that they have in
// the world before the step: K0 is the tenant's.
func (s *search) story(v visit) (steps []string) {
	for ; v.from >= 0; v = s.visits[v.from] {
		steps = append(steps, fmt.Sprintf("%-60s %s", s.words(v), s.text(&v.world)))
	}
	steps = append(steps, "start: "+s.text(&v.world))
	slices.Reverse(steps)
	return steps
}

// words says what the last step to a world was, by taking all steps from the one before.
func (s *search) words(v visit) (what string) {
	step := int32(0)
	s.next(s.visits[v.from].world, func(name string, _ world, _ string) {
		if step == v.step {
			what = strings.ReplaceAll(name, "#", "K")
		}
		step++
	})
	return what
}

// scenario is what is explored: which faults, how many keys Graph and the engine can name
// at once, and how many states there are at most.
type scenario struct {
	faults
	keys  uint8
	limit int
}

func (s scenario) String() string { return fmt.Sprintf("%s, %d keys", s.faults, s.keys) }

// small is explored even with the race detector, which makes it ten times slower, and with
// -short.
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
	case testing.Short(), withRaceDetector():
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
