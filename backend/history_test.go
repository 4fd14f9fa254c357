// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Thousands of random histories of a mount, with the design's promises checked after each
// step and, once more, when everybody has left. A history that breaks one is reduced to
// the steps that matter. Useful flags:
//
//	go test ./backend -run TestHistories -rapid.checks=1000  for more of them
//	go test ./backend -run TestHistories -rapid.seed=N       for those of a run
//
// The worlds are side by side, since a history waits now and then.
func TestHistories(t *testing.T) {
	besideOthers(t)
	defer fewer(t)()
	all := &tally{seen: map[string]int{}}
	var (
		side   sync.WaitGroup
		failed atomic.Bool
	)
	for n := range 20 { // with rapid.checks histories each
		side.Go(func() {
			t.Run(fmt.Sprint("world ", n), func(t *testing.T) {
				w := newWorld(t)
				defer func() { failed.Store(failed.Load() || t.Failed()) }()
				rapid.Check(t, func(t *rapid.T) {
					if !failed.Load() { // another world's failure is enough
						w.live(t, all)
					}
				})
			})
		})
	}
	side.Wait()
	oneIn := 100 // each event happens 200 times in 20,000 steps
	if all.steps < 20_000 {
		oneIn = 300 // chance weighs more
	}
	text, missing := all.report(oneIn)
	t.Log(text)
	if !t.Failed() && all.steps > 2000 {
		require.Empty(t, missing, "events that were too rare: the histories have to be drawn in another way")
	}
}

// fewer makes histories fewer than rapid does by default, unless a flag says how many, until
// the function that it returns is called.
func fewer(t *testing.T) (end func()) {
	const name = "rapid.checks"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return func() {}
	}
	before := flag.Lookup(name).Value.String()
	require.NoError(t, flag.Set(name, "6"))
	return func() { require.NoError(t, flag.Set(name, before)) }
}

// live plays one history.
func (w *world) live(t *rapid.T, all *tally) {
	// In spells, since rapid's lists have some five elements more than they must.
	steps := slices.Concat(rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(drawStep), 1, 10), 1, 8).Draw(t, "history")...)
	farewell := rapid.Bool().Draw(t, "farewell")
	h := &history{mount: w.mount(t), model: newModel(), tally: all}
	defer h.depart()
	h.seen = h.observe()
	for _, s := range steps {
		h.makeRoom(s)
		h.play(s)
	}
	h.makeRoom(happening{What: calm})
	h.play(happening{What: calm})
	if farewell {
		h.unmount()
	}
	for _, tn := range []*tenant{w.home, w.away} {
		for _, secret := range tn.sim.Issued() {
			h.demand(!strings.Contains(w.log.String(), secret), "there is a secret in the log")
		}
	}
}

// depart leaves the world in order, also if the history has failed.
func (h *history) depart() {
	h.engine.Cleanup(h.t.Context())
	both := []*tenant{h.world.home, h.world.away}
	for first := true; first || h.notes.pending() > 0; first = false {
		for _, tn := range both {
			tn.sim.Clear()
		}
		time.Sleep(50 * time.Microsecond)
	}
	for _, tn := range both {
		tn.sim.Update(graphtest.WithStaleReads(0))
	}
}

// history is a mount and what is known of it so far.
type history struct {
	*mount
	model
	*tally

	seen   facts  // after the latest step
	latest string // the latest step, for messages
	hung   *hung
	outage outageOf
	// pendingLook: the engine has been told to look for a key to retire, and has not.
	pendingLook bool
}

// course is what came of a step.
type course struct {
	step          happening
	stepOf        int       // its number
	began         time.Time // by the true time
	before, after facts
	config        *config.Config // at the beginning

	readers []*reader
	answers []answer
	took    time.Duration // for the only reader
	alone   bool          // there was one, and nothing else
	met     bool          // all readers waited for the same regeneration

	rotates bool // there is an operator, and this came of it
	rotated reader
	beside  sync.WaitGroup

	killed, struck bool    // the process was, or its storage
	cutOff         bool    // the former during a regeneration
	portal         bool    // the key was replaced there
	left           *tenant // which the step turned away from
	turned         bool    // it did, and nothing was said of a key that lives on
	stuck          error   // of a revocation
	livingEnded    bool    // a lease ended whose key may be alive
}

// smooth reports whether the engine had nothing to suffer from but Graph.
func (o *course) smooth() bool {
	return !o.killed && !o.struck && !o.step.Slow && !o.before.unreadable && !o.after.unreadable
}

// makeRoom ends what cannot be beside a step.
func (h *history) makeRoom(s happening) {
	if h.hung != nil {
		h.hung.steps--
	}
	landed := func(p regeneration) bool { return !p.open || p.at.Add(latestLanding).After(h.now().Add(h.lasts(s))) }
	posts, _, _ := h.notes.of(h.tenant)
	late := slices.ContainsFunc(posts, func(p regeneration) bool { return !landed(p) })
	if late || h.hung != nil && (h.hung.steps < 0 || !slices.Contains(besideHanging, s.What)) {
		h.play(happening{What: arrival})
	}
}

// latestLanding is how long a regeneration can be on its way, and latestStale how long
// Graph can name the key before: together less than a watch lasts.
const (
	latestLanding = 40 * time.Second
	latestStale   = time.Minute
)

// lasts returns how long a step may last.
func (h *history) lasts(s happening) time.Duration {
	switch s.What {
	case passing:
		return s.pause()
	case rotating, calm, deletion, turning, damage, recovery:
		return time.Hour
	case reading, group, hanging:
		return 6 * time.Second
	default:
		return 2 * time.Second
	}
}

// play lets a step happen and checks what came of it.
func (h *history) play(s happening) {
	h.latest = s.String()
	h.played()
	posts, _, _ := h.notes.of(h.tenant)
	held := slices.ContainsFunc(posts, func(p regeneration) bool { return p.open })
	if held || h.outage.name != "" {
		s.Trouble.post, s.Trouble.get = disturbance{}, disturbance{} // which could not be told from the rest at the end
	}
	if s.What == calm {
		s.Trouble, s.Disk, s.Slow = trouble{}, nil, false
	}
	if h.hung != nil && s.What != arrival {
		s.Paths = []string{"key/any"} // who wants a new key would wait for it
	}
	o := &course{step: s, stepOf: h.notes.next(), began: h.now(), before: h.seen, config: h.storedConfig()}
	h.arm(o)
	h.carryOut(o)
	h.survive(o)
	h.rest()
	o.beside.Wait()
	h.rest()
	h.disarm(o)
	o.after = h.observe()
	h.t.Logf("%s: %s", s, o.summary())
	h.learn(o)
	h.judge(o)
	h.seen = o.after
}

func (o *course) summary() string {
	text := fmt.Sprintf("version %d, watch %t, doubt %t", o.after.version, o.after.onWatch, o.after.intent)
	for _, a := range o.answers {
		text += fmt.Sprintf("; %s got version %d for %s", a.path, a.version, a.ttl)
	}
	for _, r := range o.readers {
		if r.err != nil {
			text += fmt.Sprintf("; %s: %.60s", r.path, r.err)
		}
	}
	return text
}

func (h *history) carryOut(o *course) {
	if o.step.What != configuring && o.step.What != reading && o.step.What != jump {
		h.count(string(o.step.What))
	}
	switch o.step.What {
	case reading:
		h.readOne(o)
	case group:
		h.readTogether(o)
	case race:
		h.readWhileTheLastLeaseEnds(o)
	case hanging:
		h.hang(o)
	case revocation:
		h.revokeOne(o)
		h.follow(o)
	case second:
		h.conclude(o, func(l *holder) bool { return l.revoked })
		h.follow(o)
	case passing:
		h.pass(o, o.step.pause())
		h.follow(o)
	case rotating:
		h.rotate(o)
	case ticking:
		h.tick()
	case look:
		h.look()
		h.pendingLook = false
	case configuring:
		h.configure(o)
		h.follow(o)
	default:
		h.befall(o)
	}
}

// befall lets happen what nobody asks the engine for.
func (h *history) befall(o *course) {
	switch o.step.What {
	case crash, jump:
		h.kill(o)
	case deletion, turning:
		h.leaveTenant(o)
	case damage:
		h.damageEntry(o)
	case portal:
		h.replaceInPortal(o)
	case arrival:
		h.goOn(o)
	case outage:
		h.outage = o.step.outage()
		h.count(h.outage.name)
		h.goOn(o)
	case recovery:
		h.outage = outageOf{}
		h.goOn(o)
	case calm:
		h.everybodyLeaves(o)
	}
}

// arm sets up what is to go wrong in a step.
func (h *history) arm(o *course) {
	if !h.isNamed(h.sim.Key()) { // an answer with it could not be told from a good one
		if tr := &o.step.Trouble; tr.post.name == oldKey {
			tr.post = disturbance{}
		}
		if h.outage.fault.Body == graphtest.BodyOldKey {
			h.outage = outageOf{}
			h.clear()
		}
	}
	slow := time.Duration(0)
	if o.step.Slow {
		slow = 200 * time.Microsecond
		h.count(slowStorage)
	}
	var fault *diskFault
	if o.step.Disk != nil {
		copied := *o.step.Disk
		fault = &copied
	}
	h.disk.arm(fault, slow)
	tr := o.step.Trouble
	if tr.stale && h.now().Sub(h.replaced) > latestStale && o.step.Pick%2 == 0 && h.hung == nil {
		h.count(string(portal))
		h.replaceInPortal(o)
		h.replaced = h.now()
	}
	if tr.stale && h.now().Sub(h.replaced) < latestStale-h.lasts(o.step) {
		h.sim.Update(graphtest.WithStaleReads(2))
	}
	if tr.post.name != "" && o.step.What != group && o.step.What != hanging {
		h.sim.Inject(tr.post.Fault)
	}
	if tr.get.name != "" {
		h.sim.Inject(tr.get.Fault)
	}
}

// survive ends the process if the step did, and the fault of its storage.
func (h *history) survive(o *course) {
	if h.disk.hasStruck() && !o.struck {
		o.struck = true
		if f := o.step.Disk; f.Op == "put" || f.Op == "delete" {
			h.count(map[bool]string{true: writeLied, false: writeFailed}[f.Done])
		}
	}
	h.disk.arm(nil, 0)
	if h.disk.crashed() {
		h.count(crashWrite)
		h.kill(o)
	}
}

// disarm removes what did not happen. A request that is on its way stays there.
func (h *history) disarm(o *course) {
	if o.step.Trouble.stale {
		h.world.home.sim.Update(graphtest.WithStaleReads(0))
		h.world.away.sim.Update(graphtest.WithStaleReads(0))
	}
	for range 100 { // the simulator may not have finished what it has answered
		if h.hung != nil || h.notes.pending() == 0 {
			break
		}
		time.Sleep(50 * time.Microsecond)
	}
	if h.hung == nil && h.notes.pending() == 0 {
		h.clear()
	}
}

// everybodyLeaves lets all leases end while Graph answers, and demands that no key works
// five seconds later that a reader has ever got.
func (h *history) everybodyLeaves(o *course) {
	h.outage = outageOf{}
	h.goOn(o)
	if o.before.unreadable {
		_, err := h.request(h.t.Context(), logical.UpdateOperation, rotateKeyPath, nil)
		h.demand(err == nil, "rotate-key does not heal the record: %v", err)
	}
	require.NoError(h.t, h.write(map[string]any{fieldDisableAutomatedRotation: false, config.FieldRegenerateOnRevoke: true}))
	h.clock.advance(max(time.Minute, h.observe().waits.Sub(h.clock.now())+time.Second))
	h.tick() // the engine sees that Graph is back
	h.look() // which the write has asked for; from now on only revocations do
	h.untilAll(o)
	h.look()
	h.clock.advance(5 * time.Second)
	h.demand(!h.isDisclosed(h.sim.Key()), "nobody has a lease, and a key works that was handed out")
	h.pendingLook = false
}

// unmount lets the mount go away.
func (h *history) unmount() {
	h.count(unmounted)
	require.NoError(h.t, h.write(map[string]any{config.FieldDriftCheckInterval: 600}))
	h.clock.advance(10 * time.Minute) // what was done in the portal is noticed
	r := h.read(h.t.Context(), "key/any", 0)
	h.demand(r.err == nil, "after all is well, a read failed: %v", r.err)
	h.demand(h.sim.CanRegister(keyIn(r.resp)), "after all is well, version %v does not work", r.resp.Data[fieldKeyVersion])
	h.latest = "the unmount"
	h.system.TaintedVal = true
	h.tick()
	h.demand(!h.sim.CanRegister(keyIn(r.resp)) && !h.isDisclosed(h.sim.Key()), "a key works that was handed out")
	_, err := h.ask(h.t.Context(), "key/any")
	h.demand(err != nil, "a key is handed out")
}
