// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// workBudget is the part of a tick for work that is due, so that time is left for an
// unmount. Work that takes longer goes on apart from the tick.
const workBudget = 10 * time.Second

// pruneBudget is the part of a tick for deleting old records of leases.
const pruneBudget = 2 * time.Second

// periodic is called by core every minute, and once more, with the mount tainted, before
// the leases of a mount that goes away are revoked. Core would only log an error, so
// failures are logged here and reported in mdi/status.
func (b *backend) periodic(ctx context.Context, _ *logical.Request) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	if !b.System().Tainted() {
		b.rotation.Reopen(ctx) // a mount that has been moved goes on
		b.work(ctx)
		b.prune(ctx)
	}
	if b.System().Tainted() { // an unmount joins a tick that is under way instead of starting its own
		b.unmount(ctx)
	}
	return nil
}

// work does what is due.
func (b *backend) work(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, workBudget)
	defer cancel()
	if err := b.rotation.RunDue(ctx); err != nil {
		hclog.FromContext(ctx).Error("looking for work with the key", graph.LogArgs(err)...)
	}
	if err := b.root.RunDue(ctx); err != nil {
		hclog.FromContext(ctx).Error("looking for work with the app's own credential", graph.LogArgs(err)...)
	}
}

// unmount ends the engine's work when the mount goes away.
func (b *backend) unmount(ctx context.Context) {
	b.rotation.RetireOnUnmount(ctx)
	b.root.WarnOnUnmount(ctx)
	b.events.Flush(ctx) // the process may end with the mount
}

// prune deletes records of leases that are of no use any longer, as many as fit into its
// time; the next tick goes on.
func (b *backend) prune(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pruneBudget)
	defer cancel()
	if err := b.keys.Prune(ctx); err != nil && ctx.Err() == nil {
		hclog.FromContext(ctx).Warn("pruning the records of leases", graph.LogArgs(err)...)
	}
}

// retirement checks after revocations whether the key has to be retired. Retirement is a
// state of the key, not an event, so nothing is lost if the process ends before: the
// periodic tick finds the same state. The goroutine starts with the first wake and ends
// with the backend.
type retirement struct {
	ctx   context.Context
	check func(context.Context)
	woken chan struct{}
	once  sync.Once
}

func newRetirement(ctx context.Context, check func(context.Context)) *retirement {
	return &retirement{ctx: ctx, check: check, woken: make(chan struct{}, 1)}
}

// wake makes the goroutine check soon. It never blocks. A wake during a check leads to one
// more.
func (r *retirement) wake() {
	r.once.Do(func() { go r.run() })
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *retirement) run() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.woken:
			r.check(r.ctx)
		}
	}
}

// retireIfDue retires the current key if that is due. Failures are logged and reported in
// mdi/status; the periodic tick tries again.
func (b *backend) retireIfDue(ctx context.Context) {
	ctx, cancel := context.WithTimeout(b.ofWork(ctx), requestBudget)
	defer cancel()
	if err := b.rotation.RetireIfDue(ctx); err != nil {
		hclog.FromContext(ctx).Error("looking for a key to retire", graph.LogArgs(err)...)
	}
}
