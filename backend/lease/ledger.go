// SPDX-License-Identifier: MPL-2.0

// Package lease records which leases on the deployment access key are live.
//
// Vault's core keeps the leases, but a plugin cannot ask core for them. The engine has
// to know when the last lease on a key ends, because that is when the key must stop
// working. So it keeps a ledger of its own, with one promise: a lease is on record
// before its key is returned, and stays there until it is revoked or has ended by time.
//
// The ledger knows leases by the version of their key and nothing else about keys. It
// is told the time, and calls nothing but storage.
package lease

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
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
// lease/<key version>/<page>. It remembers the pages of one version, in practice the
// current one. The name of a page contains its end, so one listing answers whether a
// version has a live lease.
//
// A storage write costs more than the rest of a read or a revocation, so changes that
// overlap share one (see write.go). No change returns before it has been stored.
type Ledger struct {
	storing *semaphore.Weighted // of one: held while pages are listed or written

	mu    sync.Mutex
	known *index
	next  *batch // the changes that the next write will store; nil: none
}

// index is what the ledger remembers of the pages of one version.
type index struct {
	version int
	listed  bool                 // pages has them all
	pages   map[string]*pageInfo // a pageInfo is replaced, never changed
	open    map[int64]string     // the page that leases are added to, by its end
}

// pageInfo is what the ledger remembers of a page.
type pageInfo struct {
	end time.Time
	// page is the page itself if only this process writes to it. Otherwise it is nil,
	// and the page is read from storage each time.
	page *page
	live int // number of live leases on it; -1: unknown, but at least one
}

// New returns a ledger that knows nothing yet.
func New() *Ledger {
	return &Ledger{storing: semaphore.NewWeighted(1)}
}

// Add records a lease on a key version that ends at end at the latest, and returns the
// id of its record.
func (l *Ledger) Add(ctx context.Context, s logical.Storage, version int, end time.Time) (string, error) {
	c := &change{version: version, end: end}
	if err := l.change(ctx, s, c); err != nil {
		return "", fmt.Errorf("recording the lease: %w", err)
	}
	return c.id, nil
}

// Remove deletes the record of a lease. It succeeds if there is none.
func (l *Ledger) Remove(ctx context.Context, s logical.Storage, version int, id string) error {
	if err := l.change(ctx, s, &change{version: version, id: id}); err != nil {
		return fmt.Errorf("deleting the record of the lease: %w", err)
	}
	return nil
}

// Discard deletes the record of a lease that was not handed out, and does not wait for
// the write. If the write fails, the record ends by time.
func (l *Ledger) Discard(s logical.Storage, version int, id string) {
	l.join(s, &change{version: version, id: id})
}

// Held reports whether a lease on a key version is live. Every stored page has one until
// the page's end, so no page is read.
func (l *Ledger) Held(ctx context.Context, s logical.Storage, version int, now time.Time) (bool, error) {
	b, err := l.list(ctx, s, version)
	if err != nil {
		return false, err
	}
	return len(l.lasting(b, now)) > 0, nil
}

// Live returns the number of live leases on a key version. It reads each page that
// another process has written once.
func (l *Ledger) Live(ctx context.Context, s logical.Storage, version int, now time.Time) (int, error) {
	b, err := l.list(ctx, s, version)
	if err != nil {
		return 0, err
	}
	if err := l.count(ctx, s, b); err != nil {
		return 0, err
	}
	count := 0
	for _, p := range l.lasting(b, now) {
		count += max(p.live, 1)
	}
	return count, nil
}

// lasting returns the pages that have not ended.
func (l *Ledger) lasting(b *index, now time.Time) (pages []*pageInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range b.pages {
		if p.end.After(now) {
			pages = append(pages, p)
		}
	}
	return pages
}

// count reads the pages whose number of live leases is unknown.
func (l *Ledger) count(ctx context.Context, s logical.Storage, b *index) error {
	l.mu.Lock()
	pages := maps.Clone(b.pages)
	l.mu.Unlock()
	for name, uncounted := range pages {
		if uncounted.live >= 0 {
			continue
		}
		p, err := loadPage(ctx, s, b.version, name)
		if err != nil {
			return err
		}
		l.mu.Lock()
		if p != nil && b.pages[name] == uncounted { // not written to meanwhile
			b.pages[name] = &pageInfo{end: uncounted.end, live: p.live()}
		}
		l.mu.Unlock()
	}
	return nil
}

// list returns the index of a version with all its pages.
func (l *Ledger) list(ctx context.Context, s logical.Storage, version int) (*index, error) {
	if b, listed := l.indexOf(version); listed {
		return b, nil
	}
	if err := l.storing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer l.storing.Release(1)
	b, listed := l.indexOf(version)
	if listed { // by another request meanwhile
		return b, nil
	}
	names, err := s.List(ctx, pageKey(version, ""))
	if err != nil {
		return nil, fmt.Errorf("listing the leases: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pages := make(map[string]*pageInfo, len(names))
	for _, name := range names {
		if pages[name] = b.pages[name]; pages[name] == nil {
			pages[name] = &pageInfo{end: pageEnd(name), live: -1}
		}
	}
	b.pages, b.listed = pages, true
	return b, nil
}

// indexOf returns the index of a version, and whether it has all pages.
func (l *Ledger) indexOf(version int) (b *index, listed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b = l.open(version)
	return b, b.listed
}

// open returns the index of a version, creating it if necessary; the caller holds mu.
func (l *Ledger) open(version int) *index {
	if l.known == nil || l.known.version != version {
		l.known = &index{version: version, pages: map[string]*pageInfo{}, open: map[int64]string{}}
	}
	return l.known
}

// Forget drops everything that the ledger remembers. Another node may have changed what
// is stored.
func (l *Ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = nil
}

// Prune deletes the pages of versions that are not to be kept and those past their end, so that
// a lease that core has lost cannot keep a key alive.
func (l *Ledger) Prune(ctx context.Context, s logical.Storage, keep func(version int) bool, now time.Time) error {
	versions, err := s.List(ctx, Prefix)
	if err != nil {
		return err
	}
	for _, folder := range versions {
		version, err := strconv.Atoi(strings.TrimSuffix(folder, "/"))
		if err != nil {
			continue // not a page of the ledger
		}
		names, err := s.List(ctx, Prefix+folder)
		if err != nil {
			return err
		}
		for _, name := range names {
			if keep(version) && pageEnd(name).After(now) {
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
func (l *Ledger) drop(ctx context.Context, s logical.Storage, version int, name string) error {
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

// remove drops a page that has been deleted.
func (b *index) remove(name string, end time.Time) {
	delete(b.pages, name)
	if b.open[end.Unix()] == name {
		delete(b.open, end.Unix())
	}
}
