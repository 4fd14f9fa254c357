// SPDX-License-Identifier: MPL-2.0

// Package rotation does the I/O of the deployment access key: it obtains a key for a
// reader, regenerates it, compares it with the tenant's, and retires it.
//
// What a reader may have and what is due, package accesskey decides. The [Manager] asks
// it, does what it asks for, and tells it what Graph answered. Graph is asked in flights
// (package flight): apart from the request, regenerations one at a time, comparisons
// beside them. Each step of a regeneration leaves a state from which the engine goes on,
// whatever happens after it.
package rotation

import (
	"cmp"
	"context"
	"errors"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// shareWait is how long a reader who shares waits for another's regeneration, before the
// reader is served beside it.
const shareWait = 2 * time.Second

// ErrUnconfirmed says that a rotation which an operator has asked for goes on.
var ErrUnconfirmed = errors.New("the key has not been confirmed to be regenerated yet; the engine goes on until it is, also after a restart: see wanted_since in mdi/status")

// Manager works with the key of a mount.
type Manager struct {
	Keys    *accesskey.Store
	Configs *config.Store
	Health  *health.Tracker
	Events  *event.Sender
	// Flights is the work that can replace the key. Changes of the configuration and of
	// the app's credential take their turn in it. Comparisons are beside it.
	Flights, Comparisons *flight.Group

	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
	// MaxTTL returns the mount's maximum lease TTL, 0 if core cannot be asked.
	MaxTTL func() time.Duration
	// Tainted asks core whether the mount is going away, and Writable whether this node may
	// write.
	Tainted, Writable func() bool

	postedAt time.Time // the last regeneration; only flights use it, one at a time
	lookedAt time.Time // only the tick uses it
}

// Answer is what a reader gets.
type Answer struct {
	Lease  *accesskey.Lease
	Reused bool // the key was made before the request arrived
	// Unconfirmed is why Graph has not confirmed the key although it should have, or "".
	Unconfirmed string
}

// Obtain leases a key that may be handed out to a reader who arrives now. It has the key
// compared or regenerated first if need be. role makes the reader's terms of those of a read
// without a role; nil leaves them. They are asked for anew after each wait, since the
// configuration may have changed.
func (m *Manager) Obtain(ctx context.Context, role func(base accesskey.Terms) accesskey.Terms) (answer *Answer, err error) {
	defer func() {
		if err != nil {
			m.Keys.Unreserve() // it may have been reserved for this reader
		}
	}()
	var asks accesskey.Terms // what this reader has waited for so far
	release, repeat, compared := func() {}, true, false
	rec, unknown := m.Keys.Record(ctx)
	if unknown == nil {
		asks.Fresh = max(rec.Newest, rec.Version) + 1 // what is regenerated from now on
	}
	for {
		got, err := m.take(ctx, role, &asks)
		release()
		switch {
		case errors.Is(err, accesskey.ErrRegenerateFirst) && unknown != nil:
			return nil, unknown
		case errors.Is(err, accesskey.ErrRegenerateFirst):
			release, err = m.regenerate(ctx, attempt{Manager: m, job: reading, asks: asks})
			if _, lost := errors.AsType[*UnsettledError](err); lost && repeat {
				repeat, err = false, m.Sleep(ctx, health.FirstHold) // the others have to wait as long
			}
		case errors.Is(err, accesskey.ErrCompareFirst):
			err = m.compare(ctx)
			asks.Waited = asks.Waited && !compared // a regeneration has overtaken it: wait for that
			compared = true
		case errors.Is(err, accesskey.ErrWaitFirst):
			m.Flights.Pause(ctx, shareWait)
			asks.Waited, err = true, ctx.Err()
		default:
			return got, err
		}
		if err != nil && !errors.Is(err, accesskey.ErrNotDue) { // else it joined work that was not made for readers
			return nil, err
		}
	}
}

// take leases the current key on the terms of the current configuration, which become those
// that the reader asks for.
func (m *Manager) take(ctx context.Context, role func(base accesskey.Terms) accesskey.Terms, asks *accesskey.Terms) (*Answer, error) {
	conn, err := m.Configs.Current(ctx)
	if err != nil {
		return nil, err
	}
	t := accesskey.Terms{TTL: conn.Config.TTL, MaxAge: conn.Config.MaxKeyAge}
	if role != nil {
		t = role(t)
	}
	t.Fresh, t.Waited = asks.Fresh, asks.Waited
	if limit := m.MaxTTL(); limit > 0 {
		t.TTL = min(t.TTL, limit)
	}
	*asks = t
	l, err := m.Keys.Lease(ctx, t)
	if errors.Is(err, accesskey.ErrClosed) && !m.Tainted() {
		m.tell(ctx, accesskey.Reopened) // the mount has been moved, and goes on
		l, err = m.Keys.Lease(ctx, t)
	}
	if err != nil {
		return nil, err
	}
	answer := &Answer{Lease: l, Reused: t.Fresh == 0 || l.Record.Version < t.Fresh}
	if l.Unconfirmed {
		report, _ := m.Health.Report(ctx)
		answer.Unconfirmed = cmp.Or(report.CompareProblem, "Microsoft Graph has not been asked")
	}
	return answer, nil
}

// Rotate regenerates the key for nobody, and returns the new record. Only a regeneration
// that began after the request and was answered counts, and until there is one the engine
// goes on trying, also if this request ends before: the error is then ErrUnconfirmed, or
// what has failed so far.
func (m *Manager) Rotate(ctx context.Context) (accesskey.Record, error) {
	if _, err := m.Configs.Current(ctx); err != nil {
		return accesskey.Record{}, err
	}
	wanted, _, err := m.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Wanted})
	if err != nil {
		return accesskey.Record{}, err
	}
	for {
		release, err := m.regenerate(ctx, attempt{Manager: m, job: breakGlass})
		release()
		rec, failed := m.Keys.Record(ctx)
		switch {
		case failed == nil && rec.Workspace != wanted.Workspace:
			return rec, config.ErrChanged
		case failed == nil && rec.WantedSince.IsZero():
			return rec, nil
		case ctx.Err() != nil:
			return rec, ErrUnconfirmed
		}
		// Of a regeneration without an answer nobody knows whether it was carried out.
		if _, again := errors.AsType[*UnsettledError](err); err != nil && !again && !errors.Is(err, accesskey.ErrNotDue) {
			return rec, err
		}
		if m.Sleep(ctx, between) != nil {
			return rec, errors.Join(ErrUnconfirmed, err)
		}
	}
}
