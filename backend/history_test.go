// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Thousands of random histories of a mount, each of some twenty steps, with the
// design's promises checked after each step and, once more, at the end of days. A
// history that breaks one is reduced to the steps that matter. Useful flags:
//
//	go test ./backend -run TestHistories -rapid.checks=1000  for more of them
//	go test ./backend -run TestHistories -rapid.seed=N       for those of a run
func TestHistories(t *testing.T) {
	worlds := 20 // with rapid.checks histories each, by default 100
	if testing.Short() || raceDetector() {
		worlds = 3
	}
	for n := range worlds {
		t.Run(fmt.Sprint("world ", n), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rapid.Check(t, w.live)
		})
	}
}

// raceDetector tells whether the test has been built with the race detector, under
// which a history takes several times as long.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// live plays one history.
func (w *world) live(t *rapid.T) {
	// In spells, since rapid's lists have some five elements.
	spells := rapid.SliceOf(rapid.SliceOfN(rapid.Custom(drawStep), 1, 8)).Draw(t, "history")
	farewell := rapid.Bool().Draw(t, "farewell")
	secrets := len(w.sim.Issued())
	h := &history{mount: w.mount(t), model: newModel()}
	defer h.depart()
	h.told = h.clock.now()
	h.seen = h.observe()
	for _, s := range slices.Concat(spells...) {
		h.play(s)
	}
	h.end(farewell)
	for _, secret := range append(w.sim.Issued()[secrets:], w.sim.App().ClientSecret) {
		h.demand(!strings.Contains(w.log.String(), secret), "there is a secret in the log")
	}
}

// depart leaves the world in order, also if the history has failed.
func (h *history) depart() {
	h.engine.clean(h.t.Context())
	h.arrive()
	h.sim.Clear()
	h.sim.Update(graphtest.WithStaleReads(0))
}

// history is a mount and what is known of it so far.
type history struct {
	*mount
	model
	seen   facts  // after the latest step
	latest string // the latest step, for messages
}

// answer is what a reader got.
type answer struct {
	path, key, created string
	version            int
	reused, warned     bool
}

// course is what came of a step.
type course struct {
	step          happening
	before, after facts
	doubt         *doubt // at the beginning, like the next two
	surprised     bool
	told          time.Time
	config        *config.Config // at the beginning as well
	mayRetire     bool           // keys were to be retired some of the time
	mustRetire    bool           // keys were to be retired all the time
	answers       []answer
	errors        int   // readers who got none
	asked         bool  // somebody asked for a key, or for the key's end
	together      bool  // readers overlapped
	scattered     bool  // they did not all meet in one regeneration
	tended        bool  // the engine had the opportunity to look after the key
	cutOff        bool  // the process died during a regeneration
	hungUp        bool  // the readers did
	stuck         error // of a revocation
	struck        bool  // storage failed
	healthy       bool  // nothing went wrong
}

func (o *course) performed() int { return o.after.postsDone - o.before.postsDone }

// settleable tells whether nothing keeps the engine from calling Graph and settling an
// intent.
func (o *course) settleable(now time.Time) bool {
	if o.before.restrained || o.after.restrained {
		return false
	}
	if !o.before.intent {
		return true
	}
	since, err := time.Parse(time.RFC3339, o.before.intentAt)
	return err == nil && !now.Before(since.Add(flight.Budget))
}

// play lets a step happen and checks what came of it.
func (h *history) play(s happening) {
	h.latest = s.String()
	if h.behindItsBack(s) {
		h.t.Log(s)
		h.seen = h.observe()
		return
	}
	if h.late || h.outage {
		s.Trouble = trouble{} // what is to be let go at the end could not be told from the rest
	}
	o := &course{
		step: s, before: h.seen, doubt: h.doubt, surprised: h.surprised, told: h.told, config: h.storedConfig(),
		healthy: !h.late && !h.outage && s.Trouble.name == "",
	}
	h.arm(o)
	h.carryOut(o)
	h.survive(o)
	h.land()
	o.after = h.observe()
	h.t.Logf("%s: %d answers, %d refusals, %d regenerations; version %d, intent %t",
		s, len(o.answers), o.errors, o.performed(), o.after.version, o.after.intent)
	was, is := o.config.RegenerateOnRevoke, h.storedConfig().RegenerateOnRevoke
	o.mayRetire, o.mustRetire = was || is, was && is
	h.learn(o)
	h.judge(o)
	h.disarm(o)
	h.seen = o.after
}

func (h *history) carryOut(o *course) {
	switch o.step.What {
	case reading:
		h.read(o)
	case group:
		h.readTogether(o)
	case race:
		h.readWhileTheLastLeaseEnds(o)
	case revocation:
		h.revokeOne(o)
		h.follow(o)
	case second:
		h.conclude(o, func(l *holder) bool { return l.revoked })
		h.follow(o)
	case passing:
		h.pass(o)
		h.follow(o)
	case rotating:
		h.rotate(o)
	case ticking:
		h.tick()
		o.tended = true
	case look:
		o.tended = h.look()
	case crash:
		h.restart()
	case configuring:
		h.configure(o)
		h.follow(o)
	case recreation:
		h.recreate(o)
	}
}

// behindItsBack lets happen what the engine has no part in.
func (h *history) behindItsBack(s happening) bool {
	switch s.What {
	case portal:
		h.sim.RegenerateInPortal()
		h.previous, h.surprised = h.seen.tenant, true
	case arrival:
		h.arrive()
	case outage:
		h.outage = true
		h.sim.Inject(outages[s.Pick%len(outages)])
	case recovery:
		h.arrive()
		h.outage = false
		h.sim.Clear()
	default:
		return false
	}
	return true
}

// arrive lets a late request arrive, and ends outages.
func (h *history) arrive() {
	if !h.late {
		return
	}
	before := h.sim.Calls(graphtest.Regenerate).Performed
	h.sim.Clear()
	require.NoError(h.t, h.sim.Wait(h.t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed > before }))
	h.late, h.outage = false, false
	h.previous, h.surprised = h.seen.tenant, true
}

// arm sets up what is to go wrong in a step.
func (h *history) arm(o *course) {
	if f := o.step.Disk; f != nil {
		fault := *f
		h.disk.arm(&fault)
	}
	tr := &o.step.Trouble
	tr.stale = tr.stale && h.knows(h.seen.tenant) && h.knows(h.previous)
	if o.step.What == group {
		return // sets up its own
	}
	if tr.stale {
		h.sim.Update(graphtest.WithStaleReads(1))
	}
	h.sim.Inject(tr.faults...)
}

// survive ends the process if the step did, and the fault of its storage.
func (h *history) survive(o *course) {
	if h.disk.hasStruck() {
		o.healthy, o.struck = false, true
	}
	h.disk.arm(nil)
	if h.disk.crashed() {
		h.restart()
	}
}

// disarm removes what did not happen. A request that is on its way stays there.
func (h *history) disarm(o *course) {
	if o.step.Trouble.stale {
		h.sim.Update(graphtest.WithStaleReads(0))
	}
	h.late = h.late || o.step.Trouble.late && o.after.posts > o.before.posts
	if !h.late && !h.outage {
		h.sim.Clear()
	}
}

// end lets all leases end, or the mount go away, and demands that no key that was
// ever returned to anybody works then.
func (h *history) end(farewell bool) {
	h.latest = "the end of all leases"
	h.arrive()
	h.sim.Clear()
	require.NoError(h.t, h.write(map[string]any{config.FieldRegenerateOnRevoke: true, config.FieldDriftCheckInterval: 600}))
	h.clock.advance(flight.Budget)
	if farewell {
		h.latest = "the unmount"
		h.system.TaintedVal = true
	} else {
		h.clock.advance(72 * time.Hour)
	}
	h.tick()
	version, returned := h.disclosed[h.sim.Key()]
	h.demand(!returned, "version %d works", version)
	resp, err := h.request(h.t.Context(), logical.ReadOperation, "key/any", nil)
	if farewell {
		h.demand(err != nil, "a key is handed out")
		return
	}
	require.NoError(h.t, err)
	h.demand(h.sim.CanRegister(keyIn(resp)), "version %v does not work", resp.Data[fieldKeyVersion])
}
