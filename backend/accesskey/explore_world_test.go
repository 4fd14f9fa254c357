// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"cmp"
	"fmt"
	"strings"
)

// faults bound what can go wrong in a scenario.
type faults struct {
	lost, old, refused, portals, kills, outages, darks, writes, deletes, creates, rotates uint8
}

func (f faults) String() string {
	text := ""
	for i, n := range []uint8{f.lost, f.old, f.refused, f.portals, f.kills, f.outages, f.darks, f.writes, f.deletes, f.creates, f.rotates} {
		if n > 0 {
			text += fmt.Sprint(", ", n, " ", []string{
				"lost POST", "old answer", "refusal", "portal", "kill",
				"GET outage", "total outage", "failing write", "delete", "create", "rotate-key",
			}[i])
		}
	}
	return strings.TrimPrefix(cmp.Or(text, ", staleness only"), ", ")
}

// Who asked for the POST under way.
const (
	forReader = iota
	forRetirement
	forOperator
)

// The configuration: of the tenant; about to be deleted; gone.
const (
	ours = iota
	turning
	unconfigured
)

// The reader who wants a new key: there is none; waits; its regeneration is done.
const (
	nobody = iota
	waits
	served
)

// world is everything: Graph, the engine, its clients, and ghosts, which only the
// invariants look at.
type world struct {
	// Graph.
	cur           uint8           // the tenant's key
	dead          [keyCount]uint8 // 1 when the key is replaced, one more at each tick
	late          [2]uint8        // POSTs without an answer: how long they can still land
	foreign       set             // made elsewhere: the first key, the portal's
	getDown, dark bool            // GET fails, signed; nothing answers

	// The engine, in memory and in storage.
	memory, stored  uint32 // of the library
	dirty           bool   // what is stored may not be what is in memory
	leased          set    // versions with a live record in the ledger, by key
	up, posting     bool
	by              uint8
	postAge, landed uint8 // of the POST under way, and the key that it has made
	config          uint8
	asked           uint8 // age of the last comparison, askedOld if none counts
	askedFailed     bool

	reader uint8
	faults // what may still happen

	// Ghosts.
	given, hosts set   // handed out ever; under a live lease, whatever the ledger says
	replaced     set   // known when a POST left that was answered
	atRotate     set   // given before rotate-key was asked for
	atArrival    set   // given before the reader arrived who wants a new key
	unnamed      bool  // Graph has named nothing since a POST without proof
	doubtAge     uint8 // since the first of them
	sinceWanted  bool  // the POST under way left after rotate-key was asked for
	warned       bool  // the deletion has said that the key lives on
	unasked      bool  // the last POST was a retirement's, in a total outage
	calm         uint8 // ticks until everything must have been settled; 0: not calm
	posts        uint8 // in the calm
}

func (w *world) sets() [7]set {
	return [...]set{w.leased, w.foreign, w.given, w.hosts, w.atRotate, w.replaced, w.atArrival}
}

// explorer explores the world of a scenario.
type explorer struct {
	*library
	keys                        uint8 // how many can be named at once
	landing, staleness, hanging int   // for how long a POST can land, GET be stale, a POST hang
	within                      int   // how soon all must be settled
	blindInDark                 bool
	// What a step of the world has done, or is to suffer.
	saves, failSave int
	carriedOut      bool
	hasAsked        bool
}

func newExplorer(r rules, keys uint8) *explorer {
	x := &explorer{library: newLibrary(r), keys: keys, landing: 2, staleness: 1, hanging: 1}
	x.within = x.landing + doubtTicks + 2*watchTicks + x.staleness + 4
	return x
}

// start are the worlds that all begins with: the engine knows the tenant's key, or none.
func (x *explorer) start(f faults) []world {
	blank := world{up: true, landed: none, asked: uint8(askedOld), faults: f}
	first, later := blank, blank
	first.foreign = one(0)
	first.memory = x.intern(memory{Record: Record{Salt: exploreSalt, Workspace: home}})
	r := Record{Salt: exploreSalt, Workspace: home}.answered(names[0], CauseRead, ago(driftTicks))
	later.memory = x.intern(memory{Record: r})
	first.stored, later.stored = first.memory, later.memory
	return []world{later, first}
}

// known are the facts of what the engine has in memory.
func (x *explorer) known(w *world) *facts { return &x.facts[w.memory] }

// stale reports whether GET may name a key although it is replaced.
func (x *explorer) stale(w *world, k uint8) bool {
	return w.dead[k] > 0 && int(w.dead[k]) <= x.staleness+1
}

// used are the keys that the engine or Graph can still name.
func (x *explorer) used(w *world) set {
	all := one(w.cur) | one(x.known(w).own) | one(w.landed) | one(x.facts[w.stored].own)
	for k := range uint8(keyCount) {
		if x.stale(w, k) {
			all |= one(k)
		}
	}
	return all
}

// unused is a number that no key has, or none.
func (x *explorer) unused(w *world) uint8 {
	used := x.used(w)
	for k := range x.keys {
		if !used.has(k) {
			return k
		}
	}
	return none
}

func (x *explorer) room(w *world) bool { return x.unused(w) != none }

// replace makes a new key the tenant's.
func (x *explorer) replace(w *world, foreign bool) uint8 {
	k := x.unused(w)
	w.dead[w.cur], w.dead[k] = 1, 0
	w.cur, w.warned = k, false
	if foreign {
		w.foreign |= one(k)
	}
	return k
}

// fails is the answer of a GET that fails.
const fails = none

// answers are what GET can answer.
func (x *explorer) answers(w *world) []uint8 {
	if w.getDown {
		return []uint8{fails}
	}
	all := []uint8{w.cur}
	for k := range uint8(keyCount) {
		if k != w.cur && x.stale(w, k) {
			all = append(all, k)
		}
	}
	return all
}

func (w *world) canLand() bool { return w.late[0] > 0 || w.late[1] > 0 }

// graphAndFaults are what Graph, the network, third parties and the node do.
func (x *explorer) graphAndFaults(w *world, try stepper) {
	if w.posting && w.up && !w.dark {
		x.failPOST(w, try)
	}
	if w.portals > 0 && x.room(w) {
		try("the key is regenerated in the portal", func(t *world) string { t.portals--; x.replace(t, true); return "" })
	}
	if w.kills > 0 && w.up && w.late[1] == 0 {
		try("the node is killed", x.kill)
	}
	switch {
	case w.getDown:
		try("GET works again", func(t *world) string { t.getDown = false; return "" })
	case w.outages > 0:
		try("GET begins to fail", func(t *world) string { t.outages--; t.getDown = true; return "" })
	case w.darks > 0:
		try("a total outage begins", func(t *world) string { t.darks--; t.getDown, t.dark = true, true; return "" })
	}
	try("calm: no leases, no readers, no faults", func(t *world) string { x.calmDown(t); t.getDown = false; return "" })
	if w.getDown && !w.dark {
		try("calm, but GET goes on failing", func(t *world) string { x.calmDown(t); return "" })
	}
}

// failPOST are the ways in which a POST fails.
func (x *explorer) failPOST(w *world, try stepper) {
	mayLand := w.landed != none || w.late[1] == 0
	if w.lost > 0 && mayLand {
		try("the answer is lost (or unsigned)", func(t *world) string {
			t.lost--
			x.abandon(t)
			x.apply(t, opLost)
			return ""
		})
	}
	if w.refused > 0 && w.landed == none {
		try("Graph refuses the POST, signed", func(t *world) string {
			t.refused--
			t.posting = false
			x.leaveReader(t)
			x.apply(t, opRefused)
			return ""
		})
	}
	old := x.known(w).own
	if known := x.known(w).known(); known.has(w.cur) && w.cur != w.landed {
		old = w.cur
	}
	if w.old > 0 && mayLand && old < keyCount && x.isKnownToPOST(w, old) {
		try(fmt.Sprintf("the POST answers #%d, which was there before", old), func(t *world) string {
			t.old--
			x.abandon(t)
			x.takeAnswer(t, old)
			return ""
		})
	}
}

// isKnownToPOST reports whether a key was known when the POST under way left.
func (x *explorer) isKnownToPOST(w *world, k uint8) bool {
	return x.known(w).superseded.has(k) || x.known(w).known().has(k) && x.known(w).traits[k]&traitLater == 0
}

// abandon: the answer of the POST comes no longer.
func (x *explorer) abandon(t *world) {
	if t.landed == none {
		t.late[1] = toByte(max(0, x.landing+1-int(t.postAge)))
	}
	t.posting, t.unnamed = false, true
}

func (x *explorer) kill(t *world) string {
	t.kills--
	t.unnamed = t.unnamed || t.posting
	if t.posting {
		x.abandon(t)
	}
	if t.dirty { // what was not stored is not known
		t.replaced &= x.facts[t.stored].superseded
	}
	t.up, t.reader, t.dirty = false, nobody, false
	t.memory = t.stored
	t.asked, t.askedFailed = uint8(askedOld), false
	if t.config == turning {
		t.config = ours
	}
	return ""
}

// restart: the node is back.
func (x *explorer) restart(t *world) string {
	t.up = true
	t.stored = t.memory
	t.memory, _ = x.move(t.memory, opFound)
	t.unnamed = t.unnamed || x.known(t).doubt
	return ""
}

func (x *explorer) calmDown(t *world) {
	t.calm, t.leased, t.hosts, t.posts, t.faults = toByte(x.within), 0, 0, 0, faults{}
	x.leaveReader(t)
}

// mayPass reports whether time can pass: not over what happens at once.
func (x *explorer) mayPass(w *world, busy bool) bool {
	switch {
	case w.posting && int(w.postAge) >= x.hanging:
		return false
	case w.reader == served && w.up && w.config == ours && !w.posting && !x.known(w).doubt:
		return false
	case w.config == turning && !w.posting && !w.getDown:
		return false
	}
	return w.calm == 0 || !busy
}

func (x *explorer) passTick(t *world) string {
	down := func(n *uint8) { *n -= min(*n, 1) }
	age := func(n *uint8, limit int) { *n = toByte(min(limit, int(*n)+1)) }
	oldest := x.oldest() + 2
	if t.calm > 0 {
		oldest = x.staleness + 2
	}
	for k := range t.dead {
		if t.dead[k] > 0 {
			age(&t.dead[k], oldest)
		}
	}
	down(&t.late[0])
	down(&t.late[1])
	down(&t.calm)
	age(&t.doubtAge, doubtTicks+1)
	age(&t.postAge, x.hanging)
	age(&t.asked, askedOld)
	t.memory, _ = x.move(t.memory, opTick)
	t.stored, _ = x.move(t.stored, opTick)
	if !t.posting || t.config != ours {
		x.leaveReader(t) // no handler waits for longer
	}
	if t.config == turning {
		return x.unconfigure(t, true)
	}
	return ""
}

// oldest is for how long at most a key can have been dead that is handed out.
func (x *explorer) oldest() int { return driftTicks + max(x.staleness, x.hanging) }

// What an answer relies on.
const (
	byComparison = iota // made for it
	byReuse             // a comparison within the same tick
	byPOST              // a POST's answer
	byTrust             // a comparison not older than the interval
	unconfirmed
)

// handOut checks what must hold when the current key goes to a reader.
func (x *explorer) handOut(t *world, short bool, by int) string {
	f := x.known(t)
	dead, age := f.own != t.cur, int(t.dead[f.own])-1
	confirmed := by == byComparison || by == byReuse
	switch {
	case t.config != ours:
		return "I4 tenant: handed out without a configuration"
	case !short && dead && !t.foreign.has(t.cur):
		return "I2 dead: a key that our own POST has replaced, under a full lease"
	case !short && (t.canLand() || t.posting):
		return "I2 late: a full lease, while an old POST may still replace the key"
	case t.unnamed && by != byComparison:
		return "I2 named: Graph has named no key since a POST without proof"
	case t.replaced.has(f.own):
		return "I2 known: a key that an answered POST of ours is known to have replaced"
	case dead && confirmed && age > 2*x.staleness:
		return "I2 fresh: a key that was dead for longer, when GET confirmed it, than GET's staleness explains"
	case dead && (by == byTrust && age > x.oldest() || by == byPOST && age > max(x.staleness, x.hanging)):
		return "I2 drift: a key replaced elsewhere more than a comparison ago"
	}
	return ""
}

// settled is what must hold when there has been calm for long enough.
func (x *explorer) settled(w *world) string {
	f := x.known(w)
	switch {
	case w.given.has(w.cur) && !w.warned:
		return "I1 covered: no lease is left, and a key handed out still works"
	case w.config == unconfigured:
		return ""
	case f.wanted:
		return "I7 break-glass: rotate-key has not been answered"
	case w.posts > mostPOSTs:
		return "I5 posts: more POSTs in the calm than are needed"
	case w.getDown:
		return ""
	case f.doubt || f.watching || w.posting:
		return "I5 settle: still in doubt or on watch"
	case f.own == none || f.own == w.cur || w.foreign.has(w.cur) && int(f.compared) < driftTicks:
		return ""
	case int(f.compared) < driftTicks:
		return "I5 belief: the record is wrong, and nothing is to be compared"
	case f.superseded.has(w.cur):
		return "I5 belief: GET names a key that the engine holds to be superseded, for ever"
	}
	return ""
}

// mostPOSTs is how many POSTs the calm needs at most.
const mostPOSTs = 2

// tidy makes worlds equal that differ in nothing that matters, and numbers the keys anew.
func (x *explorer) tidy(t *world) {
	x.forget(t)
	used := x.used(t)
	var (
		order [keyCount]uint8 // the old number of each
		rank  [keyCount]uint64
	)
	for k := range uint8(keyCount) {
		if !used.has(k) {
			t.dead[k] = 0
		}
		order[k], rank[k] = k, x.rank(t, k, used)
	}
	for k := range order {
		for i := k; i > 0 && rank[order[i]] < rank[order[i-1]]; i-- {
			order[i], order[i-1] = order[i-1], order[i]
		}
	}
	x.renumber(t, order, used)
}

// forget drops what does not matter.
func (x *explorer) forget(t *world) {
	if t.reader != served {
		t.memory, _ = x.move(t.memory, opLeft)
	}
	switch {
	case !t.up:
		t.memory, _ = x.move(t.memory, opStored)
		t.stored, t.dirty = 0, false
	case t.kills > 0:
		t.stored, _ = x.move(t.stored, opStored)
	default:
		t.stored, t.dirty = 0, false
	}
	x.forgetGhosts(t)
	if !t.posting {
		t.by, t.postAge, t.landed, t.sinceWanted = 0, 0, none, false
	}
	if !t.getDown {
		t.dark = false
	}
	if t.late[0] < t.late[1] {
		t.late[0], t.late[1] = t.late[1], t.late[0]
	}
	f := x.known(t)
	if !f.watching && !t.posting && (!t.askedFailed || int(t.asked) == askedOld) && int(f.compared) < driftTicks {
		t.asked, t.askedFailed = uint8(askedOld), false // nothing asks for it
	}
	t.leased &= f.known() | x.facts[t.stored].known()&(1<<keyCount-1)
	t.hosts &= t.leased
	if t.calm > 0 {
		t.given &= one(t.cur)
		t.hosts = 0
	}
}

// forgetGhosts drops what no invariant will look at.
func (x *explorer) forgetGhosts(t *world) {
	f := x.known(t)
	if !f.doubt && !f.underWay {
		t.unasked = false
	}
	if !t.unnamed {
		t.doubtAge = 0
	}
	if !f.wanted {
		t.atRotate = 0
	}
	if t.reader == nobody {
		t.atArrival = 0
	}
}

// rank orders keys by all that is known of them.
func (x *explorer) rank(t *world, k uint8, used set) (r uint64) {
	for _, yes := range []bool{!used.has(k), k != t.cur, k != t.landed} {
		r *= 2
		if yes {
			r++
		}
	}
	r = r<<4 | uint64(t.dead[k])
	for _, s := range t.sets() {
		r *= 2
		if s.has(k) {
			r++
		}
	}
	return r<<32 | uint64(x.facts[t.memory].traits[k])<<16 | uint64(x.facts[t.stored].traits[k])
}

// renumber gives the keys their new numbers.
func (x *explorer) renumber(t *world, order [keyCount]uint8, used set) {
	to := [keyCount]uint8{none, none, none, none, none}
	for k, was := range order {
		if used.has(was) {
			to[was] = uint8(k)
		}
	}
	at := func(k uint8) uint8 {
		if k < keyCount {
			return to[k]
		}
		return none
	}
	mapped := func(s set) (m set) {
		for k := range uint8(keyCount) {
			if s.has(k) {
				m |= one(to[k])
			}
		}
		return m
	}
	f, old := *x.known(t), *t
	t.leased = mapped(old.leased & used)
	for k := range uint8(allKeys) {
		if old.leased.has(k) && !used.has(k) {
			t.leased |= one(gone(f.traits[k]&traitLater != 0))
		}
	}
	t.foreign, t.given, t.hosts = mapped(old.foreign), mapped(old.given), mapped(old.hosts)
	t.atRotate, t.replaced, t.atArrival = mapped(old.atRotate), mapped(old.replaced), mapped(old.atArrival)
	for k, was := range order {
		t.dead[k] = old.dead[was]
	}
	t.cur, t.landed = at(old.cur), at(old.landed)
	t.memory, t.stored = x.rename(old.memory, to), x.rename(old.stored, to)
}

// text describes the world. K0 is the tenant's key.
func (x *explorer) text(w *world) string {
	k := func(k uint8) string {
		if k >= keyCount {
			return "-"
		}
		return fmt.Sprintf("K%d", k)
	}
	f := x.known(w)
	b := []string{"tenant " + k(w.cur), "record " + k(f.own)}
	for _, s := range []struct {
		on   bool
		text string
	}{
		{f.disclosed.has(f.own), "disclosed"},
		{w.leased.has(f.own), "leased"},
		{f.displaced != 0, "others displaced"},
		{f.doubt, fmt.Sprintf("in doubt (%d)", f.doubtAge)},
		{f.watching, fmt.Sprintf("on watch (%d)", f.watch)},
		{w.posting, "POST under way"},
		{w.canLand(), "a POST may still land"},
		{w.askedFailed, "the last GET failed"},
		{w.getDown && !w.dark, "GET fails"},
		{w.dark, "nothing answers"},
		{w.dirty, "not stored"},
		{!w.up, "node down"},
		{w.config == turning, "turning away"},
		{w.config == unconfigured, "no configuration"},
		{f.wanted, "rotate-key wanted"},
		{w.reader == waits, "a reader waits for a new key"},
		{w.reader == served, "a reader's key is ready"},
		{w.calm > 0, fmt.Sprintf("calm %d", w.calm)},
	} {
		if s.on {
			b = append(b, s.text)
		}
	}
	return strings.Join(b, ", ")
}
