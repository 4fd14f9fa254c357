// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

// facts is what can be seen at a moment: of the tenant, and of the engine by its
// status.
type facts struct {
	restrained                  bool   // it waits before it calls Graph again
	tenant                      string // the tenant's key
	posts, postsDone            int    // calls that arrived, and that were carried out
	gets, getsDone              int
	version, live               int
	disclosed, intent           bool
	cause, fingerprint, created string
	intentAt                    string
}

// holder is a lease as core keeps it.
type holder struct {
	secret    *logical.Secret
	version   int
	ends      time.Time // for core
	forgotten time.Time // for the engine at the latest
	revoked   bool
	lost      bool // core has lost it
	tried     bool // a revocation failed, so the record may be gone
}

// doubt is a regeneration of which the engine cannot know whether it was carried
// out, because its answer was lost or the process died.
type doubt struct {
	key   string // the tenant's before, as the engine knew it
	since time.Time
}

// open tells whether the request may still be on its way.
func (d *doubt) open(now time.Time) bool { return now.Before(d.since.Add(flight.Budget)) }

// model is what anybody could know who has watched everything, but for what is
// going on inside the engine.
type model struct {
	disclosed map[string]int // each key that has ever been returned, with its version
	keys      map[int]string // the same the other way round
	prints    map[int]string // fingerprints by version
	born      map[int]time.Time
	leases    []*holder
	// unsure tells until when a version may have leases that nobody knows of: their
	// readers got an error, or hung up.
	unsure map[int]time.Time

	previous string // the tenant's key before the current one; "" if not known
	// surprised: the tenant's key has been changed by somebody else, or by a request
	// that arrived late, and Graph has told the engine nothing since.
	surprised  bool
	restrained time.Time // when the engine was last seen to wait before it calls Graph
	told       time.Time // when Graph last named a key, be it one that it lags behind with
	denied     time.Time // when Graph last refused to name one
	doubt      *doubt
	late       bool // a request is still on its way
	outage     bool // of Graph
}

func newModel() model {
	return model{
		disclosed: map[string]int{}, keys: map[int]string{}, prints: map[int]string{},
		born: map[int]time.Time{}, unsure: map[int]time.Time{},
	}
}

// observe looks at the tenant and at the engine, whose status never fails.
func (h *history) observe() facts {
	resp, err := h.request(h.t.Context(), logical.ReadOperation, statusPath, nil)
	require.NoError(h.t, err, "status")
	posts, gets := h.sim.Calls(graphtest.Regenerate), h.sim.Calls(graphtest.Get)
	text := func(field string) string { s, _ := resp.Data[field].(string); return s }
	later := func(field string) bool {
		until, err := time.Parse(time.RFC3339, text(field))
		return err == nil && !until.Before(h.clock.now().Truncate(time.Second))
	}
	return facts{
		restrained: later(fieldThrottledUntil) || later(fieldNextAttempt),

		tenant: h.sim.Key(),
		posts:  posts.Started, postsDone: posts.Performed,
		gets: gets.Started, getsDone: gets.Performed,
		version:     resp.Data[fieldKeyVersion].(int),
		live:        resp.Data[fieldLiveLeases].(int),
		disclosed:   resp.Data[fieldDisclosed].(bool),
		intent:      resp.Data[fieldIntentPending].(bool),
		cause:       text(fieldCause),
		fingerprint: text(fieldFingerprint),
		created:     text(fieldRegeneratedAt),
		intentAt:    text(fieldIntentStartedAt),
	}
}

// learn draws the consequences of a step for what the engine can know.
func (h *history) learn(o *course) {
	now, posts := h.clock.now(), o.after.posts-o.before.posts
	if o.before.restrained || o.after.restrained {
		h.restrained = now
	}
	if o.after.tenant != o.before.tenant {
		h.previous = o.before.tenant
	}
	delivered := o.performed() > 0 && !o.cutOff && (!o.step.Trouble.failsPost() || posts > 1)
	named := o.after.getsDone - o.before.getsDone
	if o.step.Trouble.stale {
		named--
	}
	if delivered || o.after.getsDone > o.before.getsDone {
		h.told = now
	}
	if o.after.gets-o.before.gets > o.after.getsDone-o.before.getsDone {
		h.denied = now
	}
	if posts > 0 && !delivered && (o.cutOff || o.step.Trouble.ambiguous) {
		h.doubt = &doubt{since: now}
		if !h.surprised {
			h.doubt.key = o.before.tenant
		} // else any key that Graph names looks like the one that came of it
	}
	// Right after a regeneration the engine does not believe Graph, unless it has to;
	// and what it cannot store it does not know later.
	believed := !o.struck && (o.before.intent || h.doubt != nil || now.Sub(h.born[o.before.version]) >= accesskey.ShortTTL)
	if delivered || named > 0 && believed {
		h.surprised = false
		if d := h.doubt; d != nil && (d.key != o.after.tenant || !d.open(now)) {
			h.doubt = nil
		}
	}
	if o.after.version > o.before.version {
		h.doubt = nil
	}
	if o.errors > 0 || o.cutOff || o.hungUp {
		for v := o.before.version; v <= o.after.version; v++ {
			h.unsure[v] = now.Add(config.DefaultTTL + lease.Grace + lease.PageSpan)
		}
	}
}

// live returns how many leases on a version have a record for certain, and how many
// may have one.
func (h *history) live(version int) (certain, possible int) {
	now := h.clock.now()
	for _, l := range h.leases {
		switch {
		case l.version != version || l.revoked || !l.forgotten.Add(lease.PageSpan).After(now):
		case l.tried || !l.forgotten.After(now):
			possible++
		default:
			certain++
		}
	}
	return certain, certain + possible
}

// isUnsure tells whether a version may have leases that nobody knows of.
func (h *history) isUnsure(version int) bool {
	return h.unsure[version].After(h.clock.now())
}

// knows tells whether the engine has ever taken a key for the tenant's.
func (h *history) knows(key string) bool {
	entry, err := h.kept.Get(h.t.Context(), accesskey.StorageKey)
	require.NoError(h.t, err)
	rec := &accesskey.Record{}
	if entry == nil || key == "" {
		return false
	}
	require.NoError(h.t, entry.DecodeJSON(rec))
	mac := func(key string) []byte { // not by the record's own judgement, which is being tested
		h := hmac.New(sha256.New, rec.Salt)
		h.Write([]byte(key))
		return h.Sum(nil)
	}
	known := append(slices.Clone(rec.Superseded), mac(rec.Key))
	return slices.ContainsFunc(known, func(old []byte) bool { return bytes.Equal(mac(key), old) })
}

// judge checks what must be true after each step, whatever it was.
func (h *history) judge(o *course) {
	h.demand(o.stuck == nil || o.struck, "a revocation failed: %v", o.stuck)
	h.judgeVersions(o)
	for _, a := range o.answers {
		h.judgeAnswer(o, a)
	}
	for _, a := range o.answers {
		h.disclosed[a.key], h.keys[a.version] = a.version, a.key
	}
	h.judgeLedger(o)
	h.judgeRequests(o)
	h.judgeCoverage(o)
}

func (h *history) judgeVersions(o *course) {
	v := o.after.version
	h.demand(v >= o.before.version, "the version went back from %d to %d", o.before.version, v)
	if known, found := h.prints[v]; found {
		h.demand(known == o.after.fingerprint, "version %d stands for two keys", v)
		return
	}
	h.demand(o.after.fingerprint == "" || !slices.Contains(slices.Collect(maps.Values(h.prints)), o.after.fingerprint),
		"a key has two versions, one of them %d", v)
	h.prints[v], h.born[v] = o.after.fingerprint, h.clock.now()
}

// judgeLedger compares what the engine knows of leases with what core knows.
func (h *history) judgeLedger(o *course) {
	v := o.after.version
	certain, possible := h.live(v)
	h.demand(o.after.live >= certain, "the engine knows of %d leases on version %d, core of %d", o.after.live, v, certain)
	if h.isUnsure(v) {
		return
	}
	h.demand(o.after.live <= possible, "the engine knows of %d leases on version %d, core of %d", o.after.live, v, possible)
	_, returned := h.keys[v]
	if _, ever := h.unsure[v]; returned || !ever {
		h.demand(o.after.disclosed == returned || v == 0, "disclosed is %t of version %d", o.after.disclosed, v)
	}
}

// judgeRequests checks that nothing is regenerated without need.
func (h *history) judgeRequests(o *course) {
	h.demand(o.performed() <= 1 || o.scattered, "the key was regenerated %d times", o.performed())
	posts, calls := o.after.posts-o.before.posts, o.after.posts+o.after.gets-o.before.posts-o.before.gets
	if d := o.doubt; d != nil && d.key == o.before.tenant && d.open(h.clock.now()) {
		h.demand(posts == 0, "a regeneration was begun while one may have been on its way")
	}
	if o.asked {
		return
	}
	certain, _ := h.live(o.before.version)
	_, returned := h.keys[o.before.version]
	_, ever := h.unsure[o.before.version]
	if !o.before.intent && (certain > 0 || !o.mayRetire || !returned && !ever) {
		// A tick compares a key that is leased, from time to time, and again if that
		// failed or could not be stored; it regenerates nothing.
		if o.step.What == ticking && o.config.DriftCheckInterval > 0 {
			calls = posts
		}
		h.demand(calls == 0, "Graph was called %d times, %d of them to regenerate, without need; live leases: %d", calls, posts, certain)
	}
}

// judgeCoverage checks, where the engine had the opportunity, that a key that has
// been returned has a lease or is dead, and that nothing is left to be done.
func (h *history) judgeCoverage(o *course) {
	if !o.tended || !o.healthy || !o.settleable(h.clock.now()) {
		return
	}
	if v, returned := h.disclosed[o.after.tenant]; returned && o.mustRetire {
		_, possible := h.live(v)
		h.demand(possible > 0 || h.isUnsure(v), "version %d has been returned, nobody has a lease on it, and it lives", v)
	}
	if o.step.What != ticking {
		return
	}
	h.demand(!o.after.intent, "a healthy tick left an intent from %s", o.after.intentAt)
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

// judgeAnswer checks one answer with a key. What readers who asked at the same time
// got may be replaced already, by each other.
func (h *history) judgeAnswer(o *course, a answer) {
	h.demand(a.version >= o.before.version, "a superseded version, %d, was served", a.version)
	switch before := o.together && o.performed() > 0 && a.reused; {
	case before: // the others' regeneration
	case a.version == o.after.version:
		h.demand(h.sim.CanRegister(a.key) || h.excused(o, a), "version %d does not work", a.version)
	default:
		h.demand(o.together && a.version < o.after.version, "version %d was served while %d is current", a.version, o.after.version)
	}
	if known, found := h.keys[a.version]; found {
		h.demand(known == a.key, "version %d was two keys", a.version)
	}
	if known, found := h.disclosed[a.key]; found {
		h.demand(known == a.version, "a key was served as version %d and %d", known, a.version)
	}
	if born, found := h.born[a.version]; found {
		h.demand(a.created == timestamp(born), "version %d is from %s, not %s", a.version, timestamp(born), a.created)
	}
	h.judgeReuse(o, a)
}

// excused tells whether an answer need not work: somebody else replaced the key, and
// it was not yet time to compare, or Graph could not be asked.
func (h *history) excused(o *course, a answer) bool {
	surprised, told, now := h.surprised, h.told, h.clock.now()
	if o.together { // it may be from before Graph told the others
		surprised, told = o.surprised, o.told
	}
	if !surprised || !a.reused || o.doubt != nil && o.doubt.open(now) {
		return false
	}
	if a.warned {
		return now.Sub(h.denied) < time.Minute || now.Sub(h.restrained) <= time.Minute
	}
	every := o.config.DriftCheckInterval
	return every == 0 || now.Sub(told) < max(every, accesskey.ShortTTL)
}

// judgeReuse checks that an answer says truly whether its key is a shared one, and
// that it could be shared with this reader.
func (h *history) judgeReuse(o *course, a answer) {
	if !a.reused {
		h.demand(a.version > o.before.version, "version %d was there before and is said to be new", a.version)
		return
	}
	// Who waited for a regeneration in order to compare the key calls its result shared,
	// and so may one whom a storage fault kept waiting for the lock meanwhile.
	if faulty := o.together && o.step.Disk != nil; !faulty && o.performed() > 0 && o.step.Trouble.name == "" && !o.scattered && o.step.What != race && a.version == o.after.version && a.version > o.before.version {
		h.demand(false, "version %d is new and said to be shared", a.version)
	}
	age, limit := h.clock.now().Sub(h.born[a.version]), o.config.MaxKeyAge
	if of, isRole := rolesOfHistories[a.path]; isRole {
		limit = of
	}
	_, returned := h.keys[a.version]
	fresh := limit == accesskey.AnyAge || age < limit || a.version > o.before.version
	// One that was made for a reader who is gone may go to the next.
	h.demand(fresh || !returned && age < undeliveredFor, "%s shared version %d, %s old", a.path, a.version, age)
	if limit == accesskey.AnyAge {
		h.demand(o.performed() == 0 || o.together || o.before.intent || o.before.version == 0, "a shared read regenerated the key")
	}
}

func (h *history) demand(holds bool, format string, args ...any) {
	h.t.Helper()
	if !holds {
		h.t.Fatalf("after %s: %s", h.latest, fmt.Sprintf(format, args...))
	}
}
