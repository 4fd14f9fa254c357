// SPDX-License-Identifier: MPL-2.0

package credential

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)

// world is the engine's state and Entra's, as the walk sees them.
type world struct {
	now   time.Time
	inUse Credential
	life  Life
	entra map[string]time.Time // what the app has: by id, and when it was added
	// named has what the operator has been told to remove by hand.
	named  map[string]bool
	faults int // crashes, lost answers and changed configurations that may still happen
	next   int // what is planned next
	path   string
}

const foreign = "the operator's"

func (w world) to(step string, change func(w *world)) world {
	w.entra, w.named = maps.Clone(w.entra), maps.Clone(w.named)
	w.path += "\n" + step
	change(&w)
	return w
}

func (w *world) apply(t *testing.T, e Event) {
	e.At = w.now
	var fits bool
	w.life, fits = w.life.Apply(e)
	require.True(t, fits, "%s does not fit%s", e.Kind, w.path)
}

// add has Entra add a credential. A secret is known by its name until it has an id.
func (w *world) add(of Made) (id string) {
	id = of.Name + of.Thumbprint + "#"
	w.entra[id] = w.now
	return id
}

// found returns the ids of what was planned and is there.
func (w world) found(of Made) (ids []string) {
	for id := range w.entra {
		if name, _, _ := strings.Cut(id, "#"); name == of.Name+of.Thumbprint {
			ids = append(ids, id)
		}
	}
	return ids
}

// key identifies a state, by times relative to now.
func (w world) key() string {
	key := fmt.Sprint(w.inUse.Type, w.inUse.Secret == foreign, w.faults, w.life.Requested, slices.Sorted(maps.Keys(w.entra)))
	age := func(at time.Time) int {
		i, _ := slices.BinarySearch([]time.Duration{ListingLag, pendingTTL + 1}, w.now.Sub(at)+1)
		return i
	}
	for _, m := range w.life.Made {
		key += fmt.Sprint(m.Stage, m.Type, m.Name, m.KeyID, m.Thumbprint, age(m.PlannedAt), m.RemoveAfter.Sub(w.now).Truncate(time.Minute) > 0)
	}
	return key
}

// moves returns what can happen: the engine does what it decides, which can be cut off
// anywhere; time passes; the operator configures another credential.
func (w world) moves(t *testing.T) []world {
	var moves []world
	add := func(step string, change func(w *world)) { moves = append(moves, w.to(step, change)) }
	fault := func(step string, change func(w *world)) {
		if w.faults > 0 {
			add(step, func(w *world) { w.faults--; change(w) })
		}
	}
	step := w.life.Next(w.now, true)
	of := step.Of
	switch step.Do {
	case Plan:
		made := Made{Type: w.inUse.Type, Name: fmt.Sprintf("name%d", w.next)}
		if made.Type == ClientCertificate {
			made.Name, made.Thumbprint = "", fmt.Sprintf("print%d", w.next)
		}
		made.Credential = Credential{Type: made.Type, Certificate: made.Thumbprint}
		plan := func(w *world) { w.next++; w.apply(t, Event{Kind: Planned, Of: made}) }
		answer := func(w *world) {
			id := w.add(made)
			w.apply(t, Event{Kind: Added, Of: made, KeyID: id, Secret: id})
		}
		add("planned and added", func(w *world) { plan(w); answer(w) })
		add("planned and refused", func(w *world) { plan(w); w.apply(t, Event{Kind: NotAdded, Of: made, Refused: true}) })
		fault("planned, and killed", plan)
		fault("planned, and the answer is lost", func(w *world) { plan(w); w.add(made) })
	case Find:
		find := func(w *world, found []string) {
			for _, id := range found {
				delete(w.entra, id)
			}
			w.apply(t, Event{Kind: NotAdded, Of: of, Found: found})
		}
		switch {
		case len(w.found(of)) > 0 || step.Unlisted.IsZero():
			add("found", func(w *world) { find(w, w.found(of)) })
			fault("found, and killed after the removal", func(w *world) {
				for _, id := range w.found(of) {
					delete(w.entra, id)
				}
			})
		default:
			add("not found, which proves nothing", func(w *world) { w.apply(t, Event{Kind: Requested, Of: of}) })
		}
		if !step.Unlisted.IsZero() {
			fault("the removal is overlooked", func(w *world) {
				if found := w.found(of); len(found) > 0 {
					w.apply(t, Event{Kind: NotAdded, Of: of, Found: found})
				}
			})
		}
	case Add:
		if found := w.found(of); len(found) > 0 {
			add("registered", func(w *world) { w.apply(t, Event{Kind: Added, Of: of, KeyID: found[0]}) })
			fault("refused, since it is there unlisted, and it works", func(w *world) { w.prove(t, of) })
		} else {
			add("added", func(w *world) { w.apply(t, Event{Kind: Added, Of: of, KeyID: w.add(of)}) })
			fault("added, and the answer is lost", func(w *world) { w.add(of) })
		}
	case Prove:
		add("proven", func(w *world) { w.prove(t, of) })
	case Abandon:
		add("abandoned", func(w *world) { w.apply(t, Event{Kind: Abandoned, Of: of}) })
	}
	for _, old := range step.Remove {
		remove := func(w *world) {
			id := old.KeyID
			if found := w.found(old); id == "" && len(found) > 0 {
				id = found[0]
			}
			require.NotEqual(t, foreign, id, "removed%s", w.path)
			delete(w.entra, id)
		}
		add("removed", func(w *world) { remove(w); w.apply(t, Event{Kind: Removed, Of: old}) })
		fault("removed, and killed", remove)
	}
	for _, d := range []time.Duration{ListingLag, Grace, pendingTTL + time.Second} {
		add("after "+d.String(), func(w *world) { w.now = w.now.Add(d) })
	}
	fault("the clock was ahead", func(w *world) { w.now = w.now.Add(-24 * time.Hour) })
	for _, kind := range []string{ClientSecret, ClientCertificate} {
		for _, redirected := range []bool{false, true} {
			fault(fmt.Sprintf("configured %s, redirected %t", kind, redirected), func(w *world) {
				next, before := Credential{Type: kind, Secret: foreign}, w.life
				w.apply(t, Event{Kind: Configured, Old: w.inUse, New: next, SameApp: true, Redirected: redirected})
				w.inUse = next
				for _, m := range before.Made {
					if !slices.ContainsFunc(w.life.Made, m.same) {
						w.named[m.Name+m.KeyID+m.Thumbprint] = true
					}
				}
			})
		}
	}
	return moves
}

func (w *world) prove(t *testing.T, of Made) {
	w.apply(t, Event{Kind: Proven, Of: of})
	w.inUse = Credential{Type: of.Type, Secret: of.KeyID} // by its id, as Entra does
	if of.KeyID == "" {
		w.inUse.Secret = w.found(of)[0]
	}
}

// holds checks what is promised in every state.
func (w world) holds(t *testing.T) {
	if w.inUse.Secret != foreign {
		require.Contains(t, w.entra, w.inUse.Secret, "the credential in use does not work%s", w.path)
	}
	known := func(id string) bool {
		name, _, _ := strings.Cut(id, "#")
		return w.named[id] || w.named[name] || slices.ContainsFunc(w.life.Made, func(m Made) bool {
			return m.KeyID == id || m.KeyID == "" && m.Name+m.Thumbprint == name
		})
	}
	for id := range w.entra {
		require.True(t, id == foreign || known(id), "%s is forgotten%s", id, w.path)
	}
	require.Contains(t, w.entra, foreign)
	pending, inUse := 0, 0
	for _, m := range w.life.Made {
		switch m.Stage {
		case planned, added:
			pending++
		case current:
			inUse++
		}
	}
	require.LessOrEqual(t, max(pending, inUse), 1, w.path)
	text, err := json.Marshal(w.life)
	require.NoError(t, err)
	var read Life
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, w.life.Names(), read.Names(), w.path)
}

// TestWalk visits every state that two faults and two rotations can lead to.
func TestWalk(t *testing.T) {
	for _, kind := range []string{ClientSecret, ClientCertificate} {
		first := world{
			now: start, inUse: Credential{Type: kind, Secret: foreign}, entra: map[string]time.Time{foreign: start}, named: map[string]bool{}, faults: 2,
		}
		seen, queue := map[string]bool{}, []world{first}
		for len(queue) > 0 {
			w := queue[0]
			queue = queue[1:]
			if w.next > 3 || seen[w.key()] {
				continue
			}
			seen[w.key()] = true
			w.holds(t)
			queue = append(queue, w.moves(t)...)
		}
		require.Greater(t, len(seen), 1000)
		t.Logf("%s: %d states", kind, len(seen))
	}
}

// off is by how much a clock was wrong.
var off = []time.Duration{time.Hour, 24 * time.Hour, 400 * 24 * time.Hour, -time.Hour, -24 * time.Hour, -400 * 24 * time.Hour}

// What a node has noted while its clock was wrong lets nothing wait longer than usual once
// the clock is right.
func TestClockThatWasWrong(t *testing.T) {
	secret, cert := Made{Type: ClientSecret, Name: "n"}, Made{Type: ClientCertificate, Thumbprint: "p", Credential: Credential{Type: ClientCertificate}}
	month := 30 * 24 * time.Hour
	apply := func(l Life, at time.Time, events ...Event) Life {
		for _, e := range events {
			e.At = at
			var fits bool
			l, fits = l.Apply(e)
			require.True(t, fits, e.Kind)
		}
		return l
	}
	ofCert := func(kind string) Event { return Event{Kind: kind, Of: cert} }
	added := Event{Kind: Added, Of: cert, KeyID: "id"}
	byID := Made{Type: ClientCertificate, KeyID: "id"}
	failure := Event{Kind: Reported, Problem: "x", Wait: 36 * time.Minute}
	inUse := apply(Life{}, start.Add(-time.Hour), ofCert(Planned), added, Event{Kind: Proven, Of: byID})
	for name, c := range map[string]struct {
		life    Life
		events  []Event
		does    func(Step) bool
		longest time.Duration
	}{
		"a failure":                 {Life{Period: month, Since: start.Add(-2 * month)}, []Event{failure}, func(s Step) bool { return s.Do == Plan }, 36 * time.Minute},
		"a failure, wanted":         {Life{Requested: true}, []Event{failure}, func(s Step) bool { return s.Do == Plan }, 36 * time.Minute},
		"a rotation, the next":      {Life{Period: month}, []Event{ofCert(Planned), {Kind: Proven, Of: cert}}, func(s Step) bool { return s.Do == Plan }, month},
		"a rotation, the last":      {inUse, []Event{{Kind: Planned, Of: secret}, {Kind: Added, Of: secret, KeyID: "s"}, {Kind: Proven, Of: Made{Type: ClientSecret, KeyID: "s"}}}, func(s Step) bool { return len(s.Remove) == 1 }, Grace},
		"a plan of a secret":        {Life{}, []Event{{Kind: Planned, Of: secret}}, func(s Step) bool { return s.Do == Find }, ListingLag},
		"a plan that is not solved": {Life{}, []Event{ofCert(Planned)}, func(s Step) bool { return s.Do == Abandon }, pendingTTL + time.Minute},
		"one that never works":      {Life{}, []Event{ofCert(Planned), added}, func(s Step) bool { return s.Do == Abandon }, pendingTTL + time.Minute},
		"one that was given up":     {Life{}, []Event{ofCert(Planned), {Kind: Abandoned, Of: cert}}, func(s Step) bool { return len(s.Remove) == 1 }, 0},
		"another, configured":       {inUse, []Event{{Kind: Configured, Old: Credential{Type: ClientCertificate}, New: Credential{Type: ClientCertificate, Certificate: "x"}, SameApp: true}}, func(s Step) bool { return len(s.Remove) == 1 }, Grace},
	} {
		for _, off := range off {
			life, waited := apply(c.life, start.Add(off), c.events...), time.Duration(0)
			for ; !c.does(life.Next(start.Add(waited), false)); waited += time.Minute {
				require.LessOrEqual(t, waited, c.longest+skew, "%s, %v", name, off)
			}
			require.LessOrEqual(t, waited, c.longest, "%s, %v", name, off)
			next := life.Next(start, false)
			require.False(t, next.NextAttempt.After(start.Add(36*time.Minute)) || next.NextRotation.After(start.Add(month)), "%s, %v: %+v", name, off, next)
		}
	}
}

// Clocks of nodes that differ by a minute change nothing.
func TestClocksThatDifferALittle(t *testing.T) {
	cert := Made{Type: ClientCertificate, Thumbprint: "p"}
	life := Life{Period: time.Hour, Made: []Made{{Stage: current, Type: ClientCertificate, KeyID: "old"}}}
	for _, e := range []Event{{Kind: Planned, Of: cert}, {Kind: Proven, Of: cert}, {Kind: Planned, Of: Made{Type: ClientCertificate, Thumbprint: "q"}}} {
		e.At = start.Add(time.Minute)
		life, _ = life.Apply(e)
	}
	next := life.Next(start, false)
	require.Equal(t, Add, next.Do)
	require.Empty(t, next.Remove)
	require.Equal(t, start.Add(time.Hour+time.Minute), next.NextRotation)
}
