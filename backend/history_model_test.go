// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

// ledgerForgets says that the ledger drops the record of a reader who has left at once.
const ledgerForgets = true

// The times of the design.
const (
	shortLease = 2 * time.Minute
	watchLasts = 2 * time.Minute  // after a regeneration without proof, and after an adoption
	watchedAge = 10 * time.Second // of a comparison, on watch
	warnedFor  = time.Minute      // after a comparison that failed
)

// facts is what can be seen at a moment: of the tenant, and of the engine by its status.
type facts struct {
	tenant      string // the tenant's key
	posts       int    // that have arrived
	calls       int    // the same with GETs
	version     int
	live        int
	fingerprint string
	intent      bool
	onWatch     bool
	unreadable  bool
	wanted      bool      // an operator wants a new key
	waits       time.Time // by the engine's clock: until when it leaves Graph alone
}

// answer is what a reader got.
type answer struct {
	*reader

	key, created        string
	version             int
	ttl                 time.Duration
	reused, unconfirmed bool
}

// holder is a lease as core keeps it.
type holder struct {
	secret  *logical.Secret
	key     string
	version int
	ends    time.Time // by the clock of the nodes, like core's
	revoked bool
	lost    bool // core has lost it
	tried   bool // a revocation failed, so the record may be gone
	void    bool // the tenant has been left
}

// model is what anybody could know who has watched everything, but for what is going on
// inside the engine.
type model struct {
	disclosed map[string]time.Time // each key that a reader has got, and the first time
	given     map[string]int       // the same with the step
	keys      map[int]string       // by version
	versions  map[string]int       // by key, since the record was last begun anew
	leases    []*holder
	// unsure is until when there may be a lease that nobody knows of, by the nodes' clock:
	// its reader left, or the process was killed before it answered.
	unsure    time.Time
	abandoned map[string]bool // keys that live on, as was said when their tenant was left
	frail     map[int]bool    // the steps after which the engine may not know what it learned: it was killed, its storage struck, or the tenant left

	anew     int // when the record was last begun anew, in the order of things
	anewAt   time.Time
	wanted   int       // when an operator began to want a new key, in the order of things; 0: none does
	replaced time.Time // when the tenant's key was last replaced, or before
	jumped   time.Time // when the clock last did
	lastKill int       // when the process last was, in the order of things
	// shaken is when the process was last killed, or its storage struck, or the engine turned
	// away from the workspace: what Graph said until then may be lost.
	shaken time.Time
}

func newModel() model {
	return model{disclosed: map[string]time.Time{}, given: map[string]int{}, versions: map[string]int{}, keys: map[int]string{}, abandoned: map[string]bool{}, frail: map[int]bool{}}
}

// observe looks at the tenant and at the engine, whose status never fails.
func (h *history) observe() facts {
	resp, err := h.request(h.t.Context(), logical.ReadOperation, statusPath, nil)
	require.NoError(h.t, err, "status")
	posts, gets := h.sim.Calls(graphtest.Regenerate), h.sim.Calls(graphtest.Get)
	text := func(field string) string { s, _ := resp.Data[field].(string); return s }
	f := facts{
		tenant: h.sim.Key(), posts: posts.Started, calls: posts.Started + gets.Started,
		version: resp.Data[fieldKeyVersion].(int), live: resp.Data[fieldLiveLeases].(int), fingerprint: text(fieldFingerprint),
		intent: resp.Data[fieldIntentPending].(bool), onWatch: resp.Data["on_watch"].(bool),
	}
	_, f.unreadable = resp.Data["unreadable"]
	_, f.wanted = resp.Data["wanted_since"]
	for _, field := range []string{fieldThrottledUntil, fieldNextAttempt} {
		if until, err := time.Parse(time.RFC3339, text(field)); err == nil && until.After(f.waits) {
			f.waits = until
		}
	}
	return f
}

// counts counts what has gone wrong at Graph.
func (h *history) counts(o *course) {
	posts, words, denials := h.notes.of(h.tenant)
	here := func(step int) bool { return step == o.stepOf }
	if _, struck := lastOf(posts, func(p regeneration) bool { return here(p.step) }); struck && o.step.Trouble.post.name != "" {
		h.count(o.step.Trouble.post.name)
	}
	if _, stale := lastOf(words, func(w word) bool { return here(w.step) && w.stale }); stale {
		h.count(staleGET)
	}
	if _, denied := lastOf(denials, func(d denial) bool { return here(d.step) }); denied {
		h.count(deniedGET)
	}
}

// learn draws the consequences of a step for what is known.
func (h *history) learn(o *course) {
	if o.before.unreadable || o.after.unreadable || o.killed && o.struck {
		h.beginAnew()
	}
	h.counts(o)
	h.pendingLook = h.pendingLook || o.livingEnded && (o.step.What == group || o.step.What == race)
	if o.after.tenant != o.before.tenant {
		h.replaced = o.began
	}
	if o.killed || o.struck || o.step.What == deletion || o.step.What == turning {
		h.frail[o.stepOf], h.shaken = true, h.now()
	}
	for _, l := range h.leases { // a clock that is put back revives no record
		l.tried = l.tried || !l.revoked && !l.ends.Add(lease.Grace).After(h.clock.now())
	}
	leftEarly := slices.ContainsFunc(o.readers, func(r *reader) bool { return r.left && r.err != nil })
	if o.killed || o.struck || !ledgerForgets && leftEarly {
		h.mayLeaveLeases()
	}
}

// mayLeaveLeases takes note that there may be leases from now that nobody knows of.
func (h *history) mayLeaveLeases() {
	if until := h.clock.now().Add(config.DefaultTTL + lease.Grace + lease.PageSpan); until.After(h.unsure) {
		h.unsure = until
	}
}

// beginAnew takes note that the engine may have forgotten everything about the key.
func (h *history) beginAnew() {
	h.versions, h.anew, h.anewAt = map[string]int{}, h.notes.mark(), h.now()
}

// learnOfLeaving takes note that the tenant was left: its leases protect nothing, and what
// could not be retired was said.
func (h *history) learnOfLeaving(o *course) {
	h.wanted = 0
	h.beginAnew()
	for _, l := range h.leases {
		l.void = true
	}
	if _, given := h.disclosed[o.left.sim.Key()]; given && !o.turned {
		h.abandoned[o.left.sim.Key()] = true
	}
}

func (h *history) isDisclosed(key string) bool {
	_, given := h.disclosed[key]
	return given && !h.abandoned[key]
}

// isNamed reports whether the engine knows that Graph has named a key.
func (h *history) isNamed(key string) bool {
	_, words, _ := h.notes.of(h.tenant)
	return slices.ContainsFunc(words, func(w word) bool { return w.key == key && h.heard(w) && w.order > h.anew })
}

// isSuperseded reports whether the engine knows that a key is dead.
func (h *history) isSuperseded(key string) bool {
	posts, words, _ := h.notes.of(h.tenant)
	return slices.ContainsFunc(posts, func(p regeneration) bool {
		return p.key != "" && p.key != key && !h.frail[p.step] &&
			slices.ContainsFunc(words, func(w word) bool { return w.key == key && w.step < p.step && h.heard(w) })
	})
}

// judge checks what must be true after each step, whatever it was.
func (h *history) judge(o *course) {
	h.demand(o.stuck == nil || o.struck || o.step.Slow, "a revocation failed: %v", o.stuck)
	for _, a := range o.answers {
		h.judgeAnswer(o, a)
	}
	for _, a := range o.answers {
		if _, known := h.disclosed[a.key]; !known {
			h.disclosed[a.key], h.given[a.key] = h.now(), o.stepOf
		}
	}
	for _, r := range o.readers {
		h.judgeRefusal(o, r)
	}
	if o.left != nil {
		h.learnOfLeaving(o)
	}
	h.judgeRegenerations(o)
	h.judgeOperator(o)
	h.judgeLedger(o)
	if o.turned {
		h.demand(!h.isDisclosed(o.left.sim.Key()), "the tenant was left, and a key works that was handed out")
	}
}

// judgeAnswer checks what one reader got.
func (h *history) judgeAnswer(o *course, a answer) {
	if o.left != nil {
		return // whatever it was, it must be dead: see judge
	}
	posts, words, denials := h.notes.of(h.tenant)
	named, found := lastOf(words, func(w word) bool { return w.key == a.key })
	h.demand(found, "version %d is a key that the tenant has never named", a.version)
	if known, found := h.keys[a.version]; found {
		h.demand(known == a.key, "version %d was two keys", a.version)
	}
	h.keys[a.version] = a.key
	if other, found := h.versions[a.key]; found {
		h.demand(other == a.version, "a key is version %d and %d", other, a.version)
	}
	h.versions[a.key] = a.version
	h.judgeNewness(o, a, posts)
	for _, p := range posts {
		if !p.unproven() || p.order > a.since && !o.alone {
			continue
		}
		h.demand(a.ttl <= shortLease || !p.at.After(h.now().Add(-watchLasts)), "a full lease on version %d, which a regeneration may still replace", a.version)
		answered := slices.ContainsFunc(words, func(w word) bool { return w.order > p.order })
		h.demand(answered, "version %d was handed out, and Graph has not answered since a regeneration without proof", a.version)
		if named.order < p.order {
			named = word{} // it does not count any longer
		}
	}
	_, adopted := lastOf(words, func(w word) bool { return h.watched(w) && (w.order < a.since || o.alone) })
	h.demand(!adopted || a.ttl <= shortLease || o.rotates, "a full lease on version %d, though a key was adopted", a.version)
	if !h.sim.CanRegister(a.key) && (o.alone || o.before.tenant == o.after.tenant) {
		h.demand(h.mayBeDead(o, a, named, words, denials), "version %d does not work, and is not excused", a.version)
	}
}

// watched reports whether the adoption of a key has put the mount on watch.
func (h *history) watched(w word) bool {
	return w.adopts && w.at.After(h.now().Add(-watchLasts)) && w.at.After(h.shaken) && h.heard(w)
}

// heard reports whether the engine has certainly drawn the consequences of Graph's word.
func (h *history) heard(w word) bool { return !h.frail[w.step] && !w.overtaken }

// mayBeDead reports whether it is excused that a key does not work: it was named in time,
// or Graph was stale, or did not answer.
func (h *history) mayBeDead(o *course, a answer, named word, words []word, denials []denial) bool {
	now := a.at
	_, stale := lastOf(words, func(w word) bool { return w.stale && now.Sub(w.at) <= watchedAge })
	_, denied := lastOf(denials, func(d denial) bool { return now.Sub(d.at) <= warnedFor || h.holds(d, now) })
	if stale || a.unconfirmed && denied {
		return true
	}
	limit := o.config.DriftCheckInterval
	posts, _, _ := h.notes.of(h.tenant)
	before := func(order int) bool { return order < a.since || o.alone } // else the reader may have come first
	if _, own := lastOf(posts, func(p regeneration) bool {
		return p.unproven() && p.at.After(now.Add(-watchLasts)) && before(p.order)
	}); own {
		limit = watchedAge
	}
	if _, adopted := lastOf(words, func(w word) bool { return h.watched(w) && before(w.order) }); adopted {
		limit = watchedAge
	}
	since := named.at
	if h.jumped.After(since) && named.order > 0 {
		since = h.jumped
	}
	return named.order > 0 && (limit == 0 || now.Sub(since) <= limit)
}

// judgeNewness checks that a key is not older than the reader's terms allow, and that who
// wants a new one gets one that was made for a reader.
func (h *history) judgeNewness(o *course, a answer, posts []regeneration) {
	limit := o.config.MaxKeyAge
	if of, isRole := rolesOfHistories[a.path]; isRole {
		limit = of
	}
	made, answered := lastOf(posts, func(p regeneration) bool { return p.key == a.key })
	if limit == accesskey.AnyAge {
		return
	}
	first, given := h.disclosed[a.key]
	if limit == 0 {
		h.demand(answered, "a reader who wanted a new key got version %d, which no regeneration has answered", a.version)
		h.demand(!given || first.After(o.began) || o.before.posts != o.after.posts || made.order > a.since, "a reader who wanted a new key got version %d again", a.version)
		return
	}
	// The age of a key that was made before the record is unknown: it is counted from when
	// Graph named it.
	old := given && h.now().Sub(first) > limit+2*time.Second && h.jumped.Before(first) && h.anewAt.Before(first)
	h.demand(!old, "%s shared version %d, %s old", a.path, a.version, h.now().Sub(first))
}

// judgeRefusal checks that a reader whose terms are met by a key that Graph names gets it.
func (h *history) judgeRefusal(o *course, r *reader) {
	if r.err == nil || r.left || rolesOfHistories[r.path] != accesskey.AnyAge || !strings.HasPrefix(r.path, "key/") ||
		!o.smooth() || o.left != nil || o.before.fingerprint == "" {
		return
	}
	posts, words, denials := h.notes.of(h.tenant)
	_, denied := lastOf(denials, func(d denial) bool {
		return d.step == o.stepOf || !d.at.Before(o.began.Add(-watchedAge)) || h.holds(d, o.began)
	})
	h.demand(denied, "a reader was refused though Graph names the key: %v", r.err)
	last, doubt := lastOf(posts, func(p regeneration) bool { return p.unproven() || h.frail[p.step] || p.step == o.stepOf && !o.alone })
	_, settled := lastOf(words, func(w word) bool {
		return w.asked > max(last.order, h.lastKill) && w.order < r.since && h.heard(w)
	})
	h.demand((doubt || h.lastKill > 0) && !settled, "a reader was refused though no regeneration is in doubt: %v", r.err)
}

// holds reports whether the engine may leave Graph alone at a time because of a denial. A
// clock that was put back by little makes that longer, and a clock that was put back comes to
// the same time again.
func (h *history) holds(d denial, at time.Time) bool {
	until, again := d.at.Add(d.wait), d.clock.Add(-h.ahead)
	if !h.jumped.Before(d.at) && !h.jumped.IsZero() {
		until = until.Add(time.Minute)
	}
	return !at.After(until) || !at.Before(again) && !at.After(again.Add(d.wait))
}

// judgeRegenerations checks how often and why Graph was asked for a new key.
func (h *history) judgeRegenerations(o *course) {
	posts, _, _ := h.notes.of(h.tenant)
	posts = slices.DeleteFunc(posts, func(p regeneration) bool { return p.step != o.stepOf })
	hurried := o.rotates || o.left != nil || o.step.What == calm || o.step.What == ticking && (h.wanted > 0 || o.before.wanted)
	for _, p := range posts {
		h.demand(!p.hasty || hurried, "two regenerations were less than a second apart")
	}
	if o.alone && o.step.Paths[0] == "key/any" {
		h.demand(len(posts) == 0 || o.before.intent || o.before.fingerprint == "" || o.before.unreadable, "a shared read regenerated the key")
	}
	if o.step.What == group && o.met && !o.killed && !o.rotates {
		h.demand(len(posts) <= 1 || o.step.Trouble.post.name != "" || o.step.Meanwhile != "" || o.step.Leave > 0 || h.outage.name != "" || o.portal,
			"readers who overlapped cost %d regenerations", len(posts))
	}
	unattended := slices.Contains([]occurrence{revocation, second, passing, ticking, look, race, configuring}, o.step.What)
	if !unattended || o.portal || len(posts) == 0 || h.wanted > 0 || o.before.wanted {
		return
	}
	_, words, _ := h.notes.of(h.tenant)
	if _, stale := lastOf(words, func(w word) bool { return w.stale && h.now().Sub(w.at) <= watchedAge }); stale {
		return // who believes Graph retires a key that nobody holds, and so kills the one that is held
	}
	now := h.storedConfig()
	pausedThen := o.config.DisableRotation || !o.config.RegenerateOnRevoke
	pausedNow := now.DisableRotation || !now.RegenerateOnRevoke
	reads := o.step.What == race && (o.before.intent || o.before.fingerprint == "")
	h.demand(reads || !pausedThen || !pausedNow, "a key was retired though that is paused")
	for _, l := range h.leases {
		held := !l.revoked && !l.lost && !l.tried && !l.void && l.ends.After(h.clock.now())
		h.demand(reads || !held || l.key != o.before.tenant || o.after.tenant == l.key, "a key was retired that a host holds: version %d", l.version)
	}
}

// judgeOperator checks that rotate-key kills what was known before, also if that takes
// longer than its request.
func (h *history) judgeOperator(o *course) {
	posts, _, _ := h.notes.of(h.tenant)
	since := func(order int) bool {
		_, done := lastOf(posts, func(p regeneration) bool { return p.order > order && p.key != "" })
		return done
	}
	if o.rotates {
		switch err := o.rotated.err; {
		case err == nil: // later calls join an earlier one whose answer the engine has not read
			_, answered := lastOf(posts, func(p regeneration) bool { return p.key != "" && (p.settled > o.rotated.since || p.step == o.stepOf) })
			h.demand(since(o.rotated.since) || (h.wanted > 0 || o.before.wanted) && answered, "rotate-key was acknowledged, and no regeneration that began after it was answered")
			step, given := h.given[h.sim.Key()]
			h.demand(!given || step == o.stepOf, "rotate-key was acknowledged, and a key works that was handed out before")
			h.wanted = 0
		case o.smooth() && !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "context deadline") && !strings.Contains(err.Error(), "not configured"):
			h.wanted = o.rotated.since
		}
	}
	if h.wanted > 0 && since(h.wanted) && !o.killed && !o.struck {
		h.wanted = 0
	}
	_, failed := lastOf(posts, func(p regeneration) bool { return p.step == o.stepOf && p.key == "" })
	if o.step.What == ticking && o.smooth() && !failed {
		h.demand(h.wanted == 0, "an operator wants a new key, and a tick has not made one")
		_, _, denials := h.notes.of(h.tenant)
		_, denied := lastOf(denials, func(d denial) bool { return d.step == o.stepOf || h.holds(d, o.began) })
		h.demand(denied || !o.after.intent || !o.before.onWatch && !o.before.intent, "a healthy tick has left a doubt")
	}
}

// judgeLedger compares what the engine knows of leases with what core knows.
func (h *history) judgeLedger(o *course) {
	if o.after.unreadable || o.left != nil {
		return
	}
	certain, possible := h.live(o.after.version)
	h.demand(o.after.live >= certain, "the engine knows of %d leases on version %d, core of %d", o.after.live, o.after.version, certain)
	sure := h.unsure.Before(h.clock.now())
	if sure && o.after.live > possible { // a removal may not have been stored yet
		time.Sleep(20 * time.Millisecond)
		o.after = h.observe()
		h.demand(o.after.live <= possible, "the engine knows of %d leases on version %d, core of %d", o.after.live, o.after.version, possible)
	}
	if o.step.What == ticking && o.smooth() {
		h.judgePages()
	}
}

// live returns how many leases on a version have a record for certain, and how many may
// have one.
func (h *history) live(version int) (certain, possible int) {
	now := h.clock.now()
	for _, l := range h.leases {
		forgotten := l.ends.Add(lease.Grace)
		switch {
		case l.version != version || l.revoked || !forgotten.Add(lease.PageSpan).After(now):
		case l.tried || l.void || !forgotten.After(now):
			possible++
		default:
			certain++
		}
	}
	return certain, certain + possible
}

// judgePages checks that no page is left whose leases have ended.
func (h *history) judgePages() {
	keys, err := logical.CollectKeysWithPrefix(h.t.Context(), h.kept, lease.Prefix)
	require.NoError(h.t, err)
	for _, key := range keys {
		_, page, _ := strings.Cut(strings.TrimPrefix(key, lease.Prefix), "/")
		end, _, _ := strings.Cut(page, "-")
		seconds, err := strconv.ParseInt(end, 10, 64)
		require.NoError(h.t, err)
		h.demand(seconds > h.clock.now().Unix(), "a record has not been pruned: %s", key)
	}
}

func (h *history) demand(holds bool, format string, args ...any) {
	h.t.Helper()
	if !holds {
		h.t.Fatalf("after %s: %s", h.latest, fmt.Sprintf(format, args...))
	}
}
