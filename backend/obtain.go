// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"time"
)

// unclaimedFor is how long a key that was made for a reader who did not wait for it
// is kept for the next one.
const unclaimedFor = 2 * time.Minute

// anyAge is the maximum age of terms that share a key however old it is.
const anyAge = time.Duration(-1)

// terms are what a reader gets the key on.
type terms struct {
	ttl           time.Duration // of the lease
	maxAge        time.Duration // of a shared key, or anyAge; 0: no key is shared
	driftInterval time.Duration // see config
}

// terms returns those of a read without a role.
func (c *config) terms() terms {
	return terms{ttl: c.TTL, maxAge: c.MaxKeyAge, driftInterval: c.DriftCheckInterval}
}

// terms returns the role's under a configuration.
func (r *role) terms(c *config) terms {
	t := terms{ttl: r.TTL, maxAge: anyAge, driftInterval: c.DriftCheckInterval}
	if t.ttl == 0 {
		t.ttl = c.TTL
	}
	if r.MaxKeyAge != nil {
		t.maxAge = *r.MaxKeyAge
	}
	return t
}

// step is what has to be done before a reader can have the key.
type step int

const (
	regenerateFirst step = iota
	compareFirst
	takeIt
)

// judge tells what has to be done with a usable key before a reader gets it on
// terms t at a time. Versions from fresh on were made while the reader waited.
func (t terms) judge(rec *keyRecord, fresh int, now time.Time) step {
	age := max(0, now.Sub(rec.RegeneratedAt)) // a clock may have been put back
	switch {
	case fresh > 0 && rec.Version >= fresh, rec.unclaimed(age):
		return takeIt
	case t.maxAge != anyAge && age >= t.maxAge:
		return regenerateFirst
	case rec.compareDue(t.driftInterval, now):
		return compareFirst
	default:
		return takeIt
	}
}

// unclaimed tells whether a key of some age was made for a reader, recently, and
// given to nobody: the reader hung up, gave up waiting, or could not be given a lease.
// Without it, a reader who comes again after that would regenerate
// again, and again, while Graph is slow.
func (r *keyRecord) unclaimed(age time.Duration) bool {
	return !r.Disclosed && (r.Cause == causeRead || r.Cause == causeRecovered) && age < unclaimedFor
}

// mountMaxFor is how long the mount's maximum lease TTL is remembered: asking core for
// it takes longer than anything else that a shared read does but one. Core caps the
// lease in any case; the ledger's records may end too late for as long.
const mountMaxFor = time.Minute

// mountMax remembers the mount's maximum lease TTL.
type mountMax struct {
	mu    sync.Mutex
	value time.Duration
	until time.Time
}

func (m *mountMax) get(now time.Time, ask func() time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.value == 0 || now.After(m.until) || m.until.Sub(now) > mountMaxFor {
		m.value, m.until = ask(), now.Add(mountMaxFor)
	}
	return m.value
}

// obtained is a lease and what to say of it.
type obtained struct {
	lease      *grant
	reused     bool
	unverified string // why the key was not compared although it should have been
}

// obtain leases a key that may be handed out to a reader who arrives now,
// comparing or regenerating it first if need be. The terms are asked for anew when
// the configuration may have changed.
func (b *backend) obtain(ctx context.Context, termsUnder func(*config) terms) (*obtained, error) {
	var (
		fresh int
		ready *outcome
	)
	for {
		got, next, err := b.tryToTake(ctx, termsUnder, fresh)
		if ready != nil {
			ready.taken()
		}
		if got != nil || err != nil {
			return got, err
		}
		ready, err = b.makeReady(ctx, next)
		switch {
		case errors.Is(err, errNotDue): // joined work that was not made for readers
		case err != nil:
			return nil, err
		case next == regenerateFirst:
			fresh = ready.record.Version
		}
	}
}

// makeReady does, or waits for, what a reader needs to be done with the key.
func (b *backend) makeReady(ctx context.Context, next step) (*outcome, error) {
	if next == compareFirst {
		return b.flights.share(ctx, toCompare, b.compare)
	}
	return b.flights.share(ctx, toRegenerate, b.regenerate(task{cause: causeRead}))
}

// tryToTake leases the current key on the terms of the current configuration; if
// that cannot be done yet it returns nil and what has to be done first.
func (b *backend) tryToTake(ctx context.Context, termsUnder func(*config) terms, fresh int) (*obtained, step, error) {
	conn, err := b.connections.get(ctx, b.storage)
	if err != nil {
		return nil, 0, err
	}
	var (
		t        = termsUnder(conn.config)
		now      = b.now()
		next     = regenerateFirst
		unproven string
	)
	accept := func(rec *keyRecord) bool {
		if next = t.judge(rec, fresh, now); next == compareFirst {
			unproven = b.comparison.excuse(now)
		}
		return next == takeIt || unproven != ""
	}
	ttl := t.ttl
	if limit := b.mountMax.get(now, b.System().MaxLeaseTTL); limit > 0 { // 0: core could not be asked
		ttl = min(ttl, limit)
	}
	l, err := b.keeper.lease(ctx, b.storage, conn.config.workspace(), ttl, accept)
	if errors.Is(err, errClosed) && !b.System().Tainted() {
		b.keeper.setClosed(false) // the mount has been moved, and goes on
		l, err = b.keeper.lease(ctx, b.storage, conn.config.workspace(), ttl, accept)
	}
	if l == nil || err != nil {
		return nil, next, err
	}
	reused := fresh == 0 || l.record.Version < fresh
	return &obtained{lease: l, reused: reused, unverified: unproven}, takeIt, nil
}
