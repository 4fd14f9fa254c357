// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/store"
)

var (
	// ErrWaitFirst says that a reader who shares has to wait for the regeneration that is
	// under way, for a while.
	ErrWaitFirst = errors.New("the key is being regenerated")

	// ErrCompareFirst says that the key has to be compared with the tenant's before the
	// reader can have it.
	ErrCompareFirst = errors.New("the key has to be compared with the tenant's first")

	// ErrRegenerateFirst says that the key has to be regenerated before the reader can
	// have it.
	ErrRegenerateFirst = errors.New("the key has to be regenerated first")

	// ErrInDoubt says that nobody can tell which key is the tenant's.
	ErrInDoubt = errors.New("a regeneration of the key got no answer, and Microsoft Graph does not say which key is the tenant's: try again")

	// ErrUnconfigured is returned by everything that needs a configuration.
	ErrUnconfigured = errors.New("this mount is not configured: write tenant_id, client_id and a credential to its path config first, which is mdi/config for a mount at mdi")

	// ErrClosed is returned to readers of a mount that ends, perhaps to start again.
	ErrClosed = errors.New("this mount is being disabled or moved, or its namespace sealed: its key is no longer handed out")

	// ErrTurning is returned to readers while the key is retired with its configuration.
	ErrTurning = errors.New("the configuration of this mount is being replaced or deleted: try again")

	// ErrNotDue ends an attempt whose reason has gone. No client sees it.
	ErrNotDue = errors.New("there is no need to regenerate the key")

	// ErrOvertaken says that a comparison was made before a regeneration was sent, answered
	// or lost, or of another workspace's key, and so says nothing about the key. No client
	// sees it.
	ErrOvertaken = errors.New("the key has been regenerated, or another tenant configured, since the comparison")

	// ErrUnreadable says that the stored record is damaged. It does not wrap the
	// decoder's error, which could quote the record.
	ErrUnreadable = errors.New("the storage entry " + StorageKey + " of this mount cannot be decoded: a write to its path rotate-key makes a new key and a new entry")
)

// Store keeps the record and the ledger of its leases.
//
// Readers lease the current key side by side under the read lock; whatever changes the
// record takes the write lock. So when an intent has been stored, no lease on the key
// that it puts in doubt is under way. One that follows is a short one, on a key that Graph
// has named since.
//
// What is known although it could not be stored goes on in memory, and is stored before
// the key is leased again.
type Store struct {
	storage logical.Storage
	now     func() time.Time
	ledger  *lease.Ledger

	// What decides, beside the record, whether anything is handed out.
	policy  atomic.Pointer[Policy]
	closed  atomic.Bool // the mount is going away
	turning atomic.Bool // the engine turns away from the workspace

	lock   store.Lock // of what follows
	record *Record    // never changed; nil if it is not known
	dirty  bool       // what is stored is not, or may not be, the record
	asked  asked

	posts atomic.Int64 // see Posts

	// flying says that a regeneration of this process is under way. A record that says so
	// while none is has lost it.
	flying atomic.Bool

	// inAdvance is the version that was stored as disclosed for readers who wait, until
	// one of them has a lease. If none ends up with a lease, it counts as undisclosed.
	inAdvance atomic.Int64

	// reserved is a lease on it that was recorded for one of them, until the first takes it.
	reserved atomic.Pointer[Lease]
}

// New returns the store of a mount.
func New(storage logical.Storage, now func() time.Time) *Store {
	s := &Store{storage: storage, now: now, ledger: lease.New(), lock: store.NewLock()}
	s.policy.Store(&Policy{})
	return s
}

// Lease is what a reader gets.
type Lease struct {
	Record Record
	TTL    time.Duration
	ID     string // of the ledger's record
	// Short says that the lease is a short one because the mount is on watch, and
	// Unconfirmed that Graph has not confirmed the key although it should have.
	Short, Unconfirmed bool
}

// Lease hands out the current key of the configured workspace, if the terms allow it. It
// is the only way by which a key leaves the engine. When it returns, the lease has been
// recorded and the key counts as disclosed. The error is one of those above that says
// what has to happen first, or why nothing is handed out.
func (s *Store) Lease(ctx context.Context, t Terms) (*Lease, error) {
	l, err := s.lease(ctx, t, false)
	if l == nil && err == nil {
		l, err = s.lease(ctx, t, true)
	}
	if err == nil && ctx.Err() != nil { // the reader has left
		s.Withdraw(l)
		return nil, ctx.Err()
	}
	return l, err
}

// Withdraw ends a lease that has not reached its reader.
func (s *Store) Withdraw(l *Lease) { s.ledger.Discard(s.storage, l.Record.Version, l.ID) }

// lease hands out the key. If it has been handed out before, that changes nothing but the
// ledger, and readers need not be alone. Otherwise those who are not get nothing, and no error.
func (s *Store) lease(ctx context.Context, t Terms, alone bool) (*Lease, error) {
	_, unlock, err := s.known(ctx, alone)
	defer unlock()
	if err != nil {
		return nil, err
	}
	unchanged := s.record.Disclosed && !s.dirty
	switch {
	case !unchanged && !alone:
		return nil, nil
	case s.closed.Load():
		return nil, ErrClosed
	case s.turning.Load():
		return nil, ErrTurning
	}
	// In this order: from here on, whoever turns away waits for the lock, and no key is
	// handed out under the policy of another workspace.
	p := *s.policy.Load()
	rec := s.view(p)
	l, err := decide(rec, t, p, s.asked, s.now())
	if err != nil {
		return nil, err
	}
	l.Record, l.TTL = rec.disclosed(), t.TTL
	if l.Short {
		l.TTL = min(l.TTL, ShortTTL)
	}
	if l.ID, err = s.recordLease(ctx, rec.Version, l.TTL); err != nil {
		return nil, err
	}
	s.inAdvance.CompareAndSwap(int64(rec.Version), 0)
	if unchanged {
		return &l, nil
	}
	if err := s.save(ctx, l.Record, rec); err != nil {
		s.Withdraw(&l)
		return nil, err
	}
	return &l, nil
}

// known returns the record as it concerns the configured workspace, and holds the lock,
// alone or beside other readers, until unlock is called. That is also to be called after an
// error.
func (s *Store) known(ctx context.Context, alone bool) (rec Record, unlock func(), err error) {
	if !alone {
		unlock, err = s.lock.Read(ctx)
		switch {
		case err != nil:
			return Record{}, func() {}, err
		case s.record != nil && !s.record.ahead(s.now()) && (!s.record.Intent.UnderWay || s.flying.Load()):
			return s.view(*s.policy.Load()), unlock, nil // it is known, and nothing in it has to be corrected
		}
		unlock()
	}
	if unlock, err = s.lock.Write(ctx); err != nil {
		return Record{}, func() {}, err
	}
	rec, err = s.load(ctx)
	return rec, unlock, err
}

// recordLease records a lease and returns its id. If one is reserved that is as wanted, it is
// that; if it is not, it is withdrawn.
func (s *Store) recordLease(ctx context.Context, version int, ttl time.Duration) (id string, err error) {
	if l := s.reserved.Swap(nil); l != nil {
		if l.Record.Version == version && l.TTL == ttl && s.now().Sub(l.Record.RegeneratedAt).Abs() < reservedFor {
			return l.ID, nil
		}
		s.Withdraw(l)
	}
	return s.ledger.Add(ctx, s.storage, version, s.now().Add(ttl+lease.Grace))
}

// Unreserve withdraws the lease that was recorded for a reader who waited, if none has it yet.
func (s *Store) Unreserve() {
	if l := s.reserved.Swap(nil); l != nil {
		s.Withdraw(l)
	}
}

// Revoke removes the record of a lease, and reports whether it may have been the last on
// a key that still works. It needs no configuration, and succeeds if there is no such
// record, or if the record of the key is damaged. If it fails the record is removed later:
// core asks once only for a lease that it could not register.
func (s *Store) Revoke(ctx context.Context, version int, id string) (mayBeLast bool, err error) {
	rec, err := s.Record(ctx)
	if err != nil && !errors.Is(err, ErrUnreadable) {
		s.ledger.Discard(s.storage, version, id)
		return true, err
	}
	if err == nil && !rec.mayLive(version) { // its records are dropped as a whole
		return false, nil
	}
	return err == nil, s.ledger.Remove(ctx, s.storage, version, id)
}

// Record returns the record as it concerns the configured workspace. Without a
// configuration it is that of the workspace before.
func (s *Store) Record(ctx context.Context) (Record, error) {
	rec, unlock, err := s.known(ctx, false)
	defer unlock()
	return rec, err
}

// Due returns what the engine has to do with the key, the most urgent first.
func (s *Store) Due(ctx context.Context) (rec Record, work []string, err error) {
	rec, unlock, err := s.known(ctx, false)
	defer unlock()
	if err == nil {
		work, err = s.due(ctx, rec)
	}
	return rec, work, err
}

// due is what there is to do with a record. The caller holds a lock.
func (s *Store) due(ctx context.Context, rec Record) (work []string, err error) {
	leased := map[int]bool{} // of the versions that may be the tenant's
	for _, d := range rec.versions() {
		if leased[d.Version], err = s.ledger.Held(ctx, s.storage, d.Version, s.now()); err != nil {
			return nil, err
		}
	}
	turning := s.turning.Load() || s.closed.Load()
	return due(rec, situation{policy: *s.policy.Load(), leased: leased, asked: s.asked, turning: turning, now: s.now()}), nil
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
// It goes by a record that is stored: after a crash, leases on the version that is found
// then must still be known.
func (s *Store) Prune(ctx context.Context) error {
	rec, unlock, err := s.known(ctx, true)
	if err == nil && s.dirty {
		err = s.save(ctx, *s.record, *s.record)
	}
	unlock()
	if err != nil {
		return err
	}
	return s.ledger.Prune(ctx, s.storage, rec.mayLive, s.now())
}

// mayLive reports whether a version may be the tenant's key, now or later.
func (r Record) mayLive(version int) bool {
	return version == r.Version || version > r.newest() || slices.ContainsFunc(r.Displaced, func(d displaced) bool { return d.Version == version })
}

// Forget drops what the store remembers of a storage entry that another node has written.
func (s *Store) Forget() {
	s.Unreserve()
	s.ledger.Forget()
	unlock, _ := s.lock.Write(context.Background()) // never fails: who holds it has a budget
	defer unlock()
	s.record, s.dirty = nil, false
	s.inAdvance.Store(0)
}

// Event is something that has happened with the key, or is about to.
type Event struct {
	Kind string

	Policy Policy // Configured
	Key    string // Answered, Compared: as Graph has named it
	Cause  string // Answered: why the key was regenerated
	// TTL is how long the lease of a reader will be who waits for an answer, 0 if none does.
	TTL time.Duration
	// Posts is what the store's method returned when a comparison began, and Workspace
	// whose Graph was asked.
	Posts     int64
	Workspace Workspace
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
	Unnamed  = "unnamed"  // Graph has been asked for it in vain
	Wanted   = "wanted"   // an operator wants a new key

	Configured = "configured" // another policy holds; a zero one: there is no configuration
	Closed     = "closed"     // the mount is going away: nothing is handed out from now on
	Reopened   = "reopened"   // it is not going away after all
	Turning    = "turning"    // the workspace is about to be left: nothing is handed out
	Turned     = "turned"     // it has been left, or stays
)

// Apply stores what an event makes of the record, and returns that, and what a comparison has
// shown. Events from Configured on are remembered, not stored, and never fail. The error is
// ErrNotDue for an attempt whose reason has gone, and ErrOvertaken for a comparison that says
// nothing. If storage fails, what the event has made known is kept in memory.
func (s *Store) Apply(ctx context.Context, e Event) (Record, string, error) {
	if s.opens(ctx, e) {
		return Record{}, "", nil
	}
	rec, unlock, err := s.known(ctx, true)
	defer unlock()
	if errors.Is(err, ErrUnreadable) && e.Kind == Wanted {
		rec, err = s.healed(ctx)
	}
	if err != nil {
		// A regeneration whose outcome is missed counts as lost from the next look at the record.
		if e.Kind == Answered || e.Kind == Refused || e.Kind == Lost {
			s.flying.Store(false)
		}
		return rec, "", err
	}
	next, finding, err := s.step(ctx, rec, e)
	if err != nil {
		return rec, "", err
	}
	var reserved sync.WaitGroup
	if e.TTL != 0 && next.Version > rec.newest() { // else a comparison has found the key
		next = next.disclosed() // which spares those who wait a write
		s.inAdvance.Store(int64(next.Version))
		reserved.Go(func() { s.reserve(ctx, next, e.TTL) })
	}
	err = s.keep(ctx, e, rec, next)
	reserved.Wait()
	return s.view(*s.policy.Load()), finding, err
}

// reservedFor is how long a lease is reserved. Its record ends in the time of a lease that
// was handed out when it was made: core's clock for it must not start much later.
const reservedFor = time.Second

// reserve records a lease on a new key for a reader who waits for it, while the record is
// being stored. If the process dies between the two, nobody has the lease, nor the version
// that it is on: see found.
func (s *Store) reserve(ctx context.Context, next Record, ttl time.Duration) {
	if next.Watch.On() {
		ttl = min(ttl, ShortTTL)
	}
	if id, err := s.recordLease(ctx, next.Version, ttl); err == nil { // else the reader tries again
		s.reserved.Store(&Lease{Record: next, TTL: ttl, ID: id})
	}
}

// opens handles the events that open and close the door. Once it is closed, it waits for the
// readers who are in: what they have been given counts as disclosed only then.
func (s *Store) opens(ctx context.Context, e Event) bool {
	switch e.Kind {
	case Configured:
		s.policy.Store(&e.Policy)
	case Closed, Reopened:
		s.closed.Store(e.Kind == Closed)
	case Turning, Turned:
		s.turning.Store(e.Kind == Turning)
	default:
		return false
	}
	if e.Kind == Turning || e.Kind == Closed {
		if unlock, err := s.lock.Write(ctx); err == nil {
			unlock()
		}
	}
	return true
}

// keep stores the next record. If the intent of a regeneration cannot be stored, the
// regeneration has not been sent.
func (s *Store) keep(ctx context.Context, e Event, rec, next Record) error {
	if reflect.DeepEqual(next, rec) && !s.dirty {
		return nil
	}
	unstored := next
	if e.Kind == Begun {
		unstored = rec
	}
	err := s.save(ctx, next, unstored)
	s.flying.Store(s.record.Intent.UnderWay)
	return err
}

// step is the transition for an event.
func (s *Store) step(ctx context.Context, rec Record, e Event) (next Record, found string, err error) {
	next, now := rec, s.now()
	switch e.Kind {
	case Begun:
		if e.OnlyIf != "" {
			if work, err := s.due(ctx, rec); err != nil || !slices.Contains(work, e.OnlyIf) {
				return rec, "", cmp.Or(err, ErrNotDue)
			}
		}
		next = rec.begin(now)
	case Answered:
		next = rec.answered(e.Key, e.Cause, now)
	case Refused:
		next = rec.refused()
	case Lost:
		next = rec.lost(now)
	case Wanted:
		next = rec.wanted(now)
	case Compared, Unnamed:
		if e.Posts != s.posts.Load() || e.Workspace != s.policy.Load().Workspace {
			return rec, "", ErrOvertaken
		}
		s.asked = asked{at: now, failed: e.Kind == Unnamed}
		if e.Kind == Compared {
			next, found = rec.compared(e.Key, now)
		}
	default:
		return rec, "", fmt.Errorf("no event of the key: %q", e.Kind)
	}
	if e.Kind == Begun || e.Kind == Answered || e.Kind == Lost {
		s.asked = asked{} // no comparison so far says anything, nor one that is under way
		s.posts.Add(1)
	}
	return next, found, nil
}

// Posts counts when regenerations of this process were sent, answered and lost. A comparison
// says something about the key only if none of these has come between. One that was asked
// while a regeneration was under way may be older than its work, so that it cannot end the
// doubt. The clock does not show that: two events can have the same time.
func (s *Store) Posts() int64 { return s.posts.Load() }

// load loads the record if it is not known, corrects it, and returns the view of it. The caller
// holds the write lock.
func (s *Store) load(ctx context.Context) (Record, error) {
	rec, isNew := newRecord(), s.record == nil
	if !isNew {
		rec = *s.record
	} else if _, err := store.Load(ctx, s.storage, StorageKey, &rec, ErrUnreadable); err != nil {
		return Record{}, err
	}
	if (isNew || rec.Intent.UnderWay) && !s.flying.Load() {
		rec = rec.found(s.now())
	}
	if rec.ahead(s.now()) {
		rec, s.dirty = rec.sane(s.now()), true
	}
	s.record = &rec
	return s.view(*s.policy.Load()), nil
}

// view returns the record, which is known, as it concerns the workspace of a policy. A key
// that was disclosed in advance, and that no reader has, is not disclosed. The caller holds
// a lock.
func (s *Store) view(p Policy) Record {
	rec := *s.record
	rec.Disclosed = rec.Disclosed && s.inAdvance.Load() != int64(rec.Version)
	if p.configured() {
		rec = rec.turnedAway(p.Workspace, s.now())
	}
	return rec
}

// healed begins anew where the record is damaged. Its version is higher than that of any
// key before: than the stored one if that can be made out, and otherwise than any number
// of regenerations, one a second since 1970.
func (s *Store) healed(ctx context.Context) (Record, error) {
	entry, err := s.storage.Get(ctx, StorageKey)
	if err != nil || entry == nil {
		return newRecord(), err
	}
	var salvaged struct{ Version, Newest json.RawMessage }
	_ = json.Unmarshal(entry.Value, &salvaged) // what is damaged stays 0
	rec := newRecord()
	for _, raw := range []json.RawMessage{salvaged.Version, salvaged.Newest} {
		n, _ := strconv.Atoi(strings.Trim(string(raw), `" `))
		rec.Version = max(rec.Version, n)
	}
	rec.Version = cmp.Or(rec.Version, int(s.now().Unix()))
	rec.Newest, rec.Workspace = rec.Version, s.policy.Load().Workspace
	s.dirty = true
	return rec.onWatch(s.now(), true), nil
}

// save writes the record; the caller holds the write lock. After a failed write the
// content of storage is unknown, and unstored is what is known.
func (s *Store) save(ctx context.Context, rec, unstored Record) error {
	s.record, s.dirty = &unstored, true
	if err := store.Save(ctx, s.storage, StorageKey, rec); err != nil {
		return fmt.Errorf("storing the key record: %w", err)
	}
	s.record, s.dirty = &rec, false
	return nil
}
