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
	page    *page     // nil: one has to be found for the lease. A removal is in its unstored
	slot    int       // of the lease to add

	abandoned bool // nobody waits for the lease
	done      chan error
}

func (c *change) isAdd() bool { return !c.end.IsZero() }

// id returns the id under which a lease that was added finds its record.
func (c *change) id() string { return fmt.Sprintf("%s.%d", c.page.name, c.slot) }

// wait returns when a change has been stored.
func (c *change) wait(ctx context.Context) error {
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// abandon ends a lease that nobody waits for any longer: it is dropped if it has not been
// written yet, else removed as soon as it has been.
func (l *Ledger) abandon(s logical.Storage, c *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.abandoned = true
	if len(c.done) > 0 && <-c.done == nil { // it has just been written
		l.strike(s, c.version, c.id())
	}
}

// join adds a change to the batch that collects changes while the one before is being
// written: the busier storage is, the larger the batches. The batch is written in a
// goroutine with a context of its own, so that no request that ends early fails the
// others. The caller holds mu.
func (l *Ledger) join(s logical.Storage, c *change) *change {
	c.done = make(chan error, 1)
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
	for _, d := range l.drafts() {
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

// draft is what a batch makes of a page: a copy from when the batch began. The leases that are
// unstored in it are removed by its write.
type draft struct {
	page
	of      *page
	changes []*change
}

// drafts takes the next batch and groups it by page. Pages with additions come first,
// because readers are waiting for them; those that are only repeated come last.
func (l *Ledger) drafts() []*draft {
	l.mu.Lock()
	defer l.mu.Unlock()
	var drafts []*draft
	of := func(p *page, changes ...*change) *draft {
		if p.draft == nil {
			p.draft = p.newDraft()
			drafts = append(drafts, p.draft)
		}
		p.draft.changes = append(p.draft.changes, changes...)
		return p.draft
	}
	for _, c := range l.next {
		if c.isAdd() && !c.abandoned {
			c.page = l.openPage(c)
			c.slot = c.page.slots
			c.page.slots++
			d := of(c.page, c)
			d.bits = d.bits.with(c.slot)
		}
	}
	for _, c := range l.next {
		if !c.isAdd() {
			of(c.page, c)
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
	return drafts
}

// newDraft returns the draft of a page. What is stored of it is without the leases that have
// ended. The caller holds mu.
func (p *page) newDraft() *draft {
	d := &draft{page: *p, of: p}
	d.sibling = cmp.Or(p.sibling, p.key+"-"+rand.Text())
	d.unstored = p.siblings[d.sibling].union(p.unstored)
	if p.made {
		d.bits = p.bits.without(p.removed())
	}
	return d
}

// openPage returns a page with room for a lease. It is always a page that this process has
// made not long ago: see settled. Its name contains its end, so that pruning reads no page.
// The caller holds mu.
func (l *Ledger) openPage(c *change) *page {
	end := c.end.Add(PageSpan - time.Nanosecond).Truncate(PageSpan)
	l.open = slices.DeleteFunc(l.open, func(p *page) bool {
		return !p.own || len(p.siblings) > 0 || p.slots == pageSlots || time.Since(p.since) >= openFor
	})
	for _, p := range l.open {
		if p.version == c.version && p.end.Equal(end) {
			return p
		}
	}
	p := l.page(c.version, fmt.Sprintf("%d-%s", end.Unix(), rand.Text()))
	p.made, p.own, p.isKnown = true, true, true
	l.open = append(l.open, p)
	return p
}

// finish remembers what a write has done, and gives its changes their outcome.
func (l *Ledger) finish(s logical.Storage, d *draft, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.of.draft = nil
	switch {
	case err == nil:
		l.stored(d)
	case strings.Contains(err.Error(), logical.ErrReadOnly.Error()): // over gRPC, which leaves only its text
		l.catchUp(d) // this node must not write
	default:
		l.failed(d)
	}
	for _, c := range d.changes {
		c.done <- err
		if err == nil && c.abandoned {
			l.strike(s, c.version, c.id())
		}
	}
}

// catchUp notes that nothing of a write is to be repeated; the caller holds mu.
func (l *Ledger) catchUp(d *draft) {
	d.of.unstored = d.of.unstored.without(d.unstored)
	delete(l.behind, d.of)
}

// stored notes a write that succeeded; the caller holds mu.
func (l *Ledger) stored(d *draft) {
	l.catchUp(d)
	p := d.of
	p.content = d.content
	if !d.own {
		p.sibling, p.siblings[d.sibling] = d.sibling, d.unstored
	}
	if d.isGone() && (d.own || !d.made) {
		l.remove(p)
	}
}

// failed notes a write that failed, which may have been carried out, or
// may be at any time. So the entry is never written again: what follows goes into another
// one. The leases that were to be added have been refused: they are to be removed. The
// caller holds mu.
func (l *Ledger) failed(d *draft) {
	p := d.of
	if d.isKnown {
		p.content = d.content
	}
	p.made, p.own, p.since, p.sibling = d.made, false, time.Now(), ""
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
