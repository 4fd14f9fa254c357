// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutation is a rule that is wrong, and faults that show it.
type mutation struct {
	name      string
	change    func(*explorer)
	faults    faults
	invariant string // that finds it
	isLong    bool   // too long for -short and the race detector
}

// TestExploreFindsEachWrongRule shows that the exploration can fail.
func TestExploreFindsEachWrongRule(t *testing.T) {
	for _, m := range mutations {
		if m.isLong && (testing.Short() || withRaceDetector()) {
			continue // it is found otherwise
		}
		t.Run(m.name, func(t *testing.T) {
			x := newExplorer(realRules(), 3)
			m.change(x)
			states, found := explore(x, m.faults, 1_000_000)
			if found == nil {
				t.Fatalf("not found in %d states, with %s", states, m.faults)
			}
			t.Logf("%s, with %s, after %d states", found.invariant, m.faults, states)
			if found.invariant != m.invariant {
				t.Errorf("%s was to find it:\n%s", m.invariant, strings.Join(found.steps, "\n"))
			}
		})
	}
}

var mutations = []mutation{
	{"a kill ends the watch", func(x *explorer) {
		x.found = func(r Record, now time.Time) Record { r = r.found(now); r.Watch = watch{}; return r }
	}, faults{lost: 1, kills: 1}, "I2 late", false},
	{"no intent is stored", func(x *explorer) {
		x.found = func(r Record, now time.Time) Record {
			if r.Intent.UnderWay {
				r.Intent = intent{}
			}
			return r.found(now)
		}
	}, faults{kills: 1}, "I2 late", false},
	{"a refusal acquits an older POST", func(x *explorer) {
		x.refused = func(r Record) Record { r.Intent = intent{}; return r }
	}, faults{lost: 1, outages: 1, refused: 1}, "I2 named", false},
	{"an answer ends the watch", func(x *explorer) {
		x.onAnswer(func(r, _ Record) Record { r.Watch = watch{}; return r })
	}, faults{lost: 1}, "I2 late", false},
	{"an old answer proves that the POST was not carried out", func(x *explorer) {
		x.onAnswer(func(r, before Record) Record {
			if r.Intent.Doubt {
				return before.refused()
			}
			return r
		})
	}, faults{old: 1}, "I2 late", false},
	{"an answer supersedes nothing", func(x *explorer) {
		x.onAnswer(func(r, before Record) Record { r.Superseded = before.Superseded; return r })
	}, faults{}, "I2 known", false},
	{"rotate-key is satisfied by an older POST", func(x *explorer) {
		x.onAnswer(func(r, _ Record) Record { r.WantedSince = time.Time{}; return r })
	}, faults{rotates: 1}, "I7 break-glass", false},
	{"rotate-key is satisfied by a comparison", func(x *explorer) {
		x.onComparison(func(r, _ Record, _ string) Record { r.WantedSince = time.Time{}; return r })
	}, faults{rotates: 1}, "I7 break-glass", false},
	{"the end of a doubt begins no watch", func(x *explorer) {
		x.onComparison(func(r, before Record, _ string) Record {
			if before.Intent.Doubt && !before.Intent.UnderWay {
				r.Watch = watch{}
			}
			return r
		})
	}, faults{lost: 1}, "I2 late", false},
	{"the end of a doubt beside a POST begins no watch", func(x *explorer) {
		x.onComparison(func(r, before Record, _ string) Record {
			if before.Intent.Doubt && before.Intent.UnderWay {
				r.Watch = watch{}
			}
			return r
		})
	}, faults{lost: 1, outages: 1, refused: 1}, "I2 late", false},
	{"an adoption begins no watch", func(x *explorer) {
		x.onComparison(func(r, before Record, found string) Record {
			if found == CauseExternal || found == Returned {
				r.Watch = before.Watch
			}
			return r
		})
	}, faults{}, "I2 dead", false},
	{"a displaced key is superseded", func(x *explorer) {
		x.onComparison(func(r, before Record, _ string) Record {
			if r.Version != before.Version && before.Key != "" {
				r.Superseded = append(slices.Clone(r.Superseded), r.mac(before.Key))
				r.Displaced = nil
			}
			return r
		})
	}, faults{}, "I2 fresh", false},
	{"a displaced version is forgotten", func(x *explorer) {
		x.onComparison(func(r, _ Record, _ string) Record { r.Displaced = nil; return r })
	}, faults{}, "I6 own key called external", false},
	{"a watch ends by time", func(x *explorer) {
		x.decide = func(r Record, t Terms, p Policy, a asked, now time.Time) decision {
			if r.Watch.On() && !now.Before(r.Watch.Until) {
				r.Watch = watch{}
			}
			return decided(r, t, p, a, now)
		}
	}, faults{lost: 1, outages: 1}, "I2 dead", false},
	{"each lost POST begins the thirty seconds anew", func(x *explorer) {
		x.begin = func(r Record, now time.Time) Record { r = r.begin(now); r.Intent.StartedAt = now; return r }
	}, faults{lost: 2, outages: 1}, "I3 blind", false},
	{"an adopted key is given to who wants a new one", func(x *explorer) {
		x.onDecision(func(d decision, r Record, t Terms) decision {
			if t.MaxAge == 0 && r.adopted() && !r.Disclosed && !r.Intent.Pending() {
				d.first = nil
			}
			return d
		})
	}, faults{lost: 1}, "I8 new", false},
	{"a disclosed key is given to who wants a new one", func(x *explorer) {
		x.onDecision(func(d decision, r Record, t Terms) decision {
			if t.MaxAge == 0 && r.Disclosed && !r.adopted() && !r.Intent.Pending() {
				d.first = nil
			}
			return d
		})
	}, faults{}, "I8 new", false},
	{"who wants a new key gets a full lease on watch", func(x *explorer) {
		x.onDecision(func(d decision, _ Record, t Terms) decision { d.short = d.short && t.Fresh == 0; return d })
	}, faults{lost: 1}, "I2 late", false},
	{"the record's key is shared in doubt", func(x *explorer) {
		x.onDecision(func(d decision, r Record, _ Terms) decision {
			if errors.Is(d.first, ErrInDoubt) && r.Key != "" {
				return decision{short: true, unconfirmed: true}
			}
			return d
		})
	}, faults{lost: 1, outages: 1}, "I2 named", false},
	{"on watch nothing is shared without GET", func(x *explorer) {
		x.onDecision(func(d decision, r Record, _ Terms) decision {
			if r.Watch.On() && d.unconfirmed {
				return decision{first: ErrInDoubt}
			}
			return d
		})
	}, faults{lost: 1, outages: 1}, "I3 blind", false},
	{"who shares waits for the POST of another", func(x *explorer) {
		x.onDecision(func(d decision, r Record, t Terms) decision {
			if r.Intent.UnderWay && t.Waited {
				return decision{first: ErrInDoubt}
			}
			return d
		})
	}, faults{}, "I3 nobody pays", false},
	{"beside a POST a lease is a full one", func(x *explorer) {
		x.onDecision(func(d decision, r Record, _ Terms) decision { d.short = d.short && !r.Intent.UnderWay; return d })
	}, faults{}, "I2 late", false},
	{"no key is retired", func(x *explorer) {
		x.onWork(func(r *Record, s *situation) { r.Disclosed, s.turning = false, false })
	}, faults{}, "I1 covered", false},
	{"a key is retired while it is leased", func(x *explorer) {
		x.onWork(func(_ *Record, s *situation) { s.leased = nil })
	}, faults{}, "I1 kept", false},
	{"displaced versions do not count when turning away", func(x *explorer) {
		x.onWork(func(r *Record, s *situation) {
			if s.turning {
				r.Displaced = nil
			}
		})
	}, faults{deletes: 1}, "I1 covered", false},
	{"displaced versions do not count without GET", func(x *explorer) {
		x.onWork(func(r *Record, _ *situation) { r.Displaced = nil })
	}, faults{outages: 1}, "I1 covered", true},
	{"the engine never compares", func(x *explorer) {
		x.due = func(r Record, s situation) []string {
			return slices.DeleteFunc(due(r, s), func(work string) bool { return work == WorkCompare })
		}
	}, faults{lost: 1}, "I5 settle", true},
	{"a retirement makes a total outage worse", func(x *explorer) { x.blindInDark = true }, faults{darks: 1}, "I3 outage", false},
}

func (x *explorer) onAnswer(change func(after, before Record) Record) {
	x.answered = func(r Record, key, cause string, now time.Time) Record {
		return change(r.answered(key, cause, now), r)
	}
}

func (x *explorer) onComparison(change func(after, before Record, found string) Record) {
	x.compared = func(r Record, key string, now time.Time) (Record, string) {
		after, found := r.compared(key, now)
		return change(after, r, found), found
	}
}

func (x *explorer) onDecision(change func(d decision, r Record, t Terms) decision) {
	x.decide = func(r Record, t Terms, p Policy, a asked, now time.Time) decision {
		return change(decided(r, t, p, a, now), r, t)
	}
}

func (x *explorer) onWork(change func(*Record, *situation)) {
	x.due = func(r Record, s situation) []string {
		change(&r, &s)
		return due(r, s)
	}
}
