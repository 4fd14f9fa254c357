// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const (
	// promptly is how long a host waits for an answer, in real time.
	promptly = 5 * time.Second

	// contradicted is how long a host is answered at most with a key that GET contradicts.
	contradicted = 10 * time.Second

	// heldFor is how long a reader waits at most for a new key when Graph makes keys
	// again, with the second between two POSTs, and heldByThrottle if Graph has asked
	// for more.
	heldFor        = time.Minute + time.Second
	heldByThrottle = 5 * time.Minute
)

// ordeal is a fault that lasts, and those who ask the engine meanwhile.
type ordeal struct {
	*rig
	s     situation
	f     fault
	began time.Time

	asked, ticked, acted time.Time
	served, alive        bool          // what hosts got when they last asked
	without              time.Duration // altogether
	dead, longestDead    time.Duration

	reader time.Duration // when it has got a key that works, after it has begun to ask
	over   time.Duration // how long after the fault that was
	ready  bool          // whether it has got one
	ended  bool          // the fault has, and the reader had none before
	late   bool          // regenerations without an answer have been carried out
}

// endure plays a cell: the fault lasts, hosts ask each second, and a reader of mdi/key as
// well.
func endure(t *testing.T, s situation, f fault) (hosts, reader string) {
	r, _ := s.begin(t)
	o := &ordeal{rig: r, s: s, f: f, began: r.clock.now(), served: true, alive: true}
	o.asked, o.ticked = o.began, o.began
	r.engine.rotation.Sleep = o.sleep
	r.strike(s, f)
	for o.elapsed() < s.last {
		o.act()
		o.askAsReader(o.elapsed() >= s.readerBegins())
		o.askAsHost()
		o.pass()
	}
	o.askAsHost()
	o.end()
	o.isBounded()
	reader = fmt.Sprintf("%d s", int(o.reader.Seconds()))
	if o.ended {
		reader = fmt.Sprintf("fault + %d s", int(o.over.Seconds()))
	}
	return fmt.Sprintf("%d/%d", int(o.without.Seconds()), int(o.longestDead.Seconds())), reader
}

// readerBegins is when the reader begins to ask. Until then, hosts are alone with what
// the situation is about.
func (s situation) readerBegins() time.Duration {
	if s.reads {
		return 0
	}
	return s.last / 2
}

// insistsEach is how often an operator asks again who has been refused.
const insistsEach = 60 * time.Second

func (o *ordeal) hanging() bool { return o.s.hangs(o.f) && !o.ended }

func (o *ordeal) elapsed() time.Duration { return o.clock.now().Sub(o.began) }

// act does what the situation is about, once or again and again.
func (o *ordeal) act() {
	now := o.clock.now()
	if o.s.reads || !o.acted.IsZero() && (!o.s.insists || now.Sub(o.acted) < insistsEach) {
		return
	}
	o.acted = now
	ctx, leave := o.patiently(o.hanging())
	defer leave()
	_, _ = o.s.act(ctx, o.rig)
}

// sleep lets time pass for who asks the engine; hosts go on asking meanwhile.
func (o *ordeal) sleep(ctx context.Context, d time.Duration) error {
	err := o.clock.sleepOf(ctx, d)
	if ctx.Value(untilKey{}) != nil {
		o.askAsHost()
	}
	return err
}

// askAsHost asks as a host that shares the key, and counts how long hosts had none before.
func (o *ordeal) askAsHost() {
	since := o.clock.now().Sub(o.asked)
	if !o.served {
		o.without += since
	}
	if !o.alive {
		o.dead += since
		o.longestDead = max(o.longestDead, o.dead)
	}
	o.asked = o.clock.now()
	began := time.Now()
	resp, err := o.request(o.t.Context(), logical.ReadOperation, hosts, nil)
	o.served = err == nil && time.Since(began) <= promptly
	o.alive = err != nil || o.works(resp)
	if o.alive {
		o.dead = 0
	}
}

// askAsReader asks for a new key, until there is one.
func (o *ordeal) askAsReader(begun bool) {
	if o.ready || !begun {
		return
	}
	ctx, leave := o.patiently(o.hanging())
	defer leave()
	resp, err := o.request(ctx, logical.ReadOperation, keyPath, nil)
	o.ready = err == nil && o.works(resp)
	o.reader = o.elapsed() - o.s.readerBegins()
}

// pass lets a second pass, or more where answers take long.
func (o *ordeal) pass() {
	step := time.Second
	if o.hanging() {
		step = 30 * time.Second
	}
	o.clock.advance(step)
	if o.f.late && !o.late && !o.ended && o.elapsed() > o.s.last/2 {
		o.late = true
		o.carryOut(o.f)
		o.strike(o.s, o.f)
	}
	if o.clock.now().Sub(o.ticked) >= time.Minute {
		o.ticked = o.clock.now()
		ctx, leave := o.patiently(o.hanging())
		defer leave()
		_, err := tick(ctx, o.rig)
		require.NoError(o.t, err)
	}
}

// end ends the fault, and waits until the reader has got a key.
func (o *ordeal) end() {
	o.carryOut(o.f)
	o.idle()
	ended := o.clock.now()
	for o.ended = !o.ready; !o.ready && o.over < time.Hour; o.over = o.clock.now().Sub(ended) {
		if o.askAsReader(true); !o.ready {
			o.pass()
		}
	}
}

// carryOut ends the faults, and lets Graph do what it has been asked for.
func (r *rig) carryOut(f fault) {
	r.sim.Clear()
	if f.late {
		require.NoError(r.t, r.sim.Wait(r.t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == c.Started }))
	}
}

// isBounded checks what hosts and a reader can rely on. If Graph has asked to be left
// alone, those who need it wait for as long, or five minutes.
func (o *ordeal) isBounded() {
	without, held := o.s.without, heldFor
	if o.f.RetryAfter == throttledFor {
		held = heldByThrottle
		if without > 0 {
			without = heldByThrottle
		}
	}
	require.LessOrEqual(o.t, o.without, without, "hosts are without an answer")
	require.LessOrEqual(o.t, o.longestDead, contradicted, "hosts are answered with a dead key")
	require.LessOrEqual(o.t, o.over, held, "a reader is without a key")
	if !o.s.hit(graphtest.Regenerate) && o.f.RetryAfter != throttledFor {
		require.False(o.t, o.ended, "a reader is without a key although Graph makes them")
		require.LessOrEqual(o.t, o.reader, without+time.Second)
	}
}
