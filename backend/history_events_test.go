// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

func (m *mount) ask(ctx context.Context, path string) (*logical.Response, error) {
	return m.request(ctx, logical.ReadOperation, path, nil)
}

// answered takes what a reader got into the outcome, and core's side of the lease
// into the model.
func (h *history) answered(o *course, path string, resp *logical.Response, err error) {
	if h.refused(err) {
		o.errors++
		return
	}
	a := answer{
		path: path, key: keyIn(resp), created: resp.Data[fieldRegeneratedAt].(string),
		version: resp.Data[fieldKeyVersion].(int), reused: resp.Data[fieldReused].(bool), warned: len(resp.Warnings) > 0,
	}
	o.answers = append(o.answers, a)
	ends := h.clock.now().Add(resp.Secret.TTL)
	h.leases = append(h.leases, &holder{secret: asStored(h.t, resp.Secret), version: a.version, ends: ends, forgotten: ends.Add(lease.Grace)})
}

// refused tells whether a request failed, and looks for secrets in the reason.
func (h *history) refused(err error) bool {
	if err == nil {
		return false
	}
	for _, secret := range h.sim.Issued() {
		h.demand(!strings.Contains(err.Error(), secret), "there is a secret in an error")
	}
	return true
}

// unhindered tells whether nothing has gone wrong in a step so far, and nothing that
// went wrong earlier can make a request fail.
func (h *history) unhindered(o *course) bool {
	return o.healthy && !h.disk.hasStruck() && o.settleable(h.clock.now())
}

func (h *history) read(o *course) {
	o.asked = true
	path := o.step.Paths[0]
	resp, err := h.ask(h.t.Context(), path)
	h.answered(o, path, resp, err)
	h.demand(err == nil || !h.unhindered(o), "a read failed: %v", err)
}

// readTogether lets readers overlap: the regeneration that they lead to, if they do,
// is held until all who have no answer yet share it.
func (h *history) readTogether(o *course) {
	if h.late || h.outage {
		h.read(o) // letting go what is held would let go more than that
		return
	}
	var stubborn bool
	o.asked, o.together = true, true
	o.step.Trouble, stubborn = o.step.Trouble.gated()
	h.sim.Inject(o.step.Trouble.faults...)
	ctx, hangUp := context.WithCancel(h.t.Context())
	defer hangUp()
	var (
		readers sync.WaitGroup
		done    atomic.Int32
		paths   = o.step.Paths
		resps   = make([]*logical.Response, len(paths))
		errs    = make([]error, len(paths))
		process = *h.mount // a restart is not for these readers
	)
	for i, path := range paths {
		readers.Go(func() {
			resps[i], errs[i] = process.ask(ctx, path)
			done.Add(1)
		})
	}
	if h.held(o, &done) && !o.scattered {
		h.meanwhile(o, stubborn, hangUp)
	}
	if !h.late {
		h.sim.Clear()
	}
	readers.Wait()
	for i, path := range paths {
		h.answered(o, path, resps[i], errs[i])
		h.demand(errs[i] == nil || !h.unhindered(o), "a read failed: %v", errs[i])
	}
}

// held waits until all readers without an answer share a regeneration that has
// reached Graph. It returns false if it does not come to that. Who waits for the
// regeneration to be over, in order to compare the key then, is not seen to share it;
// so patience is limited, and without certainty nothing is demanded.
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
			if h.takers() >= waiting {
				return true
			}
			if time.Now().After(patience) {
				o.scattered = true
				return true
			}
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// meanwhile is what happens while readers wait.
func (h *history) meanwhile(o *course, stubborn bool, hangUp func()) {
	switch o.step.Meanwhile {
	case crash:
		o.cutOff, o.healthy, h.late = true, false, stubborn
		h.restart()
	case hangingUp:
		o.hungUp, o.healthy = true, false
		hangUp()
	case revocation:
		h.revokeOne(o)
		o.tended = false // the retirement waits as well
	}
}

// readWhileTheLastLeaseEnds lets the retirement of a key race with a reader who
// would share it.
func (h *history) readWhileTheLastLeaseEnds(o *course) {
	o.asked, o.together = true, true
	var (
		both sync.WaitGroup
		resp *logical.Response
		err  error
	)
	both.Go(func() {
		h.conclude(o, func(l *holder) bool { return l.version == o.before.version && !l.revoked })
		h.look()
	})
	both.Go(func() { resp, err = h.ask(h.t.Context(), "key/any") })
	both.Wait()
	h.answered(o, "key/any", resp, err)
	h.demand(err == nil || !h.unhindered(o), "a read failed: %v", err)
}

// conclude revokes some leases as core does.
func (h *history) conclude(o *course, which func(*holder) bool) {
	for _, l := range h.leases {
		if !which(l) {
			continue
		}
		if err := h.revokes(l.secret); err != nil {
			l.tried, o.stuck = !l.revoked, err
			continue
		}
		l.revoked, o.tended = true, o.tended || l.version == o.before.version
	}
}

// follow lets what a revocation leads to happen, or leaves it for later.
func (h *history) follow(o *course) {
	if o.step.Late {
		o.tended = false
		return
	}
	h.look()
}

// revokeOne ends a lease that core still has.
func (h *history) revokeOne(o *course) {
	var held []*holder
	for _, l := range h.leases {
		if !l.revoked && !l.lost {
			held = append(held, l)
		}
	}
	if len(held) > 0 {
		chosen := held[o.step.Pick%len(held)]
		h.conclude(o, func(l *holder) bool { return l == chosen })
	}
}

// pass lets time pass. Leases that end are revoked, or lost by core.
func (h *history) pass(o *course) {
	h.clock.advance(o.step.pause())
	over := func(l *holder) bool { return !l.revoked && !l.lost && !l.ends.After(h.clock.now()) }
	if !o.step.Late {
		h.conclude(o, over)
		return
	}
	for _, l := range h.leases {
		l.lost = l.lost || over(l)
	}
}

func (h *history) rotate(o *course) {
	o.asked = true
	before := h.sim.Calls(graphtest.Regenerate).Performed
	resp, err := h.request(h.t.Context(), logical.UpdateOperation, rotateKeyPath, nil)
	h.demand(err == nil || !h.unhindered(o), "rotate-key failed: %v", err)
	if h.refused(err) {
		return
	}
	// If the answer was lost, somebody else's key passes for the one that came of it.
	h.demand(h.sim.Calls(graphtest.Regenerate).Performed == before+1 || o.surprised, "rotate-key did not regenerate the key")
	h.demand(resp.Data[fieldKeyVersion].(int) > o.before.version, "rotate-key returned version %v", resp.Data[fieldKeyVersion])
	_, returned := h.disclosed[h.sim.Key()]
	h.demand(!returned, "a key that has been returned works after rotate-key")
}

func (h *history) configure(o *course) {
	changes := []map[string]any{
		{config.FieldRegenerateOnRevoke: !o.config.RegenerateOnRevoke},
		{config.FieldMaxKeyAge: 3600 - int(o.config.MaxKeyAge.Seconds())},
		{config.FieldDriftCheckInterval: 0},
		{config.FieldDriftCheckInterval: 60},
		{config.FieldDriftCheckInterval: 600},
	}
	err := h.write(changes[o.step.Pick%len(changes)])
	h.demand(err == nil || h.disk.hasStruck(), "writing the configuration failed: %v", err)
}

// recreate deletes the configuration, which must kill a key that has been returned
// or say that it lives on, and writes it anew.
func (h *history) recreate(o *course) {
	o.asked = true
	resp, err := h.request(h.t.Context(), logical.DeleteOperation, configPath, nil)
	h.demand(err == nil || h.disk.hasStruck(), "deleting the configuration failed: %v", err)
	if _, lives := h.disclosed[h.sim.Key()]; lives && !h.refused(err) {
		h.demand(!h.unhindered(o), "the key that has been returned outlives its configuration")
		h.demand(resp != nil && len(resp.Warnings) > 0, "nobody was told that the key lives on")
	}
	h.survive(o)
	fields := field.Read(config.Fields(), h.world.conn.Config)
	fields[credential.FieldSecret], fields[config.FieldVerifyConnection] = h.sim.App().ClientSecret, false
	require.NoError(h.t, h.write(fields))
}

func (h *history) write(fields map[string]any) error {
	_, err := h.request(h.t.Context(), logical.UpdateOperation, configPath, fields)
	h.refused(err)
	h.warm()
	return err
}
