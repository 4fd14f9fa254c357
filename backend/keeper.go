// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

// keeper owns the key record and the ledger of its leases.
//
// Readers lease the current key side by side under the read lock; whatever changes
// the record takes the write lock. So when an intent has been stored, no lease on
// the key that it puts in doubt is under way any more, and none follows.
type keeper struct {
	now    func() time.Time
	ledger *lease.Ledger

	mu     sync.RWMutex
	record *keyRecord // as stored; nil if not known
	closed bool       // nothing is disclosed any more: the mount is going away

	// untaken is the version that was marked as disclosed when it was stored, until
	// somebody gets it: if they all leave without it, it is not.
	untaken atomic.Int64
}

func newKeeper(now func() time.Time) *keeper {
	return &keeper{now: now, ledger: lease.New()}
}

// lease is what a reader gets: the key, for how long, and the id of the ledger's
// record.
type grant struct {
	record *keyRecord
	ttl    time.Duration
	id     string
}

// lease hands out the current key of a workspace for ttl if accept agrees to it;
// else it returns nil. It is the only way by which a key leaves the engine. The
// lease has been recorded, and the key marked as disclosed, when it returns.
func (k *keeper) lease(ctx context.Context, s logical.Storage, ws workspace, ttl time.Duration, accept func(*keyRecord) bool) (*grant, error) {
	if l, done, err := k.leaseAgain(ctx, s, ws, ttl, accept); done {
		return l, err
	}
	return k.leaseFirst(ctx, s, ws, ttl, accept)
}

// leaseAgain hands out a key that has been handed out before, which changes nothing
// but the ledger. It is done unless the key has not been disclosed yet or the
// record has to be loaded.
func (k *keeper) leaseAgain(ctx context.Context, s logical.Storage, ws workspace, ttl time.Duration, accept func(*keyRecord) bool) (l *grant, done bool, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch rec := k.record; {
	case k.closed:
		return nil, true, errClosed
	case rec == nil:
		return nil, false, nil
	case rec.Workspace != ws || !rec.usable() || !accept(k.seen(rec)):
		return nil, true, nil
	case !rec.Disclosed:
		return nil, false, nil
	default:
		id, err := k.ledger.Add(ctx, s, rec.Version, k.now().Add(ttl+lease.Grace))
		if err != nil {
			return nil, true, err
		}
		k.untaken.CompareAndSwap(int64(rec.Version), 0)
		return &grant{record: rec, ttl: ttl, id: id}, true, nil
	}
}

// leaseFirst hands out a key that may not have been handed out before.
func (k *keeper) leaseFirst(ctx context.Context, s logical.Storage, ws workspace, ttl time.Duration, accept func(*keyRecord) bool) (*grant, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, errClosed
	}
	rec, err := k.load(ctx, s)
	if err != nil {
		return nil, err
	}
	if rec.Workspace != ws || !rec.usable() || !accept(k.seen(rec)) {
		return nil, nil
	}
	id, err := k.ledger.Add(ctx, s, rec.Version, k.now().Add(ttl+lease.Grace))
	if err != nil {
		return nil, err
	}
	if !rec.Disclosed {
		disclosed := *rec
		disclosed.Disclosed = true
		if err := k.store(ctx, s, &disclosed); err != nil {
			k.ledger.Discard(s, rec.Version, id)
			return nil, err
		}
		rec = &disclosed
	}
	k.untaken.CompareAndSwap(int64(rec.Version), 0)
	return &grant{record: rec, ttl: ttl, id: id}, nil
}

// current returns the record as it concerns a workspace.
func (k *keeper) current(ctx context.Context, s logical.Storage, ws workspace) (*keyRecord, error) {
	rec, err := k.stored(ctx, s)
	if err != nil {
		return nil, err
	}
	return rec.in(ws), nil
}

// seen returns a record as this process knows it to be: a key that was marked as
// disclosed because it was awaited, and that nobody has got, is not.
func (k *keeper) seen(rec *keyRecord) *keyRecord {
	if !rec.Disclosed || k.untaken.Load() != int64(rec.Version) {
		return rec
	}
	untaken := *rec
	untaken.Disclosed = false
	return &untaken
}

// stored returns the record, of whatever workspace.
func (k *keeper) stored(ctx context.Context, s logical.Storage) (*keyRecord, error) {
	k.mu.RLock()
	rec := k.record
	k.mu.RUnlock()
	if rec != nil {
		return k.seen(rec), nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	rec, err := k.load(ctx, s)
	if err != nil {
		return nil, err
	}
	return k.seen(rec), nil
}

// intend stores that the key is about to be regenerated. It returns errNotDue if
// due, asked under the lock, finds that there is no need any more.
func (k *keeper) intend(ctx context.Context, s logical.Storage, ws workspace, baseline []byte, due func(rec *keyRecord, held bool) bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rec, err := k.load(ctx, s)
	if err != nil {
		return err
	}
	rec = rec.in(ws)
	if due != nil {
		held, err := k.ledger.Held(ctx, s, rec.Version, k.now())
		if err != nil {
			return err
		}
		if !due(k.seen(rec), held) {
			return errNotDue
		}
	}
	intended := *rec
	intended.Intent = &intent{StartedAt: k.now(), Deadline: k.now().Add(flightBudget), Baseline: baseline}
	return k.store(ctx, s, &intended)
}

// redate lets the time of an intent begin now and returns the record with it.
func (k *keeper) redate(ctx context.Context, s logical.Storage) (*keyRecord, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rec, err := k.load(ctx, s)
	if err != nil || rec.Intent == nil {
		return rec, err
	}
	redated := *rec
	redated.Intent = &intent{StartedAt: k.now(), Deadline: k.now().Add(flightBudget), Baseline: rec.Intent.Baseline}
	return &redated, k.store(ctx, s, &redated)
}

// withdraw removes an intent whose request was never carried out.
func (k *keeper) withdraw(ctx context.Context, s logical.Storage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rec, err := k.load(ctx, s)
	if err != nil || rec.Intent == nil {
		return err
	}
	trusted := *rec
	trusted.Intent = nil
	return k.store(ctx, s, &trusted)
}

// adopt stores key as the new version of a workspace's key, which settles any
// intent. One that is awaited is marked as disclosed at once, which spares those who
// wait a write.
func (k *keeper) adopt(ctx context.Context, s logical.Storage, ws workspace, key string, why cause, awaited bool) (*keyRecord, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rec, err := k.load(ctx, s)
	if err != nil {
		return nil, err
	}
	next := rec.in(ws).next(key, why, k.now())
	next.Disclosed = awaited
	if err := k.store(ctx, s, next); err != nil {
		return nil, err
	}
	k.untaken.Store(int64(next.Version))
	return k.seen(next), nil
}

// compared stores that the key of a version has just been found to be the tenant's.
func (k *keeper) compared(ctx context.Context, s logical.Storage, version int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rec, err := k.load(ctx, s)
	if err != nil || rec.Version != version {
		return err
	}
	checked := *rec
	checked.ComparedAt = k.now()
	return k.store(ctx, s, &checked)
}

// superseded reports whether a version is not the current one any more.
func (k *keeper) superseded(ctx context.Context, s logical.Storage, version int) (bool, error) {
	rec, err := k.stored(ctx, s)
	return err == nil && version < rec.Version, err
}

// held reports whether a lease on the record's key is live.
func (k *keeper) held(ctx context.Context, s logical.Storage, rec *keyRecord) (bool, error) {
	return k.ledger.Held(ctx, s, rec.Version, k.now())
}

// setClosed stops disclosure, or allows it again.
func (k *keeper) setClosed(closed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = closed
}

// forget drops what is remembered of the record; storage has it.
func (k *keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.record = nil
	k.untaken.Store(0)
}

// load returns the record; the caller holds the write lock.
func (k *keeper) load(ctx context.Context, s logical.Storage) (*keyRecord, error) {
	if k.record != nil {
		return k.record, nil
	}
	entry, err := s.Get(ctx, keyStorageKey)
	if err != nil {
		return nil, fmt.Errorf("reading the key record: %w", err)
	}
	rec := newKeyRecord()
	if entry != nil {
		if err := entry.DecodeJSON(rec); err != nil {
			return nil, errUnreadableRecord // not err: it could quote the record
		}
	}
	k.record = rec
	return rec, nil
}

// store writes the record; the caller holds the write lock. After a failed write
// nobody knows what storage holds, so the next to need it looks.
func (k *keeper) store(ctx context.Context, s logical.Storage, rec *keyRecord) error {
	k.record = nil
	entry, err := logical.StorageEntryJSON(keyStorageKey, rec)
	if err != nil {
		return errUnreadableRecord
	}
	if err := s.Put(ctx, entry); err != nil {
		return fmt.Errorf("storing the key record: %w", err)
	}
	k.record = rec
	return nil
}
