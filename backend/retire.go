// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// Retirement is a state of the key, not an event: the current version has been
// handed out, and no lease on it is live. Then nobody is entitled to hold the key
// any longer, and it is regenerated into one that nobody knows.

// retirement looks after the key whenever it has been told to consider, in a
// goroutine that starts with the first time and ends with the backend.
type retirement struct {
	ctx   context.Context
	look  func(context.Context)
	nudge chan struct{}
	once  sync.Once
}

func newRetirement(ctx context.Context, look func(context.Context)) *retirement {
	return &retirement{ctx: ctx, look: look, nudge: make(chan struct{}, 1)}
}

// consider makes the goroutine look soon. It never blocks; what is asked while a
// look is under way leads to one more.
func (r *retirement) consider() {
	r.once.Do(func() { go r.run() })
	select {
	case r.nudge <- struct{}{}:
	default:
	}
}

func (r *retirement) run() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.nudge:
			r.look(r.ctx)
		}
	}
}

// retires tells whether keys are retired under a configuration.
func (c *config) retires() bool {
	return c.RegenerateOnRevoke && !c.DisableRotation
}

// overdue tells whether a key has to be retired.
func overdue(rec *keyRecord, held bool) bool {
	return rec.Disclosed && !held
}

// retireIfDue retires the current key if it is due. What prevents it is logged and
// stands in the status; the periodic tick tries again.
func (b *backend) retireIfDue(ctx context.Context) {
	ctx = b.ofWork(ctx)
	conn, due, err := b.retirementDue(ctx)
	if err != nil {
		b.log(ctx).Error("looking for a key to retire", logFailure(err)...)
	}
	if due && b.WriteSafeReplicationState() && b.mayTry(ctx, choreRetire, conn) {
		b.do(ctx, choreRetire, conn.config)
	}
}

func (b *backend) retirementDue(ctx context.Context) (*connection, bool, error) {
	conn, rec, err := b.inForce(ctx)
	if err != nil || conn == nil || !conn.config.retires() {
		return nil, false, err
	}
	held, err := b.keeper.held(ctx, b.storage, rec)
	return conn, err == nil && overdue(rec, held), err
}

// leave retires a key that has been handed out, before the engine turns away from
// the workspace it belongs to. It runs in a flight. If it does not succeed in
// time, the response warns: the key lives on, out of the engine's reach.
func (b *backend) leave(ctx context.Context, resp *logical.Response) {
	ctx, cancel := context.WithTimeout(ctx, farewellBudget)
	defer cancel()
	if err := b.retireNow(ctx); err != nil {
		resp.AddWarning("The deployment access key that has been handed out could not be regenerated with the configuration so far: it lives on. " +
			"Regenerate it in the Defender portal. The reason: " + err.Error())
		b.log(ctx).Error("the deployment access key lives on after its configuration", logFailure(err)...)
		b.tell(ctx, eventKeyLivesOn, configPath)
	}
}

// retireNow regenerates a key that has been handed out. It runs in a flight.
func (b *backend) retireNow(ctx context.Context) error {
	conn, rec, err := b.inForce(ctx)
	if err != nil || conn == nil || !rec.Disclosed {
		return err
	}
	_, err = b.regenerateWith(ctx, conn, task{cause: causeRetired, lastChance: true})
	return err
}

// farewell ends the engine's work when the mount goes away: nothing is disclosed
// any more, and a key that has been handed out is regenerated. Core calls the
// periodic function, with the mount tainted, before it revokes the leases.
func (b *backend) farewell(ctx context.Context) {
	b.keeper.setClosed(true)
	ctx, cancel := context.WithTimeout(ctx, farewellBudget)
	defer cancel()
	_, err := b.flights.alone(ctx, func(ctx context.Context) (*logical.Response, error) {
		return nil, b.retireNow(ctx)
	})
	if err != nil {
		b.log(ctx).Error("the mount goes away and its deployment access key lives on: regenerate it in the Defender portal", logFailure(err)...)
		b.tell(ctx, eventKeyLivesOn, configPath)
	}
}
