// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/format"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// initializeBudget is short because core unseals no further meanwhile.
const initializeBudget = 5 * time.Second

// initialize is called by core before the first request. It looks whether a newer version
// has been here before, and loads what that request will need. It never fails, because the
// mount would not start: even where that version's entries cannot be read, leases have to
// end and the mount to be disabled.
func (b *backend) initialize(ctx context.Context, req *logical.InitializationRequest) error {
	ctx, cancel := context.WithTimeout(b.logged(ctx, ""), initializeBudget)
	defer cancel()
	// These ask core beside it, in the time of one question. What fails is tried again by
	// the first reader.
	var others sync.WaitGroup
	others.Go(func() { _, _ = b.configs.Current(ctx) })
	others.Go(func() { _, _ = b.keys.Record(ctx) })
	others.Go(func() { b.core.ReplicationState() })
	format.Check(ctx, req.Storage, b.WriteSafeReplicationState)
	others.Wait()
	return nil
}

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
		b.work(ctx)
		b.prune(ctx)
	}
	if b.System().Tainted() { // an unmount joins a tick that is under way instead of starting its own
		b.rotation.RetireOnUnmount(ctx)
		b.root.WarnOnUnmount(ctx)
		b.events.Flush(ctx) // the process may end with the mount
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

// prune deletes records of leases that are of no use any longer, as many as fit into its
// time; the next tick goes on.
func (b *backend) prune(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pruneBudget)
	defer cancel()
	if err := b.keys.Prune(ctx); err != nil && ctx.Err() == nil {
		hclog.FromContext(ctx).Warn("pruning the records of leases", graph.LogArgs(err)...)
	}
}

// coalesced returns a function that has check run soon, apart from its caller, and never
// blocks. Checks run one at a time, and none begins after the end of ctx. A call during a
// check leads to one more, however many there are.
func coalesced(ctx context.Context, check func(context.Context)) (wake func()) {
	var (
		waiting atomic.Bool // a check that has not begun yet
		running sync.Mutex
	)
	return func() {
		if ctx.Err() != nil || waiting.Swap(true) {
			return
		}
		go func() {
			running.Lock()
			defer running.Unlock()
			if waiting.Store(false); ctx.Err() == nil {
				check(ctx)
			}
		}()
	}
}

// retireIfDue retires the current key if that is due. It is called after revocations.
// Retirement is a state of the key, not an event, so nothing is lost if the process ends
// before: the periodic tick finds the same state. Failures are logged and reported in
// mdi/status; the tick tries again.
func (b *backend) retireIfDue(ctx context.Context) {
	ctx, cancel := context.WithTimeout(b.logged(ctx, ""), requestBudget)
	defer cancel()
	if err := b.rotation.RetireIfDue(ctx); err != nil {
		hclog.FromContext(ctx).Error("looking for a key to retire", graph.LogArgs(err)...)
	}
}
