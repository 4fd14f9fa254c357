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
)

const (
	leasePrefix = "lease/"

	// leaseGrace is added to a lease's duration for the latest possible end of
	// its record: core starts the lease's clock when it registers the answer,
	// and gives up a request after 90 s (Vault's default_max_request_duration).
	leaseGrace = 90 * time.Second
)

// ledger records who has a lease, in pages (see [page]): the storage entries
// lease/<key version>/<page>. It remembers the pages of one version, which in
// practice is the current one.
//
// A write of storage costs more than all else in a read or a revocation, so those
// who overlap share one (see ledger_write.go). None of them returns before what it
// has to record has been stored.
type ledger struct {
	writing sync.Mutex // held while storage is read into known, or written

	mu    sync.Mutex
	known *pages // nil: storage has to be asked
	next  *batch // gathers what is to be written; nil: nothing is
}

// pages are those of one key version.
type pages struct {
	version int
	byName  map[string]*page // a page is replaced, never changed
	open    map[int64]string // the page that leases are added to, by its end
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

// remove ends the record of a lease. There may be none any more. The records of a
// version that has been superseded are left to prune, which drops them as a whole.
func (l *ledger) remove(ctx context.Context, s logical.Storage, version int, id string) error {
	if err := l.change(ctx, s, &change{version: version, id: id}); err != nil {
		return fmt.Errorf("deleting the record of the lease: %w", err)
	}
	return nil
}

// live returns how many leases on a key version have not ended.
func (l *ledger) live(ctx context.Context, s logical.Storage, version int, now time.Time) (int, error) {
	count := 0
	err := l.each(ctx, s, version, func(p *page) bool {
		if p.end.After(now) {
			count += p.live()
		}
		return true
	})
	return count, err
}

// held reports whether a lease on a key version is live. Unlike live it stops at
// the first, since it is asked at every revocation.
func (l *ledger) held(ctx context.Context, s logical.Storage, version int, now time.Time) (bool, error) {
	held := false
	err := l.each(ctx, s, version, func(p *page) bool {
		held = p.end.After(now)
		return !held
	})
	return held, err
}

// each calls visit with each page of a version, until it returns false. A page that
// is stored has a live lease, unless its end has come.
func (l *ledger) each(ctx context.Context, s logical.Storage, version int, visit func(*page) bool) error {
	known := l.remembered()
	if known == nil || known.version != version {
		l.writing.Lock()
		var err error
		known, err = l.load(ctx, s, version)
		l.writing.Unlock()
		if err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range known.byName {
		if !visit(p) {
			break
		}
	}
	return nil
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
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := s.Delete(ctx, pageKey(version, name)); err != nil {
		return err
	}
	if known := l.remembered(); known != nil && known.version == version {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(known.byName, name)
	}
	return nil
}

// forget drops what is remembered; storage knows it all.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = nil
}

func (l *ledger) remembered() *pages {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// load returns the pages of a version, from storage unless they are remembered. The
// caller holds writing.
func (l *ledger) load(ctx context.Context, s logical.Storage, version int) (*pages, error) {
	if known := l.remembered(); known != nil && known.version == version {
		return known, nil
	}
	names, err := s.List(ctx, pageKey(version, ""))
	if err != nil {
		return nil, fmt.Errorf("listing the leases: %w", err)
	}
	loaded := &pages{version: version, byName: make(map[string]*page, len(names)), open: map[int64]string{}}
	for _, name := range names {
		p, err := loadPage(ctx, s, version, name)
		if err != nil {
			return nil, err
		}
		if p != nil {
			loaded.byName[name] = p
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = loaded
	return loaded, nil
}
