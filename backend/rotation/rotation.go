// SPDX-License-Identifier: MPL-2.0

// Package rotation does the I/O of the deployment access key: it obtains a key for a
// reader, regenerates it, finds out what became of a regeneration, compares it with the
// tenant's, and retires it.
//
// What a reader may have and what is due, package accesskey decides. The [Manager] asks
// it, does what it asks for, and tells it what Graph answered. Graph is asked in flights
// (package flight): apart from the request, one at a time. Each step of a regeneration
// leaves a state from which the engine goes on, whatever happens after it.
package rotation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// The purposes of shared flights.
const (
	Regenerating = "regenerating" // the key
	Comparing    = "comparing"    // it with the tenant's
)

// postBudget is the part of a flight that Graph gets for regenerating, so that time is
// left to ask it for the outcome if no answer comes.
const postBudget = 30 * time.Second

// Flights is the work with the key, one piece at a time. Changes of the configuration
// take their turn in it.
type Flights = flight.Group[accesskey.Record]

// Manager works with the key of a mount.
type Manager struct {
	Keys    *accesskey.Store
	Configs *config.Store
	Health  *health.Tracker
	Events  *event.Sender
	Flights *Flights
	Now     func() time.Time
	// MaxTTL asks core for the mount's maximum lease TTL, 0 if core cannot be asked.
	MaxTTL func() time.Duration
	// Tainted asks core whether the mount is going away, and Writable whether this node may
	// write.
	Tainted, Writable func() bool

	maxTTL maxTTL
}

// Role is what decides on which terms a reader gets the key, given those of a read
// without a role.
type Role interface {
	Terms(base accesskey.Terms) accesskey.Terms
}

// Answer is what a reader gets.
type Answer struct {
	Lease  *accesskey.Lease
	Reused bool // the key was made before the request arrived
	// Unverified is why the key was not compared although it should have been, or "".
	Unverified string
}

// Obtain leases a key that may be handed out to a reader who arrives now, under a role or,
// if it is nil, without one. It has the key compared or regenerated first if need be. The
// terms are asked for anew after each wait, since the configuration may have changed.
func (m *Manager) Obtain(ctx context.Context, role Role) (*Answer, error) {
	var (
		fresh int // the version that was made for this reader
		ready *flight.Result[accesskey.Record]
	)
	for {
		got, err := m.take(ctx, role, fresh)
		if ready != nil {
			ready.Release()
		}
		switch {
		case errors.Is(err, accesskey.ErrRegenerateFirst):
			if ready, err = m.regenerate(ctx, attempt{cause: accesskey.CauseRead}); err == nil {
				fresh = ready.Value.Version
			}
		case errors.Is(err, accesskey.ErrCompareFirst):
			ready, err = m.Flights.Share(ctx, Comparing, m.compare)
		default:
			return got, err
		}
		if err != nil && !errors.Is(err, accesskey.ErrNotDue) { // else it joined work that was not made for readers
			return nil, err
		}
	}
}

// take leases the current key on the terms of the current configuration.
func (m *Manager) take(ctx context.Context, role Role, fresh int) (*Answer, error) {
	conn, err := m.Configs.Current(ctx)
	if err != nil {
		return nil, err
	}
	t := conn.Config.Terms()
	if role != nil {
		t = role.Terms(t)
	}
	t.Fresh = fresh
	if limit := m.maxTTL.get(m.Now(), m.MaxTTL); limit > 0 {
		t.TTL = min(t.TTL, limit)
	}
	l, err := m.Keys.Lease(ctx, t)
	if errors.Is(err, accesskey.ErrClosed) && !m.Tainted() {
		m.Reopen(ctx) // the mount has been moved, and goes on
		l, err = m.Keys.Lease(ctx, t)
	}
	var skipReason string
	if errors.Is(err, accesskey.ErrCompareFirst) {
		if skipReason = m.Health.SkipReason(ctx); skipReason != "" {
			t.Unverified = true
			l, err = m.Keys.Lease(ctx, t)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Answer{Lease: l, Reused: fresh == 0 || l.Record.Version < fresh, Unverified: skipReason}, nil
}

// Rotate regenerates the key now, for nobody, and returns the new record. A regeneration
// that is under way serves as well: what it makes has not been handed out when the request
// arrives. Not so a key that it has merely found, which others may have seen.
func (m *Manager) Rotate(ctx context.Context) (accesskey.Record, error) {
	for {
		got, err := m.regenerate(ctx, attempt{cause: accesskey.CauseManual})
		if errors.Is(err, accesskey.ErrNotDue) {
			continue
		}
		if err != nil {
			return accesskey.Record{}, err
		}
		got.Release()
		if got.Joined && got.Value.Cause == accesskey.CauseRecovered {
			continue
		}
		return got.Value, nil
	}
}

// Reopen allows disclosure again: the mount does not go away after all.
func (m *Manager) Reopen(ctx context.Context) {
	_, _ = m.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Reopened}) // never fails
}

// logReport logs that a report could not be stored, which is no reason to fail.
func logReport(ctx context.Context, err error) {
	if err != nil {
		hclog.FromContext(ctx).Warn("storing the report of the last attempt", graph.LogArgs(err)...)
	}
}

// maxTTLFor is how long the mount's maximum lease TTL is remembered: asking core for it
// takes longer than anything else in a shared read but one. Core caps the lease in any
// case; for as long, the ledger's records may end too late.
const maxTTLFor = time.Minute

// maxTTL remembers the mount's maximum lease TTL.
type maxTTL struct {
	mu    sync.Mutex
	value time.Duration
	until time.Time
}

func (m *maxTTL) get(now time.Time, ask func() time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.value == 0 || now.After(m.until) || m.until.Sub(now) > maxTTLFor {
		m.value, m.until = ask(), now.Add(maxTTLFor)
	}
	return m.value
}
