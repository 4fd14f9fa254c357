// SPDX-License-Identifier: MPL-2.0

package lease

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"
)

const (
	// ledgerBudget bounds the write of a batch, which has no request of its own.
	ledgerBudget = 10 * time.Second

	// pagesAtOnce is the number of pages of a batch that are written at the same time.
	pagesAtOnce = 16
)

// change adds or removes the record of a lease.
type change struct {
	version int
	end     time.Time // of the lease to add
	id      string    // of the record to remove; set when a record has been added

	err error
}

// batch is the changes that one write stores.
type batch struct {
	changes []*change
	done    chan struct{} // closed when each change has its outcome
}

// change stores a change and returns when it has been stored.
func (l *Ledger) change(ctx context.Context, s logical.Storage, c *change) error {
	b := l.join(s, c)
	select {
	case <-b.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err() // the record, if there will be one, ends by time
	}
}

// join adds a change to the batch that collects changes while the one before is being
// written: the busier storage is, the larger the batches. The batch is written in a
// goroutine with a context of its own, so that no request that ends early fails the
// others.
func (l *Ledger) join(s logical.Storage, c *change) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &batch{done: make(chan struct{})}
		go l.writeBatch(s, l.next)
	}
	l.next.changes = append(l.next.changes, c)
	return l.next
}

// writeBatch stores a batch once the one before has been stored. Until then changes can
// join it.
func (l *Ledger) writeBatch(s logical.Storage, b *batch) {
	_ = l.storing.Acquire(context.Background(), 1) // never fails: its holder has a budget
	defer l.storing.Release(1)
	l.mu.Lock()
	l.next = nil
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), ledgerBudget)
	defer cancel()
	l.write(ctx, s, b.changes)
	close(b.done)
}

// write stores changes page by page and gives each its outcome.
func (l *Ledger) write(ctx context.Context, s logical.Storage, changes []*change) {
	var pages errgroup.Group
	pages.SetLimit(pagesAtOnce)
	for _, d := range l.pageWrites(changes) {
		pages.Go(func() error {
			err := d.store(ctx, s)
			for _, c := range d.changes {
				c.err = err
			}
			l.stored(d, err)
			return nil
		})
	}
	_ = pages.Wait() // each change has its own error
}

// pageWrite is the changes of one page that a batch stores.
type pageWrite struct {
	index   *index // that remembers the page; nil: none
	version int
	name    string
	page    *page // nil: to be read first
	isOwn   bool  // only this process writes to it
	cleared []int // slots
	changes []*change
}

// pageWrites groups changes by page. Pages with additions come first, because readers are
// waiting for them.
func (l *Ledger) pageWrites(changes []*change) []*pageWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	var writes []*pageWrite
	byPage := map[string]*pageWrite{}
	slices.SortStableFunc(changes, func(a, b *change) int { return cmp.Compare(a.id, b.id) }) // additions have no id yet
	for _, c := range changes {
		var d *pageWrite
		if c.id == "" {
			d = l.openPage(c, byPage)
			c.id = recordID(d.name, d.page.take())
		} else {
			name, slot := splitRecordID(c.id)
			if d = byPage[pageKey(c.version, name)]; d == nil {
				d = l.pageOf(c.version, name)
			}
			d.cleared = append(d.cleared, slot)
		}
		if len(d.changes) == 0 {
			writes, byPage[pageKey(d.version, d.name)] = append(writes, d), d
		}
		d.changes = append(d.changes, c)
	}
	return writes
}

// openPage returns the write of a page with room for a lease. It is always a page that
// this process has made, so that no other process can undo the addition.
func (l *Ledger) openPage(c *change, byPage map[string]*pageWrite) *pageWrite {
	b, end := l.open(c.version), pageEndFor(c.end)
	name := b.open[end.Unix()]
	d := byPage[pageKey(c.version, name)]
	if d == nil && name != "" {
		d = l.pageOf(c.version, name)
	}
	if d == nil || d.page == nil || d.page.full() {
		name = newPageName(end)
		b.open[end.Unix()] = name
		d = &pageWrite{index: b, version: c.version, name: name, page: &page{}, isOwn: true}
	}
	return d
}

// pageOf returns the write of a page that exists, or existed.
func (l *Ledger) pageOf(version int, name string) *pageWrite {
	d := &pageWrite{version: version, name: name}
	if l.known != nil && l.known.version == version {
		d.index = l.known
		if p := l.known.pages[name]; p != nil && p.page != nil {
			d.page, d.isOwn = p.page.clone(), true
		}
	}
	return d
}

// store writes the page. If another process may have written to it, store reads it at
// the last moment.
func (d *pageWrite) store(ctx context.Context, s logical.Storage) error {
	if d.page == nil {
		var err error
		if d.page, err = loadPage(ctx, s, d.version, d.name); err != nil || d.page == nil {
			return err
		}
	}
	for _, slot := range d.cleared {
		d.page.clear(slot)
	}
	return d.page.store(ctx, s, d.version, d.name)
}

// stored updates the index after a write. After a failure the content of storage is
// unknown, so the index has to be listed again.
func (l *Ledger) stored(d *pageWrite, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.index == nil || d.index != l.known {
		return
	}
	end := pageEnd(d.name)
	switch {
	case failure != nil:
		d.index.remove(d.name, end)
		d.index.listed = false
	case d.page == nil || d.page.live() == 0:
		d.index.remove(d.name, end)
	case d.isOwn:
		d.index.pages[d.name] = &pageInfo{end: end, page: d.page, live: d.page.live()}
	default:
		d.index.pages[d.name] = &pageInfo{end: end, live: d.page.live()}
	}
}
