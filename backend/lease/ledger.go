// SPDX-License-Identifier: MPL-2.0

// Package lease records which leases on the deployment access key are live.
//
// Vault's core keeps the leases, but a plugin cannot ask core for them. The engine has
// to know when the last lease on a key ends, because that is when the key must stop
// working. So it keeps a ledger of its own, with one promise: a lease is on record
// before its key is returned, and stays there until it is revoked or has ended by time.
//
// The ledger knows leases by the version of their key and nothing else about keys. It is
// told when leases end and what time it is for them. How long its own pages stay open it
// measures itself. It calls nothing but storage.
package lease

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	// Prefix is where the ledger's pages are stored.
	Prefix = "lease/"

	// Grace is added to a lease's duration to get the latest possible end of its
	// record: core starts the lease's clock when it registers the answer, and gives up
	// a request after 90 s (Vault's default_max_request_duration).
	Grace = 90 * time.Second
)

// Ledger records leases in pages (see [page]), the storage entries
// lease/<key version>/<page>. It remembers the pages of the versions that are asked for. The
// name of a page contains its end, so one listing answers whether a version has a live
// lease. It does not if another process than the one that made the leases has removed some.
//
// A storage write costs more than the rest of a read or a revocation, so changes that
// overlap share one (see write.go). No change returns before it has been stored.
//
// A lease that has ended does not count as live from then on. If that cannot be stored it
// is remembered, and stored with a later change or by Prune: a ledger has nothing that would
// have to be stopped.
type Ledger struct {
	storing *semaphore.Weighted // of one: held while pages are listed or written

	mu       sync.Mutex
	pages    map[string]*page   // what is remembered of them, by key
	listed   map[int]bool       // the versions of which they are all remembered
	open     []*page            // those that leases may be added to
	next     []*change          // what the next write will store; nil: none is due
	hurry    context.CancelFunc // lets it wait for no more
	took     time.Duration      // what the last write took
	gathered time.Time          // when waiting for more last brought too few
	behind   map[*page]bool     // the pages whose removals could not be stored
	repeated time.Time          // when that was last tried again beside other changes
}

// New returns a ledger that knows nothing yet.
func New() *Ledger {
	return &Ledger{storing: semaphore.NewWeighted(1), pages: map[string]*page{}, listed: map[int]bool{}, behind: map[*page]bool{}}
}

// Add records a lease on a key version that ends at end at the latest, and returns the
// id of its record. If it fails there is no record, or none for long; that includes a context
// that ends first.
func (l *Ledger) Add(ctx context.Context, s logical.Storage, version int, end time.Time) (string, error) {
	l.mu.Lock()
	c := l.join(s, &change{version: version, end: end})
	l.mu.Unlock()
	if err := c.wait(ctx); err != nil {
		l.abandon(s, c)
		return "", fmt.Errorf("recording the lease: %w", err)
	}
	return c.id(), nil
}

// Remove deletes the record of a lease. It succeeds if there is none. If it fails, or its
// context ends first, the record is deleted later.
func (l *Ledger) Remove(ctx context.Context, s logical.Storage, version int, id string) error {
	l.mu.Lock()
	c := l.strike(s, version, id)
	l.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := c.wait(ctx); err != nil {
		return fmt.Errorf("deleting the record of the lease: %w", err)
	}
	return nil
}

// Discard deletes the record of a lease that was not handed out, and waits for nothing.
func (l *Ledger) Discard(s logical.Storage, version int, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strike(s, version, id)
}

// strike notes that a lease has ended, and returns the change that stores it, which is
// repeated until it is stored; nil: there is no such lease. The caller holds mu.
func (l *Ledger) strike(s logical.Storage, version int, id string) *change {
	name, number, found := strings.Cut(id, ".")
	slot, err := strconv.Atoi(number)
	if !found { // of version 0.1.0: the only slot of its page
		slot, err = 0, nil
	}
	if err != nil || slot < 0 || slot >= pageSlots || siblingOf(name) != "" {
		return nil
	}
	p := l.page(version, name)
	p.unstored = p.unstored.with(slot)
	return l.join(s, &change{page: p})
}

// Held reports whether a lease on a key version is live. It reads no page but those that
// have siblings, until it knows of a live lease.
func (l *Ledger) Held(ctx context.Context, s logical.Storage, version int, now time.Time) (bool, error) {
	live, err := l.survey(ctx, s, version, now, false)
	return live > 0, err
}

// Live returns the number of live leases on a key version. It reads each page that
// another process has made, and remembers it.
func (l *Ledger) Live(ctx context.Context, s logical.Storage, version int, now time.Time) (int, error) {
	return l.survey(ctx, s, version, now, true)
}

// Forget drops what the ledger remembers of storage, which another node may have changed.
// What is still to be removed stays.
func (l *Ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listed = map[int]bool{}
	for _, p := range l.pages {
		if p.own || !p.made { // else a write that failed may still be carried out
			p.made, p.own, p.content, p.since = false, false, content{}, time.Now()
		}
	}
}

// Prune deletes the pages that are of no use: those of versions that are not to be kept,
// those whose leases have all been removed, and those past their end. A lease that core has
// lost must not keep a key alive. It also stores the removals that failed before.
func (l *Ledger) Prune(ctx context.Context, s logical.Storage, keep func(version int) bool, now time.Time) error {
	folders, err := s.List(ctx, Prefix)
	if err != nil {
		return err
	}
	var versions []int
	l.mu.Lock()
	for _, p := range l.pages {
		versions = append(versions, p.version)
	}
	l.mu.Unlock()
	for _, folder := range folders {
		version, err := strconv.Atoi(strings.TrimSuffix(folder, "/"))
		if err == nil { // else it is not the ledger's
			versions = append(versions, version)
		}
	}
	slices.Sort(versions)
	for _, version := range slices.Compact(versions) {
		if err := l.tidy(ctx, s, version, keep(version), now); err != nil {
			return err
		}
	}
	l.mu.Lock()
	maps.DeleteFunc(l.listed, func(version int, _ bool) bool { return !keep(version) })
	l.mu.Unlock()
	return l.repeat(ctx, s)
}

// tidy deletes the pages of a version that are of no use any longer, with their siblings.
// All are, if it is not to be kept.
func (l *Ledger) tidy(ctx context.Context, s logical.Storage, version int, keep bool, now time.Time) error {
	orphans, err := l.list(ctx, s, version, true)
	if err != nil {
		return err
	}
	_, over := l.choose(version, func(p *page) bool { return !keep || !p.end.After(now) })
	if err := l.delete(ctx, s, append(over, orphans...)); err != nil { // first: a page that cannot be read keeps no other
		return err
	}
	unsure, _ := l.choose(version, func(p *page) bool { return p.isUnsure(false) })
	if err := l.read(ctx, s, unsure); err != nil {
		return err
	}
	_, dead := l.choose(version, (*page).isDead)
	return l.delete(ctx, s, dead)
}

// repeat stores the removals that could not be stored.
func (l *Ledger) repeat(ctx context.Context, s logical.Storage) error {
	var all errgroup.Group
	l.mu.Lock()
	for p := range l.behind {
		c := l.join(s, &change{page: p})
		all.Go(func() error { return c.wait(ctx) })
	}
	l.mu.Unlock()
	return all.Wait()
}

// choose returns the pages of a version that satisfy is, and their keys with those of their
// siblings, the page first: without it its siblings mean nothing. It takes mu, and calls is
// under it.
func (l *Ledger) choose(version int, is func(*page) bool) (chosen []*page, keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pages {
		if p.version == version && is(p) {
			chosen = append(chosen, p)
			keys = slices.AppendSeq(append(keys, p.key), maps.Keys(p.siblings))
		}
	}
	return chosen, keys
}

// delete deletes pages and siblings.
func (l *Ledger) delete(ctx context.Context, s logical.Storage, keys []string) error {
	for _, key := range keys {
		if err := l.storing.Acquire(ctx, 1); err != nil {
			return err
		}
		err := s.Delete(ctx, key)
		l.mu.Lock()
		if p := l.pages[key]; err == nil && p != nil {
			l.remove(p)
		}
		l.mu.Unlock()
		l.storing.Release(1)
		if err != nil {
			return err
		}
	}
	return nil
}
