// SPDX-License-Identifier: MPL-2.0

package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	version int       // of the lease to add
	end     time.Time // of the lease to add; zero: some are removed
	page    *pageInfo // nil: one has to be found for the lease. A removal is in its unstored
	slot    int       // of the lease to add

	abandoned bool // nobody waits for the lease
	err       error
	done      chan struct{} // closed when err is known
}

func (c *change) isAdd() bool { return !c.end.IsZero() }

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
	if !ok || siblingOf(name) != "" {
		return nil
	}
	p := l.index(version).info(name)
	p.unstored = p.unstored.with(slot)
	return l.join(s, &change{page: p})
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
	c.done = make(chan struct{})
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
	context.AfterFunc(more, func() {
		hurry()
		l.mu.Lock()
		if errors.Is(more.Err(), context.DeadlineExceeded) && len(l.next) < gatherMin {
			l.gathered = time.Now()
		}
		l.mu.Unlock()
		_ = l.storing.Acquire(context.Background(), 1) // never fails: its holder has a budget
		l.writeBatch(s)
	})
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
			l.finish(s, d, d.store(ctx, s))
			return nil
		})
	}
	_ = pages.Wait() // each change has its own error
	l.mu.Lock()
	l.took = time.Since(began)
	l.mu.Unlock()
}

// pageWrite is what a batch does to one page.
type pageWrite struct {
	info    *pageInfo
	was     pageInfo // info when the batch began. The leases that are unstored then are removed
	changes []*change
	page    *page  // to be stored if it is own; else as it is known; nil: it has not been read
	sibling string // stores removed, if the page is not own
	removed bitset
}

// pageWrites takes the next batch and groups it by page. Pages with additions come first,
// because readers are waiting for them; those that are only repeated come last.
func (l *Ledger) pageWrites() []*pageWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	var writes []*pageWrite
	of := func(p *pageInfo) *pageWrite {
		if p.write == nil {
			p.write = p.begin()
			writes = append(writes, p.write)
		}
		return p.write
	}
	for _, c := range l.next {
		if c.isAdd() && !c.abandoned {
			d := of(l.openPage(c))
			c.page, c.slot = d.info, d.page.slots
			d.page.slots, d.page.bits = c.slot+1, d.page.bits.with(c.slot)
			d.changes = append(d.changes, c)
		}
	}
	for _, c := range l.next {
		if !c.isAdd() {
			d := of(c.page)
			d.changes = append(d.changes, c)
		}
	}
	l.next = nil
	if len(l.behind) > 0 && time.Since(l.repeated) >= repeatEvery {
		l.repeated = time.Now()
		some := slices.Collect(maps.Keys(l.behind))
		for _, p := range some[:min(len(some), pagesAtOnce)] {
			of(p)
		}
	}
	return writes
}

// begin returns the write of a page. What is stored of it is without the leases that have
// ended. The caller holds mu.
func (p *pageInfo) begin() *pageWrite {
	d := &pageWrite{info: p, was: *p, page: p.page, sibling: cmp.Or(p.sibling, p.name+"-"+rand.Text())}
	if p.made {
		d.page = &page{slots: p.page.slots, bits: p.page.bits.without(p.removed())}
	}
	d.removed = p.siblings[d.sibling].union(p.unstored)
	return d
}

// openPage returns a page with room for a lease. It is always a page that this process has
// made not long ago: see settled. Its name contains its end, so that pruning reads no page.
// The caller holds mu.
func (l *Ledger) openPage(c *change) *pageInfo {
	b, end := l.index(c.version), c.end.Add(PageSpan-time.Nanosecond).Truncate(PageSpan)
	if p := b.open[end.Unix()]; p != nil && p.own && len(p.siblings) == 0 && time.Since(p.since) < openFor {
		page := p.page
		if p.write != nil {
			page = p.write.page
		}
		if page.slots < pageSlots {
			return p
		}
	}
	p := b.info(fmt.Sprintf("%d-%s", end.Unix(), rand.Text()))
	p.made, p.own, p.page = true, true, &page{}
	b.open[end.Unix()] = p
	return p
}

// store writes the page, if this process still may, else the sibling. A page that other
// processes write is not deleted, since its owner may be adding to it.
func (d *pageWrite) store(ctx context.Context, s logical.Storage) (err error) {
	if d.page == nil {
		if d.page, err = loadPage(ctx, s, d.info.key()); err != nil {
			return err
		}
	}
	gone := d.page.isGone()
	switch {
	case d.was.own && gone, d.page.single:
		return s.Delete(ctx, d.info.key())
	case d.was.own:
		return store.Save(ctx, s, d.info.key(), pageEntry{Live: d.page.bits})
	case !d.was.made && gone, d.page.unreadable:
		return nil
	default:
		return store.Save(ctx, s, pageKey(d.info.version, d.sibling), siblingEntry{Removed: d.removed})
	}
}

// finish remembers what a write has done, and gives its changes their outcome.
func (l *Ledger) finish(s logical.Storage, d *pageWrite, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.info.write = nil
	if err != nil {
		l.failed(d, err)
	} else {
		l.stored(d)
	}
	for _, c := range d.changes {
		c.err = err
		close(c.done)
		if err == nil && c.abandoned {
			l.strike(s, c.version, recordID(c.page.name, c.slot))
		}
	}
}

// stored updates the index after a write that succeeded; the caller holds mu.
func (l *Ledger) stored(d *pageWrite) {
	p, gone := d.info, d.page.isGone()
	p.unstored = p.unstored.without(d.was.unstored)
	delete(l.behind, p)
	switch {
	case gone && (d.was.own || !d.was.made), d.page.single:
		p.page = &page{}
		l.remove(p)
	case d.was.own:
		p.page = d.page
	default:
		if d.was.page == nil {
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
	// This node must not write. The error has come over gRPC, which leaves only its text.
	if errors.Is(err, logical.ErrReadOnly) || strings.Contains(err.Error(), logical.ErrReadOnly.Error()) {
		p.unstored = p.unstored.without(d.was.unstored)
		return
	}
	p.own, p.sibling = false, ""
	switch {
	case d.was.made:
		p.made, p.since = true, time.Now()
		p.page = &page{bits: d.was.page.bits.union(d.page.bits)}
	case d.was.page == nil && d.page != nil:
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
