// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"errors"
	"fmt"
)

// stepper takes a step of the world. What the step does returns the invariant that it
// breaks, or "".
type stepper = func(what string, do func(*world) string)

// emitter is told where a step leads.
type emitter = func(what string, to world, broken string)

// The steps that have a key: the one that GET names, mostly.
const (
	engineAsks = iota
	retirementAsks
	readerShares
	readerWantsNew
	leaseEnds
)

// stepNames are spelled out once.
var stepNames = func() (all [5][allKeys + 1]string) {
	for i, what := range [...]string{"the engine asks", "retirement asks", "a sharing reader", "the reader who wants a new key"} {
		for k := range all[i] {
			all[i][k] = fmt.Sprintf("%s, GET names #%d", what, k)
		}
		all[i][fails] = what + ", GET fails"
	}
	for k := range all[leaseEnds] {
		all[leaseEnds][k] = fmt.Sprintf("the last lease of #%d ends", k)
	}
	return all
}()

func stepOf(what int, k uint8) string { return stepNames[what][k] }

// next takes each step that can be taken from a world.
func (x *explorer) next(w world, emit emitter) {
	busy := false // the engine has work that it can do at once
	take := func(what string, do func(*world) string, urgent bool) {
		for x.failSave = 0; ; x.nextFailure() {
			t := w
			x.saves = 0
			broken := do(&t)
			if x.failSave > x.saves {
				return
			}
			if x.failSave > 0 {
				t.writes--
			}
			x.tidy(&t)
			busy = busy || urgent && t != w
			emit(x.suffered(what), t, broken)
			if w.writes == 0 {
				return
			}
		}
	}
	try := func(what string, do func(*world) string) { take(what, do, false) }
	x.engine(&w, try, func(what string, do func(*world) string) { take(what, do, true) })
	if w.calm == 0 {
		x.clients(&w, try)
		x.graphAndFaults(&w, try)
	}
	for i, l := range w.late {
		if l > 0 && x.room(&w) {
			try("an old POST lands after all", func(t *world) string { t.late[i] = 0; x.replace(t, false); return "" })
		}
	}
	if w.calm == 1 {
		try("must be settled", x.settled)
	} else if x.mayPass(&w, busy) {
		try("a tick passes", x.passTick)
	}
}

// nextFailure is the next way in which a write of a step can fail: each write that it
// makes, carried out or not.
func (x *explorer) nextFailure() {
	if x.failSave > 0 && !x.carriedOut {
		x.carriedOut = true
		return
	}
	x.failSave, x.carriedOut = x.failSave+1, false
}

// suffered adds to a step what has failed in it.
func (x *explorer) suffered(step string) string {
	switch {
	case x.failSave == 0:
		return step
	case x.carriedOut:
		return fmt.Sprintf("%s; write %d is reported as failed, and carried out", step, x.failSave)
	default:
		return fmt.Sprintf("%s; write %d fails", step, x.failSave)
	}
}

// apply stores what an event makes of the record, and reports whether that succeeds. What
// is known goes on in memory.
func (x *explorer) apply(t *world, op uint8) (string, bool) {
	to, found := x.move(t.memory, op)
	return found, x.save(t, to, to)
}

// save does as the store does. After a failure unstored is what is known.
func (x *explorer) save(t *world, to, unstored uint32) bool {
	if to == t.memory && !t.dirty {
		return true
	}
	x.saves++
	if x.saves != x.failSave {
		t.memory, t.stored, t.dirty = to, to, false
		return true
	}
	t.memory, t.dirty = unstored, true
	if x.carriedOut {
		t.stored = to
	}
	return false
}

func (x *explorer) leaveReader(t *world) {
	t.reader = nobody
	t.memory, _ = x.move(t.memory, opLeft)
}

// leave: the intent is stored, the POST is sent.
func (x *explorer) leave(t *world, by uint8) string {
	kept := by == forRetirement && t.config == ours && t.hosts.has(x.known(t).own)
	t.memory, _ = x.move(t.memory, opLeft)
	to, _ := x.move(t.memory, opBegin)
	sent := x.save(t, to, t.memory)
	t.asked, t.askedFailed = uint8(askedOld), false
	if !sent {
		return ""
	}
	t.posting, t.by, t.postAge, t.landed = true, by, 0, none
	t.sinceWanted = x.known(t).wanted
	if t.reader == served {
		t.reader = waits
	}
	if t.calm > 0 {
		t.posts = min(t.posts+1, mostPOSTs+1)
	}
	t.unasked = by == forRetirement && t.dark && t.config == ours
	if kept {
		return "I1 kept: a key is retired that a host holds under a live lease"
	}
	return ""
}

// answered: Graph has answered the POST with a key.
func (x *explorer) takeAnswer(t *world, key uint8) (broken string) {
	before := *x.known(t)
	found, stored := x.apply(t, opAnsweredForReader+t.by*keyCount+key)
	t.asked, t.askedFailed = uint8(askedOld), false
	if found == oldAnswer {
		return ""
	}
	t.unnamed = false
	for k := range uint8(keyCount) {
		if before.known().has(k) && before.traits[k]&traitLater == 0 {
			t.replaced |= one(k)
		}
	}
	if before.wanted && !x.known(t).wanted && (!t.sinceWanted || t.given&t.atRotate&one(t.cur) != 0) {
		broken = "I7 break-glass: rotate-key was answered with a key that is handed out, or from before"
	}
	switch {
	case t.reader != waits:
	case stored:
		t.reader = served
		t.memory, _ = x.move(t.memory, opMade)
	default:
		x.leaveReader(t)
	}
	return broken
}

// get asks Graph for the key, and reports whether its answer could be stored.
func (x *explorer) get(t *world, answer uint8) (broken string, stored bool) {
	x.hasAsked = true
	t.asked, t.askedFailed = 0, answer == fails
	if answer == fails {
		return "", true
	}
	wanted := x.known(t).wanted
	found, stored := x.apply(t, opCompared+answer)
	t.unnamed = false
	switch {
	case found == CauseExternal && answer == t.cur && !t.foreign.has(answer):
		return "I6 own key called external", true
	case wanted && !x.known(t).wanted:
		return "I7 break-glass: rotate-key was answered without a POST", true
	}
	return "", stored
}

// due is what the engine has to do.
func (x *explorer) dueIn(t *world) dueWork {
	if t.config == unconfigured {
		return dueWork{}
	}
	return x.dueNow(dueOf{t.memory, t.leased, t.asked, t.askedFailed, t.config == turning})
}

// engine is what the engine does of its own accord, and Graph's answer to its POST.
func (x *explorer) engine(w *world, try, work stepper) {
	switch {
	case !w.up:
		work("the node is back", x.restart)
		return
	case w.posting:
		x.answerPOST(w, try, work)
		return
	case w.config == unconfigured:
		return
	}
	due := x.dueIn(w)
	if due.wanted && x.room(w) {
		work("rotate-key: a POST leaves", func(t *world) string { return x.leave(t, forOperator) })
	}
	if due.retire || due.settle || due.compare {
		for _, g := range x.answers(w) {
			x.ask(w, g, due.retire, work)
		}
	}
	if w.config == turning && !due.retire {
		work("the configuration goes", func(t *world) string { return x.unconfigure(t, false) })
	}
}

// ask: the engine asks Graph for the key, and retires it if that is due then. Without an
// answer it retires only if Graph itself has refused, and once a doubt is old.
func (x *explorer) ask(w *world, g uint8, retire bool, work stepper) {
	work(stepOf(engineAsks, g), func(t *world) string {
		broken, _ := x.get(t, g)
		return broken
	})
	if !retire || !x.room(w) {
		return
	}
	work(stepOf(retirementAsks, g), func(t *world) string {
		broken, stored := x.get(t, g)
		f := x.known(t)
		if broken != "" || !stored || !x.dueIn(t).retire {
			return broken
		}
		if g == fails && (t.dark && !x.blindInDark || f.doubt && int(f.doubtAge) < doubtTicks) {
			return ""
		}
		return x.leave(t, forRetirement)
	})
}

func (x *explorer) answerPOST(w *world, try, work stepper) {
	switch {
	case w.dark:
		try("the POST times out", func(t *world) string {
			t.landed = t.cur // nothing arrives, so that nothing is late
			x.abandon(t)
			x.apply(t, opLost)
			return ""
		})
	case w.landed != none:
		work("Graph answers the POST", func(t *world) string {
			t.posting = false
			return x.takeAnswer(t, t.landed)
		})
	case x.room(w):
		work("Graph carries out the POST", func(t *world) string { t.landed = x.replace(t, false); return "" })
	}
}

// unconfigure: the configuration is deleted.
func (x *explorer) unconfigure(t *world, warned bool) string {
	t.config, t.warned = unconfigured, t.warned || warned
	x.leaveReader(t)
	if !warned && t.given.has(t.cur) {
		return "I1 covered: the configuration is gone, and a key handed out works, without a warning"
	}
	return ""
}

// clients are the readers, the ends of leases, the operators.
func (x *explorer) clients(w *world, try stepper) {
	for k := range uint8(allKeys) {
		if w.leased.has(k) || w.hosts.has(k) {
			try(stepOf(leaseEnds, k), func(t *world) string {
				t.hosts, t.leased = t.hosts&^one(k), t.leased&^one(k)
				return ""
			})
		}
	}
	if w.reader != nobody {
		try("the reader who wants a new key leaves", func(t *world) string { x.leaveReader(t); return "" })
	}
	if w.config == unconfigured && w.creates > 0 {
		try("the same tenant is configured again", func(t *world) string { t.creates--; t.config = ours; return "" })
	}
	if !w.up || w.config != ours {
		return
	}
	x.readers(w, try)
	if w.rotates > 0 {
		try("rotate-key is asked for", func(t *world) string {
			t.rotates--
			if !x.known(t).wanted {
				t.atRotate = t.given
			}
			x.apply(t, opWanted)
			return ""
		})
	}
	if w.deletes > 0 {
		try("the configuration is to be deleted", func(t *world) string { t.deletes--; t.config = turning; return "" })
	}
}

// readers are those who share, and the one who wants a new key.
func (x *explorer) readers(w *world, try stepper) {
	read := func(who int, terms Terms) {
		for _, g := range x.answers(w) {
			asked := false
			try(stepOf(who, g), func(t *world) string {
				x.hasAsked = false
				broken := x.read(t, terms, g)
				asked = asked || x.hasAsked
				return broken
			})
			if !asked { // Graph's answer makes no difference
				break
			}
		}
	}
	read(readerShares, Terms{MaxAge: AnyAge})
	if w.reader == nobody {
		try("a reader arrives who wants a new key", func(t *world) string {
			t.reader, t.atArrival = waits, t.given&^one(t.landed) // it joins the POST under way
			return ""
		})
		return
	}
	read(readerWantsNew, Terms{Fresh: x.all[w.memory].fresh})
}

// read is a reader who does what the decision asks for. GET's answer is g.
func (x *explorer) read(t *world, terms Terms, g uint8) string {
	for range 4 {
		m := &x.all[t.memory]
		d := x.decide(m.Record, terms, explorePolicy, askedAt(t.asked, t.askedFailed), noon)
		switch {
		case d.first == nil:
			return x.lease(t, terms, d)
		case errors.Is(d.first, ErrWaitFirst):
			terms.Waited = true
		case errors.Is(d.first, ErrCompareFirst):
			if x.hasAsked {
				return "I3 nobody pays: a comparison is not enough"
			}
			if broken, stored := x.get(t, g); broken != "" || !stored {
				return broken
			}
		case errors.Is(d.first, ErrRegenerateFirst):
			return x.readerPOSTs(t, terms, g)
		case errors.Is(d.first, ErrInDoubt):
			return x.refuseReader(t, terms, g)
		default:
			return "I3 nobody pays: a reader is refused"
		}
	}
	return "I3 nobody pays: a reader gets no decision"
}

func (x *explorer) readerPOSTs(t *world, terms Terms, g uint8) string {
	if terms.MaxAge == AnyAge && x.known(t).own != none && g != fails && !t.failedNow() {
		return "I3 nobody pays: a POST for a reader who shares, though Graph names the key"
	}
	if t.posting || !x.room(t) {
		return "" // joins it
	}
	return x.leave(t, forReader)
}

// failedNow reports whether a comparison has failed that still counts for all.
func (w *world) failedNow() bool { return w.askedFailed && w.asked == 0 }

// refuseReader: 503. It is in order beside a POST under way while GET fails, and for
// thirty seconds after a POST without proof.
func (x *explorer) refuseReader(t *world, terms Terms, g uint8) string {
	if terms.MaxAge != AnyAge {
		x.leaveReader(t)
	}
	switch {
	case t.unasked:
		return "I3 outage: refused, since retirement has sent a POST into a total outage"
	case g != fails && !t.failedNow():
		return "I3 nobody pays: 503 for a reader, though Graph names the key"
	case t.posting:
	case !t.unnamed:
		return "I3 blind: refused, though Graph has answered since the last POST without proof"
	case int(t.doubtAge) > doubtTicks:
		return "I3 blind: refused, and no POST, for longer than thirty seconds since the first without proof"
	}
	return ""
}

// lease hands the key out.
func (x *explorer) lease(t *world, terms Terms, d decision) string {
	by := byTrust
	switch {
	case x.hasAsked && !t.askedFailed:
		by = byComparison
	case terms.Fresh > 0 && !x.hasAsked && x.all[t.memory].fresh > 0:
		by = byPOST
	case d.unconfirmed:
		by = unconfirmed
	case t.asked == 0 && !t.askedFailed:
		by = byReuse
	}
	to, _ := x.move(t.memory, opDisclosed)
	if !x.save(t, to, t.memory) {
		return "" // the lease is withdrawn
	}
	own := one(x.known(t).own)
	if own == 0 {
		return "I2 named: a key is handed out where there is none"
	}
	old := t.atArrival
	if terms.MaxAge != AnyAge {
		x.leaveReader(t)
		if t.foreign&own != 0 {
			return "I8 new: who wants a new key gets one that was made elsewhere"
		}
		if old&own != 0 {
			return "I8 new: who wants a new key gets one that was handed out before"
		}
	}
	t.given, t.leased, t.hosts = t.given|own, t.leased|own, t.hosts|own
	return x.handOut(t, d.short, by)
}
