// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

func (m *mount) ask(ctx context.Context, path string) (*logical.Response, error) {
	return m.request(ctx, logical.ReadOperation, path, nil)
}

// reader is one who reads, and what came of it.
type reader struct {
	path  string
	since int       // when the request arrived, in the order of things
	at    time.Time // the same by the true time
	left  bool
	resp  *logical.Response
	err   error
}

// read reads, as a reader who leaves after so many microseconds, if not 0.
func (m *mount) read(ctx context.Context, path string, leave int) *reader {
	r := &reader{path: path, since: m.notes.mark(), at: m.now()}
	if leave > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(leave)*time.Microsecond)
		defer cancel()
	}
	r.resp, r.err = m.ask(ctx, path)
	r.left = ctx.Err() != nil
	return r
}

// takes takes what a reader got into the course, and core's side of the lease into the
// model.
func (h *history) takes(o *course, r *reader) {
	h.count(r.path)
	o.readers = append(o.readers, r)
	if r.left {
		h.count(string(leaving))
		h.pendingLook = true // for the lease that was withdrawn may have been the last
	}
	if h.refused(r.err) {
		return
	}
	a := answer{
		reader: r, key: keyIn(r.resp), created: r.resp.Data[fieldRegeneratedAt].(string), ttl: r.resp.Secret.TTL,
		version: r.resp.Data[fieldKeyVersion].(int), reused: r.resp.Data[fieldReused].(bool),
		unconfirmed: slices.ContainsFunc(r.resp.Warnings, func(w string) bool { return strings.Contains(w, "could not be compared") }),
	}
	o.answers = append(o.answers, a)
	h.leases = append(h.leases, &holder{secret: asStored(h.t, r.resp.Secret), key: a.key, version: a.version, ends: h.clock.now().Add(a.ttl)})
}

// refused reports whether a request failed, and looks for secrets in the reason.
func (h *history) refused(err error) bool {
	if err == nil {
		return false
	}
	for _, secret := range h.sim.Issued() {
		h.demand(!strings.Contains(err.Error(), secret), "there is a secret in an error")
	}
	return true
}

func (h *history) readOne(o *course) {
	o.alone = h.hung == nil
	if h.hung != nil {
		h.count(besideHang)
	}
	began := time.Now()
	h.takes(o, h.read(h.t.Context(), o.step.Paths[0], o.step.Leave))
	o.took = time.Since(began)
}

// readTogether lets readers overlap: the regeneration that they lead to, if they do,
// is held until all who have no answer yet wait for it.
func (h *history) readTogether(o *course) {
	if h.hung != nil {
		h.readOne(o)
		return
	}
	gate := o.step.Trouble.post.Fault
	gate.Operation, gate.Times, gate.Latency = graphtest.Regenerate, 1, time.Hour
	stubborn := gate.Stubborn
	gate.Stubborn = o.step.Trouble.post.name == "" && o.step.Late
	if h.outage.name == "" && !stubborn {
		h.sim.Inject(gate)
	}
	ctx, leave := context.WithCancel(h.t.Context())
	defer leave()
	var (
		all     sync.WaitGroup
		done    atomic.Int32
		paths   = o.step.Paths
		readers = make([]*reader, len(paths))
		process = *h.mount // a restart is not for these readers
	)
	for i, path := range paths {
		all.Go(func() {
			readers[i] = process.read(ctx, path, o.step.Leave)
			done.Add(1)
		})
	}
	if h.held(o, &done) {
		h.meanwhile(o, leave)
	}
	h.clear()
	all.Wait()
	for h.notes.pending() > 0 && h.hung == nil {
		h.clear()
		time.Sleep(20 * time.Microsecond)
	}
	for _, r := range readers {
		h.takes(o, r)
	}
}

// held waits until all readers without an answer wait for a regeneration that has reached
// Graph, though not for long, since some go on beside it. It returns false if it does not
// come to that.
func (h *history) held(o *course, done *atomic.Int32) bool {
	var patience time.Time
	for {
		waiting := len(o.step.Paths) - int(done.Load())
		if waiting == 0 {
			return false
		}
		if h.sim.Calls(graphtest.Regenerate).Started > o.before.posts {
			if patience.IsZero() {
				patience = time.Now().Add(5 * time.Millisecond)
			}
			o.met = h.takers() >= waiting
			if o.met || time.Now().After(patience) {
				return true
			}
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// meanwhile is what happens while readers wait.
func (h *history) meanwhile(o *course, leave func()) {
	switch o.step.Meanwhile {
	case crash:
		h.kill(o)
	case leaving:
		leave()
	case revocation:
		h.revokeOne(o)
	case portal:
		if o.step.Trouble.post.name != oldKey {
			h.replaceInPortal(o)
		}
	case rotating:
		h.count(rotatingBeside)
		o.beside.Go(func() { h.rotate(o) })
		time.Sleep(time.Millisecond) // it waits as well, probably
	}
}

// hang lets a reader wait for a regeneration that goes on in later steps.
func (h *history) hang(o *course) {
	if h.outage.name != "" || h.seen.fingerprint == "" || o.step.Trouble.post.Stubborn {
		h.readOne(o)
		return
	}
	gate := o.step.Trouble.post.Fault
	gate.Operation, gate.Times, gate.Latency = graphtest.Regenerate, 1, time.Hour
	h.sim.Inject(gate)
	process, path := *h.mount, o.step.Paths[0]
	ctx, leave := context.WithCancel(h.t.Context())
	w := &hung{done: make(chan struct{}), leave: leave, steps: 3}
	go func() {
		defer close(w.done)
		w.reader = process.read(ctx, path, 0)
	}()
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		_ = h.sim.Wait(ctx, graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Started > o.before.posts })
	}()
	select {
	case <-w.done: // there is no regeneration for this reader
		leave()
		<-arrived
		h.clear()
		h.takes(o, w.reader)
	case <-arrived:
		h.hung = w
		if o.step.Late {
			leave()
		}
	}
}

// hung is a reader who waits for a regeneration that hangs.
type hung struct {
	*reader

	done  chan struct{}
	leave func()
	steps int // how long it hangs
}

// clear ends all faults but those of an outage, and what is held goes on.
func (h *history) clear() {
	h.world.home.sim.Clear()
	h.world.away.sim.Clear()
	if h.outage.name != "" {
		h.sim.Inject(h.outage.fault)
	}
}

// goOn lets what is held at Graph go on, until Graph has finished it.
func (h *history) goOn(o *course) {
	h.clear()
	h.collect(o)
	require.Eventually(h.t, func() bool { h.clear(); return h.notes.pending() == 0 }, 5*time.Second, 50*time.Microsecond)
}

// collect takes what the reader has got who waited for a regeneration that hung.
func (h *history) collect(o *course) {
	if h.hung == nil {
		return
	}
	<-h.hung.done
	h.hung.leave()
	h.takes(o, h.hung.reader)
	h.hung = nil
}

// kill ends the process and starts another one, by another clock if that is wanted.
func (h *history) kill(o *course) {
	if posts, _, _ := h.notes.of(h.tenant); slices.ContainsFunc(posts, func(p regeneration) bool { return p.open && p.unproven() }) {
		o.cutOff = true
		h.count(cutOff)
	}
	o.killed, h.lastKill = true, h.notes.mark()
	h.mayLeaveLeases() // by the clock before it jumps
	if o.step.What == jump {
		d := o.step.leap()
		h.clock.advance(d)
		h.ahead += d
		h.count(map[bool]string{true: clockAhead, false: clockBack}[d > 0])
	}
	if o.step.What == jump || h.ahead < 0 { // the latter corrects anew what the record has of a time to come
		h.jumped = h.now()
	}
	h.restart()
	h.collect(o)
	if o.step.What == jump { // core goes by the same clock
		over := func(l *holder) bool { return !l.revoked && !l.ends.After(h.clock.now()) }
		for _, l := range h.leases {
			l.tried = l.tried || over(l)
		}
		h.conclude(o, func(l *holder) bool { return over(l) && !l.lost })
		h.pendingLook = true
	}
}

// readWhileTheLastLeaseEnds lets the retirement of a key race with a reader who
// would share it.
func (h *history) readWhileTheLastLeaseEnds(o *course) {
	var (
		both sync.WaitGroup
		r    *reader
	)
	both.Go(func() {
		h.conclude(o, func(l *holder) bool { return l.version == o.before.version && !l.revoked })
		h.look()
	})
	both.Go(func() { r = h.read(h.t.Context(), "key/any", 0) })
	both.Wait()
	h.takes(o, r)
}

// conclude revokes some leases as core does.
func (h *history) conclude(o *course, which func(*holder) bool) {
	for _, l := range h.leases {
		if !which(l) {
			continue
		}
		// A stale GET makes the engine take a dead key for the tenant's.
		dead, again := h.isSuperseded(l.key) && l.version != o.before.version, l.revoked
		if err := h.revokes(l.secret); err != nil {
			l.tried, o.stuck = !again, err
			o.livingEnded = true // it has ended, and is removed later
			continue
		}
		l.revoked, l.tried = true, l.tried && again
		o.livingEnded = o.livingEnded || !dead || again || l.void
	}
}

// follow lets what a revocation leads to happen, or leaves it for later.
func (h *history) follow(o *course) {
	if !o.step.Late && h.hung == nil {
		before := h.sim.Calls(graphtest.Regenerate).Started + h.sim.Calls(graphtest.Get).Started
		told := h.look()
		calls := h.sim.Calls(graphtest.Regenerate).Started + h.sim.Calls(graphtest.Get).Started - before
		h.demand(!told || calls == 0 || h.pendingLook || o.livingEnded, "the end of superseded leases has cost %d calls of Graph", calls)
		h.pendingLook = false
		return
	}
	h.pendingLook = h.pendingLook || o.livingEnded
}

// revokeOne ends a lease that core still has.
func (h *history) revokeOne(o *course) {
	var kept []*holder
	for _, l := range h.leases {
		if !l.revoked && !l.lost {
			kept = append(kept, l)
		}
	}
	if len(kept) > 0 {
		chosen := kept[o.step.Pick%len(kept)]
		h.conclude(o, func(l *holder) bool { return l == chosen })
	}
}

// pass lets time pass. Leases that end are revoked, or lost by core.
func (h *history) pass(o *course, d time.Duration) {
	h.clock.advance(d)
	over := func(l *holder) bool { return !l.revoked && !l.lost && !l.ends.After(h.clock.now()) }
	for _, l := range h.leases {
		switch {
		case !over(l):
		case o.step.Late:
			l.lost = true
			h.count(leaseLost)
		default:
			h.count(leaseEnded)
		}
	}
	if !o.step.Late {
		h.conclude(o, over)
	}
}

// rotate is the operator's, who does not wait for long while Graph fails.
func (h *history) rotate(o *course) {
	ctx, cancel := h.t.Context(), func() {}
	if h.outage.name != "" {
		ctx, cancel = context.WithTimeout(ctx, 10*time.Millisecond)
	}
	defer cancel()
	process := *h.mount
	o.rotates, o.rotated.since = true, h.notes.mark()
	o.rotated.resp, o.rotated.err = process.request(ctx, logical.UpdateOperation, rotateKeyPath, nil)
}

func (h *history) configure(o *course) {
	changes := []map[string]any{
		{fieldDisableAutomatedRotation: !o.config.DisableRotation},
		{config.FieldRegenerateOnRevoke: !o.config.RegenerateOnRevoke},
		{fieldDisableAutomatedRotation: false, config.FieldRegenerateOnRevoke: true},
		{config.FieldMaxKeyAge: 3600 - int(o.config.MaxKeyAge.Seconds())},
		{config.FieldDriftCheckInterval: 0},
		{config.FieldDriftCheckInterval: 60},
		{config.FieldDriftCheckInterval: 600},
	}
	change := changes[max(0, o.step.Pick%(len(changes)+4)-4)]
	_, pauses := change[config.FieldMaxKeyAge]
	_, pauses2 := change[config.FieldDriftCheckInterval]
	h.count(map[bool]string{true: configured2, false: paused}[pauses || pauses2])
	err := h.write(change)
	h.demand(err == nil || h.disk.hasStruck() || o.step.Slow, "writing the configuration failed: %v", err)
}

// leaveTenant deletes the configuration, or turns to the other tenant, beside readers. Keys
// that have been handed out must be dead then, or the answer says that one lives on.
func (h *history) leaveTenant(o *course) {
	old := h.tenant
	o.left = old
	ctx, stop := context.WithCancel(h.t.Context())
	var (
		loops   sync.WaitGroup
		mu      sync.Mutex
		readers []*reader
		process = *h.mount
	)
	for _, path := range o.step.Paths {
		loops.Go(func() {
			for ctx.Err() == nil {
				r := process.read(h.t.Context(), path, o.step.Leave)
				if mu.Lock(); len(readers) < 40 || r.err == nil {
					readers = append(readers, r)
				}
				mu.Unlock()
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	time.Sleep(time.Millisecond) // they are reading
	resp, err := h.turn(o)
	stop()
	loops.Wait()
	for _, r := range readers {
		h.takes(o, r)
	}
	o.turned = err == nil && (resp == nil || len(resp.Warnings) == 0)
	h.demand(err == nil || h.disk.hasStruck() || o.step.Slow, "leaving the tenant failed: %v", err)
	h.settle(o, old)
}

// turn leaves the tenant.
func (h *history) turn(o *course) (*logical.Response, error) {
	if o.step.What == deletion {
		resp, err := h.request(h.t.Context(), logical.DeleteOperation, configPath, nil)
		h.refused(err)
		return resp, err
	}
	to := h.world.home
	if h.tenant == to {
		to = h.world.away
	}
	return h.request(h.t.Context(), logical.UpdateOperation, configPath, to.fields())
}

// fields are those of a configuration for the tenant.
func (tn *tenant) fields() map[string]any {
	fields := field.Read(tn.config().Fields())
	fields[credential.FieldSecret], fields[config.FieldVerifyConnection] = tn.sim.App().ClientSecret, false
	return fields
}

// settle sees to a configuration after the tenant was left, or that failed.
func (h *history) settle(o *course, old *tenant) {
	old.sim.Clear()
	h.outage = outageOf{}
	h.survive(o)
	h.land()
	cfg := h.storedConfig()
	switch {
	case cfg == nil:
		require.NoError(h.t, h.write(old.fields()))
	case cfg.TenantID == h.world.away.sim.App().TenantID:
		h.tenant = h.world.away
	default:
		h.tenant = h.world.home
	}
	h.warm()
	h.pendingLook = true
}

func (h *history) write(fields map[string]any) error {
	_, err := h.request(h.t.Context(), logical.UpdateOperation, configPath, fields)
	h.refused(err)
	if err == nil {
		h.warm()
	}
	h.pendingLook = true
	return err
}

// damageEntry makes an entry unreadable, as a restored backup can. The next process finds it.
func (h *history) damageEntry(o *course) {
	key := []string{accesskey.StorageKey, health.StorageKey}[o.step.Pick%2]
	entry, err := h.kept.Get(h.t.Context(), key)
	require.NoError(h.t, err)
	if entry == nil {
		return
	}
	damaged := []byte("{")
	if key == accesskey.StorageKey { // in which the version can still be made out
		damaged = slices.Concat(entry.Value[:len(entry.Value)-1], []byte(`,"salt":7}`))
	}
	entry.Value = damaged
	require.NoError(h.t, h.kept.Put(h.t.Context(), entry))
	h.kill(o)
}

func (h *history) replaceInPortal(o *course) {
	if h.outage.fault.Body == graphtest.BodyOldKey {
		return // the answer could not be told from a good one
	}
	h.sim.RegenerateInPortal()
	o.portal = true
}

// rest waits for what the engine does apart from requests.
func (h *history) rest() {
	if h.hung == nil {
		h.land()
	}
}

// untilAll lets all leases end, of which there may be some that core has lost.
func (h *history) untilAll(o *course) {
	h.conclude(o, func(l *holder) bool { return !l.revoked && !l.lost })
	last := h.unsure
	for _, l := range h.leases {
		if end := l.ends.Add(lease.Grace + lease.PageSpan); (l.lost || l.tried) && !l.revoked && end.After(last) {
			last = end
		}
	}
	if d := last.Sub(h.clock.now()); d >= 0 {
		h.clock.advance(d + time.Second)
		h.tick()
	}
}
