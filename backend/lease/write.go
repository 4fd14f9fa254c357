// SPDX-License-Identifier: MPL-2.0

package lease

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/backend/store"
)

const (
	// ledgerBudget bounds the write of a batch, which has no request of its own.
	ledgerBudget = 10 * time.Second

	// pagesAtOnce is the number of pages of a batch that are written at the same time.
	pagesAtOnce = 16

	// A batch of removals that overlaps another waits for more, in units of what the last
	// one took, and no longer than gatherMost. Vault's queue brings one or two while a batch
	// is being written, and more if that is less busy with their storage.
	gatherFor  = 3
	gatherMost = 15 * time.Millisecond

	// gatherMin is how many removals have to come for that to go on: a client or two who
	// revoke one lease after the other would only wait longer. gatherAgain is how long it is
	// given up if fewer have come.
	gatherMin   = 3
	gatherAgain = 200 * time.Millisecond

	// repeatEvery is the shortest time between two batches that repeat removals. Prune
	// repeats them as well.
	repeatEvery = 5 * time.Second

	// maxBehind bounds the pages that are remembered because a write of them failed.
	maxBehind = 10000
)

// change adds the record of a lease, or removes some.
type change struct {
	version int
	end     time.Time // of the lease to add
	page    *pageInfo // nil: one has to be found for the lease. A removal is in its unstored
	slot    int       // of the lease to add

	abandoned bool // nobody waits for the lease
	err       error
	done      chan struct{} // closed when err is known
}

// add makes the change that adds a lease.
func add(version int, end time.Time) *change {
	return &change{version: version, end: end, done: make(chan struct{})}
}

// removal makes the change that stores what is to be removed from a page.
func removal(p *pageInfo) *change {
	return &change{version: p.version, page: p, slot: -1, done: make(chan struct{})}
}

func (c *change) isAdd() bool { return c.slot >= 0 }

// wait returns when a change has been stored.
func (c *change) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// strike notes that a lease has ended, and returns the change that stores it, which is
// repeated until it is stored; nil: there is no such lease. The caller holds mu.
func (l *Ledger) strike(s logical.Storage, version int, id string) *change {
	name, slot, ok := splitRecordID(id)
	if _, isSibling := siblingOf(name); !ok || isSibling {
		return nil
	}
	p := l.index(version).info(name)
	p.unstored = p.unstored.with(slot)
	return l.join(s, removal(p))
}

// abandon ends a lease that nobody waits for any longer: it is dropped if it has not been
// written yet, else removed as soon as it has been.
func (l *Ledger) abandon(s logical.Storage, c *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-c.done:
		if c.err == nil {
			l.strike(s, c.version, recordID(c.page.name, c.slot))
		}
	default:
		c.abandoned = true
	}
}

// join adds a change to the batch that collects changes while the one before is being
// written: the busier storage is, the larger the batches. The batch is written in a
// goroutine with a context of its own, so that no request that ends early fails the
// others. The caller holds mu.
func (l *Ledger) join(s logical.Storage, c *change) *change {
	if l.next == nil {
		l.begin(s)
	}
	if c.isAdd() {
		l.hurry()
	}
	l.next = append(l.next, c)
	return c
}

// begin begins a batch. If no other is being written, it is written at once. Otherwise it
// waits for more removals and for the other, but only for the other if a lease is to be
// added: a reader is waiting. The caller holds mu.
func (l *Ledger) begin(s logical.Storage) {
	if l.storing.TryAcquire(1) {
		l.hurry = func() {} // it does not wait
		go l.writeBatch(s)
		return
	}
	more, hurry := context.WithTimeout(context.Background(), min(gatherFor*l.took, gatherMost))
	if l.hurry = hurry; time.Since(l.gathered) < gatherAgain {
		hurry()
	}
	go func() {
		<-more.Done()
		hurry()
		l.mu.Lock()
		if errors.Is(more.Err(), context.DeadlineExceeded) && len(l.next) < gatherMin {
			l.gathered = time.Now()
		}
		l.mu.Unlock()
		_ = l.storing.Acquire(context.Background(), 1) // never fails: its holder has a budget
		l.writeBatch(s)
	}()
}

// writeBatch stores the next batch, and lets the one after be stored. Until it begins,
// changes can join it. Each change has its outcome when its own page has been written.
func (l *Ledger) writeBatch(s logical.Storage) {
	defer l.storing.Release(1)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), ledgerBudget)
	defer cancel()
	var pages errgroup.Group
	pages.SetLimit(pagesAtOnce)
	for _, d := range l.pageWrites() {
		pages.Go(func() error {
			err := d.store(ctx, s)
			l.finish(s, d, err)
			return nil
		})
	}
	_ = pages.Wait() // each change has its own error
	l.mu.Lock()
	l.took = time.Since(began)
	l.mu.Unlock()
}

// pageWrite is the changes of one page that a batch stores.
type pageWrite struct {
	info      *pageInfo
	changes   []*change
	own, made bool   // of info
	before    *page  // as it is known; nil: it has not been read
	page      *page  // to be stored if it is own; else as it is known
	ending    bitset // the leases that are removed
	sibling   string // stores removed, if the page is not own
	removed   bitset
	found     bool // the page was read by this write
}

// pageWrites takes the next batch and groups it by page. Pages with additions come first,
// because readers are waiting for them; those that are only repeated come last.
func (l *Ledger) pageWrites() []*pageWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := grouped{byPage: map[*pageInfo]*pageWrite{}}
	for _, c := range l.next {
		if c.isAdd() && !c.abandoned {
			d := l.openPage(c, &g)
			c.page, c.slot = d.info, d.page.take()
			d.changes = append(d.changes, c)
		}
	}
	for _, c := range l.next {
		if !c.isAdd() {
			d := g.of(c.page)
			d.changes = append(d.changes, c)
		}
	}
	l.next = nil
	l.repeatSome(&g)
	for _, d := range g.writes {
		d.end()
	}
	return g.writes
}

// repeatSome adds pages whose removals could not be stored, if it is time.
func (l *Ledger) repeatSome(g *grouped) {
	if len(l.behind) == 0 || time.Since(l.repeated) < repeatEvery {
		return
	}
	l.repeated = time.Now()
	some := 0
	for p := range l.behind {
		g.of(p)
		if some++; some == pagesAtOnce {
			return
		}
	}
}

// grouped are the writes of a batch, in their order.
type grouped struct {
	writes []*pageWrite
	byPage map[*pageInfo]*pageWrite
}

// of returns the write of a page.
func (g *grouped) of(p *pageInfo) *pageWrite {
	d := g.byPage[p]
	if d == nil {
		d = &pageWrite{info: p, own: p.own, made: p.made, before: p.page, page: p.page}
		if p.made {
			c := *p.page
			d.page = &c
		}
		g.writes, g.byPage[p] = append(g.writes, d), d
	}
	return d
}

// openPage returns the write of a page with room for a lease. It is always a page that
// this process has made not long ago: see settled.
func (l *Ledger) openPage(c *change, g *grouped) *pageWrite {
	b, end := l.index(c.version), pageEndFor(c.end)
	if p := b.open[end.Unix()]; p != nil && p.own && time.Since(p.since) < openFor {
		page := p.page
		if d := g.byPage[p]; d != nil {
			page = d.page
		}
		if !page.isFull() {
			return g.of(p)
		}
	}
	p := b.info(newPageName(end))
	p.made, p.own, p.page = true, true, &page{}
	b.open[end.Unix()] = p
	return g.of(p)
}

// end takes the leases that have ended off the page; the caller holds mu.
func (d *pageWrite) end() {
	p := d.info
	d.ending = p.unstored
	if d.made {
		d.page.bits = d.page.bits.without(p.removed())
	}
	d.sibling = p.sibling
	if d.sibling == "" {
		d.sibling = newSiblingName(p.name)
	}
	d.removed = p.siblings[d.sibling].union(d.ending)
}

// store writes the page, if this process still may, else the sibling. A page that other
// processes write is not deleted, since its owner may be adding to it.
func (d *pageWrite) store(ctx context.Context, s logical.Storage) (err error) {
	p := d.info
	if d.page == nil {
		if d.page, err = loadPage(ctx, s, p.key()); err != nil {
			return err
		}
		d.found = true
	}
	switch {
	case d.own, d.made && d.page.isGone():
		return d.page.store(ctx, s, p.key())
	case d.page.isGone(), d.page.unreadable:
		return nil
	case d.page.single:
		return s.Delete(ctx, p.key())
	default:
		return store.Save(ctx, s, pageKey(p.version, d.sibling), siblingEntry{Removed: d.removed})
	}
}

// finish remembers what a write has done, and gives its changes their outcome.
func (l *Ledger) finish(s logical.Storage, d *pageWrite, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed(d, err)
	} else {
		l.stored(d)
	}
	for _, c := range d.changes {
		c.err = err
		close(c.done)
		if err == nil && c.isAdd() && c.abandoned {
			l.strike(s, c.version, recordID(c.page.name, c.slot))
		}
	}
}

// stored updates the index after a write that succeeded; the caller holds mu.
func (l *Ledger) stored(d *pageWrite) {
	p := d.info
	p.unstored = p.unstored.without(d.ending)
	delete(l.behind, p)
	switch {
	case d.own && d.page.isGone(), !d.made && (d.page.isGone() || d.page.single):
		p.page = &page{}
		l.remove(p)
	case d.own, d.made && d.page.isGone(): // the latter is remembered, in case it comes back
		p.page = d.page
	default:
		if d.found {
			p.page, p.read = d.page, time.Now()
		}
		if !d.page.unreadable {
			p.sibling, p.siblings[d.sibling] = d.sibling, d.removed
		}
	}
}

// failed updates the index after a write that failed, which may have been carried out, or
// may be at any time. So the entry is never written again: what follows goes into another
// one. The leases that were to be added have been refused: they are to be removed. The
// caller holds mu.
func (l *Ledger) failed(d *pageWrite, err error) {
	p := d.info
	if isReadOnly(err) {
		p.unstored = p.unstored.without(d.ending)
		return
	}
	p.own, p.sibling = false, ""
	switch {
	case d.made:
		p.made, p.since = true, time.Now()
		p.page = &page{bits: d.before.bits.union(d.page.bits)}
	case d.found && d.page != nil:
		p.page, p.read = d.page, time.Now()
	}
	for _, c := range d.changes {
		if c.isAdd() {
			p.unstored = p.unstored.with(c.slot)
		}
	}
	if len(l.behind) >= maxBehind && p.live() == 0 {
		l.remove(p) // what is left of it in storage ends by time
	} else {
		l.behind[p] = true
	}
}

// isReadOnly reports whether a write failed because this node must not write. The error has
// come over gRPC, which leaves only its text.
func isReadOnly(err error) bool {
	return errors.Is(err, logical.ErrReadOnly) || strings.Contains(err.Error(), logical.ErrReadOnly.Error())
}
