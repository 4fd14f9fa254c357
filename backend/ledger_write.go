// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"
)

const (
	// ledgerBudget bounds the write of a batch, which belongs to no single request.
	ledgerBudget = 10 * time.Second

	// pagesAtOnce is how many pages of a batch are written at the same time.
	pagesAtOnce = 16
)

// change is a lease to be recorded, or one whose record ends.
type change struct {
	version int
	end     time.Time // of the lease to be recorded
	id      string    // of the record: to be removed, or set when it is made

	err error
}

// batch is the changes that are stored together.
type batch struct {
	changes []*change
	done    chan struct{} // closed when it is known how each change fared
}

// change has a change stored and returns when it is.
func (l *ledger) change(ctx context.Context, s logical.Storage, c *change) error {
	b := l.join(s, c)
	select {
	case <-b.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err() // a lease that has been recorded for nobody ends by time
	}
}

// join adds a change to the batch that gathers while the one before is being written: the
// busier storage is, the more there are in each. The first of a batch has it written, in
// a goroutine and a context that are nobody's, since the others must not go down with
// its request.
func (l *ledger) join(s logical.Storage, c *change) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &batch{done: make(chan struct{})}
		go l.writeBatch(s, l.next)
	}
	l.next.changes = append(l.next.changes, c)
	return l.next
}

// writeBatch stores a batch when the one before has been. Until then others can join.
func (l *ledger) writeBatch(s logical.Storage, b *batch) {
	_ = l.storing.Acquire(context.Background(), 1) // never fails: who has it has a budget
	defer l.storing.Release(1)
	l.mu.Lock()
	l.next = nil
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), ledgerBudget)
	defer cancel()
	l.write(ctx, s, b.changes)
	close(b.done)
}

// write stores changes, page by page, and tells each how that went.
func (l *ledger) write(ctx context.Context, s logical.Storage, changes []*change) {
	var pages errgroup.Group
	pages.SetLimit(pagesAtOnce)
	for _, d := range l.draft(changes) {
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

// draft is what is to become of a page.
type draft struct {
	book    *book // which remembers the page; nil: none
	version int
	name    string
	page    *page // nil: to be read first
	isOwn   bool  // this process alone writes on it
	cleared []int // slots
	changes []*change
}

// draft sorts changes by the pages that they concern, first those on which somebody waits
// for a key.
func (l *ledger) draft(changes []*change) []*draft {
	l.mu.Lock()
	defer l.mu.Unlock()
	var (
		drafts   []*draft
		byPage   = map[string]*draft{}
		removals []*change
	)
	sorted := func(d *draft, c *change) {
		if len(d.changes) == 0 {
			drafts, byPage[pageKey(d.version, d.name)] = append(drafts, d), d
		}
		d.changes = append(d.changes, c)
	}
	for _, c := range changes {
		if c.id != "" {
			removals = append(removals, c)
			continue
		}
		d := l.openPage(c, byPage)
		c.id = leaseID(d.name, d.page.take())
		sorted(d, c)
	}
	for _, c := range removals {
		name, slot := splitLeaseID(c.id)
		d := byPage[pageKey(c.version, name)]
		if d == nil {
			d = l.pageOf(c.version, name)
		}
		d.cleared = append(d.cleared, slot)
		sorted(d, c)
	}
	return drafts
}

// openPage returns the draft of a page with room for a lease. It is a page that this
// process has made, so that none can undo what another one adds.
func (l *ledger) openPage(c *change, byPage map[string]*draft) *draft {
	b, end := l.open(c.version), pageEndFor(c.end)
	name := b.open[end.Unix()]
	d := byPage[pageKey(c.version, name)]
	if d == nil && name != "" {
		d = l.pageOf(c.version, name)
	}
	if d == nil || d.page == nil || d.page.full() {
		name = newPageName(end)
		b.open[end.Unix()] = name
		d = &draft{book: b, version: c.version, name: name, page: &page{}, isOwn: true}
	}
	return d
}

// pageOf returns the draft of a page that there is, or was.
func (l *ledger) pageOf(version int, name string) *draft {
	d := &draft{version: version, name: name}
	if l.known != nil && l.known.version == version {
		d.book = l.known
		if p := l.known.pages[name]; p != nil && p.page != nil {
			d.page, d.isOwn = p.page.clone(), true
		}
	}
	return d
}

// store writes the page. What another process has written on it is read at the last
// moment.
func (d *draft) store(ctx context.Context, s logical.Storage) error {
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

// stored remembers what has become of a page. After a failure nobody knows, so storage
// has to be asked again.
func (l *ledger) stored(d *draft, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.book == nil || d.book != l.known {
		return
	}
	end := pageEnd(d.name)
	switch {
	case failure != nil:
		d.book.remove(d.name, end)
		d.book.listed = false
	case d.page == nil || d.page.live() == 0:
		d.book.remove(d.name, end)
	case d.isOwn:
		d.book.pages[d.name] = &leaf{end: end, page: d.page, live: d.page.live()}
	default:
		d.book.pages[d.name] = &leaf{end: end, live: d.page.live()}
	}
}
