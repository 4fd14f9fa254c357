// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/semaphore"
)

const (
	leasePrefix = "lease/"

	// leaseGrace is added to a lease's duration for the latest possible end of
	// its record: core starts the lease's clock when it registers the answer,
	// and gives up a request after 90 s (Vault's default_max_request_duration).
	leaseGrace = 90 * time.Second
)

// ledger records who has a lease, in pages (see [page]): the storage entries
// lease/<key version>/<page>. It remembers which pages one version has, in practice the
// current one. A page's name tells its end, so to know whether anybody has a lease takes
// a listing and no more.
//
// A write of storage costs more than all else in a read or a revocation, so those
// who overlap share one (see ledger_write.go). None of them returns before what it
// has to record has been stored.
type ledger struct {
	storing *semaphore.Weighted // of one: for who lists the pages, or writes them

	mu    sync.Mutex
	known *book
	next  *batch // gathers what is to be written; nil: nothing is
}

// book is what is remembered of the pages of one version.
type book struct {
	version int
	listed  bool             // pages has them all
	pages   map[string]*leaf // a leaf is replaced, never changed
	open    map[int64]string // the page that leases are added to, by its end
}

// leaf is what is remembered of a page.
type leaf struct {
	end time.Time
	// page is the page itself, if this process alone writes on it. Else storage has
	// to be asked each time.
	page *page
	live int // how many leases on it are live; -1: not known, but some are
}

func newLedger() *ledger {
	return &ledger{storing: semaphore.NewWeighted(1)}
}

// add records a lease on a key version that ends at end at the latest and returns
// the id of its record.
func (l *ledger) add(ctx context.Context, s logical.Storage, version int, end time.Time) (string, error) {
	c := &change{version: version, end: end}
	if err := l.change(ctx, s, c); err != nil {
		return "", fmt.Errorf("recording the lease: %w", err)
	}
	return c.id, nil
}

// remove ends the record of a lease. There may be none any more.
func (l *ledger) remove(ctx context.Context, s logical.Storage, version int, id string) error {
	if err := l.change(ctx, s, &change{version: version, id: id}); err != nil {
		return fmt.Errorf("deleting the record of the lease: %w", err)
	}
	return nil
}

// discard ends the record of a lease that nobody has got, without waiting for it. If it
// cannot be removed it ends by time.
func (l *ledger) discard(s logical.Storage, version int, id string) {
	l.join(s, &change{version: version, id: id})
}

// held reports whether a lease on a key version is live. A page that is stored has one,
// until its end.
func (l *ledger) held(ctx context.Context, s logical.Storage, version int, now time.Time) (bool, error) {
	b, err := l.list(ctx, s, version)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range b.pages {
		if p.end.After(now) {
			return true, nil
		}
	}
	return false, nil
}

// live returns how many leases on a key version have not ended. Pages that another
// process has written are read for it once.
func (l *ledger) live(ctx context.Context, s logical.Storage, version int, now time.Time) (int, error) {
	b, err := l.list(ctx, s, version)
	if err != nil {
		return 0, err
	}
	if err := l.count(ctx, s, b); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	count := 0
	for _, p := range b.pages {
		if p.end.After(now) {
			count += max(p.live, 1)
		}
	}
	return count, nil
}

// count looks into the pages of which it is not known how many leases are live.
func (l *ledger) count(ctx context.Context, s logical.Storage, b *book) error {
	for name, uncounted := range l.uncounted(b) {
		p, err := loadPage(ctx, s, b.version, name)
		if err != nil {
			return err
		}
		l.mu.Lock()
		if p != nil && b.pages[name] == uncounted { // nobody has written on it meanwhile
			b.pages[name] = &leaf{end: uncounted.end, live: p.live()}
		}
		l.mu.Unlock()
	}
	return nil
}

func (l *ledger) uncounted(b *book) map[string]*leaf {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]*leaf{}
	for name, p := range b.pages {
		if p.live < 0 {
			found[name] = p
		}
	}
	return found
}

// list returns the book of a version with all its pages.
func (l *ledger) list(ctx context.Context, s logical.Storage, version int) (*book, error) {
	if b := l.listed(version); b != nil {
		return b, nil
	}
	if err := l.storing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer l.storing.Release(1)
	l.mu.Lock()
	b := l.open(version)
	l.mu.Unlock()
	names, err := s.List(ctx, pageKey(version, ""))
	if err != nil {
		return nil, fmt.Errorf("listing the leases: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pages := make(map[string]*leaf, len(names))
	for _, name := range names {
		if pages[name] = b.pages[name]; pages[name] == nil {
			pages[name] = &leaf{end: pageEnd(name), live: -1}
		}
	}
	b.pages, b.listed = pages, true
	return b, nil
}

// listed returns the book of a version if it has all pages, else nil.
func (l *ledger) listed(version int) *book {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || l.known.version != version || !l.known.listed {
		return nil
	}
	return l.known
}

// open returns the book of a version, perhaps a new one; the caller holds mu.
func (l *ledger) open(version int) *book {
	if l.known == nil || l.known.version != version {
		l.known = &book{version: version, pages: map[string]*leaf{}, open: map[int64]string{}}
	}
	return l.known
}

// forget drops what is remembered; storage knows it all.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = nil
}

// prune deletes the pages of superseded versions and those past their end, so that a
// lease that core has lost cannot keep a key alive.
func (l *ledger) prune(ctx context.Context, s logical.Storage, current int, now time.Time) error {
	versions, err := s.List(ctx, leasePrefix)
	if err != nil {
		return err
	}
	for _, folder := range versions {
		version, err := strconv.Atoi(strings.TrimSuffix(folder, "/"))
		if err != nil {
			continue // not ours to judge
		}
		names, err := s.List(ctx, leasePrefix+folder)
		if err != nil {
			return err
		}
		for _, name := range names {
			if version >= current && pageEnd(name).After(now) {
				continue
			}
			if err := l.drop(ctx, s, version, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop deletes a page, whose leases have all ended.
func (l *ledger) drop(ctx context.Context, s logical.Storage, version int, name string) error {
	if err := l.storing.Acquire(ctx, 1); err != nil {
		return err
	}
	defer l.storing.Release(1)
	if err := s.Delete(ctx, pageKey(version, name)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known != nil && l.known.version == version {
		l.known.remove(name, pageEnd(name))
	}
	return nil
}

// remove forgets a page that is no more.
func (b *book) remove(name string, end time.Time) {
	delete(b.pages, name)
	if b.open[end.Unix()] == name {
		delete(b.open, end.Unix())
	}
}
