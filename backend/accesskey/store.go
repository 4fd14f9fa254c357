// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

var (
	// ErrCompareFirst says that the key has to be compared with the tenant's before the
	// reader can have it.
	ErrCompareFirst = errors.New("the key has to be compared with the tenant's first")

	// ErrRegenerateFirst says that the key has to be regenerated before the reader can
	// have it.
	ErrRegenerateFirst = errors.New("the key has to be regenerated first")

	// ErrUnconfigured is returned by everything that needs a configuration.
	ErrUnconfigured = errors.New("this mount is not configured: write tenant_id, client_id and a credential to its path config first, which is mdi/config for a mount at mdi")

	// ErrClosed is returned to readers of a mount that is going away.
	ErrClosed = errors.New("this mount is being disabled or moved: its key is no longer handed out")

	// ErrNotDue ends an attempt whose reason has gone. No client sees it.
	ErrNotDue = errors.New("there is no need to regenerate the key")

	// ErrUndecided says that it cannot be told yet whether a regeneration has been or
	// will be carried out.
	ErrUndecided = errors.New("the outcome of a regeneration is not known yet")

	// ErrUnreadable says that the stored record is damaged. It does not wrap the
	// decoder's error, which could quote the record.
	ErrUnreadable = errors.New("the stored key record cannot be decoded")
)

// Store keeps the record and the ledger of its leases.
//
// Readers lease the current key side by side under the read lock; whatever changes the
// record takes the write lock. So when an intent has been stored, no lease on the key
// that it puts in doubt is under way any longer, and none follows.
type Store struct {
	storage logical.Storage
	now     func() time.Time
	ledger  *lease.Ledger

	mu     sync.RWMutex
	record *Record // as stored, never changed; nil if it is not known
	policy Policy
	closed bool // the mount is going away: nothing is handed out

	// inAdvance is the version that was stored as disclosed for readers who wait, until
	// one of them has a lease. If none ends up with a lease, it counts as undisclosed.
	inAdvance atomic.Int64
}

// New returns the store of a mount.
func New(storage logical.Storage, now func() time.Time) *Store {
	return &Store{storage: storage, now: now, ledger: lease.New()}
}

// Lease is what a reader gets.
type Lease struct {
	Record Record
	TTL    time.Duration
	ID     string // of the ledger's record
}

// Lease hands out the current key of the configured workspace, if the terms allow it. It
// is the only way by which a key leaves the engine. When it returns, the lease has been
// recorded and the key counts as disclosed. The error is ErrCompareFirst or
// ErrRegenerateFirst if that has to happen first, or ErrClosed.
func (s *Store) Lease(ctx context.Context, t Terms) (*Lease, error) {
	if l, err := s.leaseDisclosed(ctx, t); l != nil || !errors.Is(err, errNeedsLock) {
		return l, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.allowed(ctx, t)
	if err != nil {
		return nil, err
	}
	l, err := s.recordLease(ctx, rec, t.TTL)
	if err != nil || rec.Disclosed {
		return l, err
	}
	l.Record = rec.disclosed()
	if err := s.save(ctx, l.Record); err != nil {
		s.ledger.Discard(s.storage, rec.Version, l.ID)
		return nil, err
	}
	return l, nil
}

// errNeedsLock says that a lease changes the record, or that it has to be loaded.
var errNeedsLock = errors.New("the lease changes the record")

// leaseDisclosed hands out a key that has been handed out before, which changes nothing
// but the ledger.
func (s *Store) leaseDisclosed(ctx context.Context, t Terms) (*Lease, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.record == nil {
		return nil, errNeedsLock
	}
	rec, err := s.allowed(ctx, t)
	if err != nil {
		return nil, err
	}
	if !s.record.Disclosed {
		return nil, errNeedsLock
	}
	l, err := s.recordLease(ctx, rec, t.TTL)
	if err == nil {
		l.Record = rec.disclosed()
	}
	return l, err
}

// allowed returns the record if a reader may have its key now. The caller holds the lock;
// the read lock will do if the record is loaded.
func (s *Store) allowed(ctx context.Context, t Terms) (Record, error) {
	if s.closed {
		return Record{}, ErrClosed
	}
	rec, err := s.load(ctx)
	if err != nil {
		return Record{}, err
	}
	switch decide(rec, t, s.policy, s.now()) {
	case take:
		return rec, nil
	case compareFirst:
		return Record{}, ErrCompareFirst
	case refuse:
		return Record{}, ErrUnconfigured
	default:
		return Record{}, ErrRegenerateFirst
	}
}

func (s *Store) recordLease(ctx context.Context, rec Record, ttl time.Duration) (*Lease, error) {
	id, err := s.ledger.Add(ctx, s.storage, rec.Version, s.now().Add(ttl+lease.Grace))
	if err != nil {
		return nil, err
	}
	s.inAdvance.CompareAndSwap(int64(rec.Version), 0)
	return &Lease{Record: rec, TTL: ttl, ID: id}, nil
}

// Revoke removes the record of a lease, and reports whether it may have been the last on
// the current key. It needs no configuration, and succeeds if there is no such record.
func (s *Store) Revoke(ctx context.Context, version int, id string) (mayBeLast bool, err error) {
	rec, err := s.Record(ctx)
	if err != nil || version < rec.Version { // the records of a superseded version are dropped as a whole
		return false, err
	}
	return true, s.ledger.Remove(ctx, s.storage, version, id)
}

// Record returns the record as it concerns the configured workspace. Without a
// configuration it is that of the workspace before.
func (s *Store) Record(ctx context.Context) (Record, error) {
	s.mu.RLock()
	if s.record != nil {
		defer s.mu.RUnlock()
		return s.load(ctx)
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(ctx)
}

// Due returns what the engine has to do with the key, the most urgent first. awaited says
// that a reader waits for it, as if there were a lease on the key already.
func (s *Store) Due(ctx context.Context, awaited bool) (Record, []string, error) {
	rec, err := s.Record(ctx)
	if err != nil {
		return rec, nil, err
	}
	s.mu.RLock()
	policy := s.policy
	s.mu.RUnlock()
	held, err := s.ledger.Held(ctx, s.storage, rec.Version, s.now())
	if err != nil {
		return rec, nil, err
	}
	return rec, due(rec, held || awaited, policy, s.now()), nil
}

// Live returns the number of live leases on the current key.
func (s *Store) Live(ctx context.Context) (int, error) {
	rec, err := s.Record(ctx)
	if err != nil {
		return 0, err
	}
	return s.ledger.Live(ctx, s.storage, rec.Version, s.now())
}

// Prune deletes the records of leases that are of no use any longer, as many as ctx allows.
func (s *Store) Prune(ctx context.Context) error {
	rec, err := s.Record(ctx)
	if err != nil {
		return err
	}
	return s.ledger.Prune(ctx, s.storage, rec.Version, s.now())
}

// Forget drops what the store remembers of a storage entry that another node has written.
func (s *Store) Forget() {
	s.ledger.Forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record = nil
	s.inAdvance.Store(0)
}

// Event is something that has happened with the key, or is about to.
type Event struct {
	Kind string

	Policy Policy // Configured
	Key    string // Answered, Compared: as Graph has named it; "" if there is none
	Cause  string // Answered: why the key was regenerated
	// Awaited says of an answer that readers wait for it.
	Awaited bool
	// Baseline is the key that Graph named just before the attempt has Begun.
	Baseline string
	// OnlyIf is the work that an attempt is for: it begins only if that is still due. ""
	// always begins.
	OnlyIf string
}

// The kinds of events.
const (
	Begun    = "begun"    // a regeneration is about to be sent
	Answered = "answered" // Graph has answered it with a key
	Refused  = "refused"  // it is proven not to have been carried out
	Lost     = "lost"     // its outcome is not known
	Compared = "compared" // Graph has named the tenant's key

	Configured = "configured" // another policy holds; a zero one: there is no configuration
	Closed     = "closed"     // the mount is going away: nothing is handed out from now on
	Reopened   = "reopened"   // it is not going away after all
)

// Apply stores what an event makes of the record, and returns that. Configured, Closed
// and Reopened are remembered, not stored, and never fail. The error is
// ErrNotDue for an attempt whose reason has gone, and ErrUndecided for a comparison that
// decides nothing.
func (s *Store) Apply(ctx context.Context, e Event) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Kind {
	case Configured:
		s.policy = e.Policy
		return Record{}, nil
	case Closed, Reopened:
		s.closed = e.Kind == Closed
		return Record{}, nil
	}
	rec, err := s.load(ctx)
	if err != nil {
		return rec, err
	}
	next, err := s.step(ctx, rec, e)
	if err != nil {
		return rec, err
	}
	if e.Kind == Answered && e.Awaited {
		next = next.disclosed() // which spares those who wait a write
	}
	if reflect.DeepEqual(next, rec) {
		return rec, nil
	}
	if err := s.save(ctx, next); err != nil {
		return rec, err
	}
	if next.Version != rec.Version {
		s.inAdvance.Store(int64(next.Version))
	}
	return s.seen(next), nil
}

// step is the transition for an event.
func (s *Store) step(ctx context.Context, rec Record, e Event) (Record, error) {
	now := s.now()
	switch e.Kind {
	case Begun:
		if err := s.stillDue(ctx, rec, e.OnlyIf); err != nil {
			return rec, err
		}
		var baseline []byte
		if e.Baseline != "" {
			baseline = rec.mac(e.Baseline)
		}
		return rec.begin(baseline, now), nil
	case Answered:
		return rec.answered(e.Key, e.Cause, now), nil
	case Refused:
		return rec.refused(), nil
	case Lost:
		return rec.lost(now), nil
	case Compared:
		next, found := rec.compared(e.Key, now)
		if found == undecided {
			return rec, ErrUndecided
		}
		return next, nil
	default:
		return rec, fmt.Errorf("no event of the key: %q", e.Kind)
	}
}

func (s *Store) stillDue(ctx context.Context, rec Record, work string) error {
	if work == "" {
		return nil
	}
	held, err := s.ledger.Held(ctx, s.storage, rec.Version, s.now())
	if err == nil && !slices.Contains(due(rec, held, s.policy, s.now()), work) {
		err = ErrNotDue
	}
	return err
}

// load returns the record as it concerns the configured workspace. The caller holds the
// write lock, or, if the record is loaded, the read lock.
func (s *Store) load(ctx context.Context) (Record, error) {
	if s.record == nil {
		rec, err := s.read(ctx)
		if err != nil {
			return Record{}, err
		}
		s.record = &rec
	}
	rec := s.seen(*s.record)
	if s.policy.Workspace != (Workspace{}) {
		rec = rec.turnedAway(s.policy.Workspace)
	}
	return rec, nil
}

// seen returns a record as this process knows it to be: a key that was disclosed in
// advance, and that no reader has, is not disclosed.
func (s *Store) seen(rec Record) Record {
	if rec.Disclosed && s.inAdvance.Load() == int64(rec.Version) {
		return rec.undelivered()
	}
	return rec
}

func (s *Store) read(ctx context.Context) (Record, error) {
	entry, err := s.storage.Get(ctx, StorageKey)
	if err != nil {
		return Record{}, fmt.Errorf("reading the key record: %w", err)
	}
	rec := newRecord()
	if entry != nil {
		if err := entry.DecodeJSON(&rec); err != nil {
			return Record{}, ErrUnreadable
		}
	}
	return rec, nil
}

// save writes the record; the caller holds the write lock. After a failed write the
// content of storage is unknown, so the next to need the record reads it.
func (s *Store) save(ctx context.Context, rec Record) error {
	s.record = nil
	entry, err := logical.StorageEntryJSON(StorageKey, rec)
	if err != nil {
		return ErrUnreadable
	}
	if err := s.storage.Put(ctx, entry); err != nil {
		return fmt.Errorf("storing the key record: %w", err)
	}
	s.record = &rec
	return nil
}
