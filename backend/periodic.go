// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// tickBudget bounds one periodic tick: core holds its state lock meanwhile.
const tickBudget = 20 * time.Second

// pruneBudget is the share of a tick for deleting old records.
const pruneBudget = 2 * time.Second

// periodic is called by core every minute, and once more, with the mount tainted,
// before the leases of a mount that goes away are revoked. Core would only log an
// error, so what fails is logged here and stands in the status.
func (b *backend) periodic(ctx context.Context, _ *logical.Request) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tickBudget)
	defer cancel()
	if b.System().Tainted() {
		b.farewell(ctx)
		return nil
	}
	b.keeper.setClosed(false) // a mount that has been moved goes on
	b.settleIfDue(ctx)
	b.retireIfDue(ctx)
	if b.System().Tainted() {
		// An unmount joins a tick that is under way instead of starting its own.
		b.farewell(ctx)
		return nil
	}
	b.pruneLedger(ctx)
	return nil
}

// pruneLedger deletes what the ledger does not need any more, as much as fits into
// its time; the next tick goes on.
func (b *backend) pruneLedger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pruneBudget)
	defer cancel()
	rec, err := b.keeper.stored(ctx, b.storage)
	if err == nil {
		err = b.keeper.ledger.prune(ctx, b.storage, rec.Version, b.now())
	}
	if err != nil && ctx.Err() == nil {
		b.Logger().Warn("pruning the records of leases", "error", err)
	}
}

// settleIfDue finds out what became of a regeneration that was cut off, so that the
// next reader need not.
func (b *backend) settleIfDue(ctx context.Context) {
	conn, err := b.connections.get(ctx, b.storage)
	if errors.Is(err, errUnconfigured) {
		return
	}
	var rec *keyRecord
	if err == nil {
		rec, err = b.keeper.current(ctx, b.storage, conn.config.workspace())
	}
	if err != nil {
		b.Logger().Error("looking for a regeneration to settle", "error", err)
		return
	}
	if rec.Intent == nil {
		return
	}
	if got, err := b.flights.share(ctx, toRegenerate, b.regenerate(task{cause: causeRecovered, due: inDoubt, unattended: true})); err == nil {
		got.taken()
	}
}

// inDoubt tells whether the key cannot be trusted.
func inDoubt(rec *keyRecord, _ bool) bool {
	return rec.Intent != nil
}
