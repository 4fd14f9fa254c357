// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// tickBudget bounds one periodic tick: core holds its state lock meanwhile.
const tickBudget = 19 * time.Second

// tickSlack is how much earlier than its period a rotation may happen. A key is made
// shortly after the tick that found it due, so at the tick one period later it would be
// just too young, and each rotation would take a tick more than its period.
const tickSlack = 5 * time.Second

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
		b.depart(ctx)
		return nil
	}
	b.keeper.setClosed(false) // a mount that has been moved goes on
	if err := b.upkeep(ctx); err != nil {
		b.log(ctx).Error("looking for work with the key", logFailure(err)...)
	}
	if err := b.keepRoot(ctx); err != nil {
		b.log(ctx).Error("looking for work with the app's own credential", logFailure(err)...)
	}
	if b.System().Tainted() {
		// An unmount joins a tick that is under way instead of starting its own.
		b.depart(ctx)
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
		b.log(ctx).Warn("pruning the records of leases", logFailure(err)...)
	}
}

// chore is work with the key that is due by itself.
type chore string

const (
	choreSettle  chore = "intent"      // find out what became of a regeneration
	choreRotate  chore = "rotation"    // the schedule asks for it
	choreRetire  chore = "retirement"  // the last lease on the key has ended
	choreCompare chore = "drift-check" // the key is leased and was not compared for long
)

// due returns what is due, the most urgent first: a rotation does what a retirement
// would do, and both are more than a comparison.
func (b *backend) due(ctx context.Context, cfg *config, rec *keyRecord) ([]chore, error) {
	held, err := b.keeper.held(ctx, b.storage, rec)
	if err != nil {
		return nil, err
	}
	now := b.now()
	chores := []chore{}
	if rec.Intent != nil {
		chores = append(chores, choreSettle)
	}
	if b.rotationDue(cfg)(rec, held) {
		chores = append(chores, choreRotate)
	}
	if cfg.retires() && overdue(rec, held) {
		chores = append(chores, choreRetire)
	}
	if held && rec.usable() && rec.compareDue(cfg.DriftCheckInterval, now) && b.comparison.excuse(now) == "" {
		chores = append(chores, choreCompare)
	}
	return chores, nil
}

// configured returns the connection that is configured; nil if none is.
func (b *backend) configured(ctx context.Context) (*connection, error) {
	conn, err := b.connections.get(ctx, b.storage)
	if errors.Is(err, errUnconfigured) {
		return nil, nil
	}
	return conn, err
}

// inForce returns the connection that is configured, and the key record as it concerns
// it; nothing if none is.
func (b *backend) inForce(ctx context.Context) (*connection, *keyRecord, error) {
	conn, err := b.configured(ctx)
	if err != nil || conn == nil {
		return nil, nil, err
	}
	rec, err := b.keeper.current(ctx, b.storage, conn.config.workspace())
	return conn, rec, err
}

// upkeep does the most urgent of what is due, unless Graph is to be left alone. One
// at a time is enough: a regeneration settles them all.
func (b *backend) upkeep(ctx context.Context) error {
	conn, rec, err := b.inForce(ctx)
	if err != nil || conn == nil {
		return err
	}
	b.noticeMissed(ctx, conn.config, rec)
	chores, err := b.due(ctx, conn.config, rec)
	if err != nil || len(chores) == 0 || !b.mayTry(ctx, chores[0], conn) {
		return err
	}
	b.do(ctx, chores[0], conn.config)
	return nil
}

// do has a chore done in a flight. What fails has been told when it returns.
func (b *backend) do(ctx context.Context, c chore, cfg *config) {
	purpose, work := toRegenerate, b.compare
	switch c {
	case choreSettle:
		work = b.regenerate(task{cause: causeRecovered, due: inDoubt, unattended: true})
	case choreRotate:
		work = b.regenerate(task{cause: causeRotation, due: b.rotationDue(cfg), unattended: true})
	case choreRetire:
		work = b.regenerate(task{cause: causeRetired, due: overdue, unattended: true})
	case choreCompare:
		purpose = toCompare
	}
	if got, err := b.flights.share(ctx, purpose, work); err == nil {
		got.taken()
	}
}

// inDoubt tells whether the key cannot be trusted.
func inDoubt(rec *keyRecord, _ bool) bool {
	return rec.Intent != nil
}

// rotationDue tells whether the schedule of a configuration asks for a regeneration.
func (b *backend) rotationDue(cfg *config) func(*keyRecord, bool) bool {
	return func(rec *keyRecord, _ bool) bool {
		now := b.now()
		next, _ := cfg.Schedule.next(rec, now)
		if cfg.Schedule.Period > 0 {
			next = next.Add(-tickSlack)
		}
		return !cfg.DisableRotation && !next.IsZero() && !now.Before(next)
	}
}

// noticeMissed tells, once, of a rotation whose window has passed.
func (b *backend) noticeMissed(ctx context.Context, cfg *config, rec *keyRecord) {
	next, missed := cfg.Schedule.next(rec, b.now())
	if missed.IsZero() || cfg.DisableRotation {
		return
	}
	isNew, err := b.health.missed(ctx, b.storage, missed)
	b.logReport(ctx, err)
	if isNew {
		b.log(ctx).Error("the window of a rotation has passed without it", "due_at", timestamp(missed), "next_rotation", timestamp(next))
		b.tellOfKey(ctx, eventRotationMiss, rec.Version, metadataDueAt, timestamp(missed))
	}
}

// mayTry tells whether a chore may call Graph now. After a failure it waits, longer
// each time, a comparison for itself: readers make their own. While it waits it knocks,
// which costs neither a token nor an entry in the tenant's audit log: the work must not
// wait for half an hour after Graph has come back. Once a knock has been answered and
// the work has failed nevertheless, knocks say nothing about the work, and the full
// time is waited.
func (b *backend) mayTry(ctx context.Context, c chore, conn *connection) bool {
	report, err := b.health.get(ctx, b.storage)
	now := b.now()
	switch {
	case err != nil:
		return true
	case c == choreCompare && now.Before(report.CompareNext):
		return false
	case !now.Before(report.NextAttempt):
		return true
	case report.throttled(now), report.Deceived:
		return false
	default:
		return conn.graph.Probe(ctx)
	}
}
