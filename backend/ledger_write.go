// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// ledgerBudget bounds the write of a batch, which belongs to no single request.
const ledgerBudget = 10 * time.Second

var errSuperseded = errors.New("the key has been superseded")

// change is a lease to be recorded, or one whose record ends.
type change struct {
	version int
	end     time.Time // of the lease to be recorded
	id      string    // of the record: to be removed, or set when it has been made

	err error
}

// batch is the changes that are stored together.
type batch struct {
	changes []*change
	done    chan struct{} // closed when it is known how each change fared
}

// change has a change stored and returns when it is. It joins the batch that gathers
// while the one before is being written: the busier storage is, the more there are in
// each.
func (l *ledger) change(ctx context.Context, s logical.Storage, c *change) error {
	b := l.join(c, func(b *batch) { l.writeBatch(context.WithoutCancel(ctx), s, b) })
	select {
	case <-b.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err() // a lease that has been recorded for nobody ends by time
	}
}

// join adds a change to the batch that gathers. Whoever is the first of a batch has it
// written, in a goroutine, since the others need not go down with its request.
func (l *ledger) join(c *change, write func(*batch)) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &batch{done: make(chan struct{})}
		go write(l.next)
	}
	l.next.changes = append(l.next.changes, c)
	return l.next
}

// writeBatch stores a batch when the one before has been. Until then others can join.
func (l *ledger) writeBatch(ctx context.Context, s logical.Storage, b *batch) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	l.next = nil
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, ledgerBudget)
	defer cancel()
	l.write(ctx, s, b.changes)
	close(b.done)
}

// write stores changes, a page at a time, and tells each how that went. The caller
// holds writing.
func (l *ledger) write(ctx context.Context, s logical.Storage, changes []*change) {
	known, err := l.concerned(ctx, s, changes)
	if err != nil {
		for _, c := range changes {
			c.err = err
		}
		return
	}
	for name, d := range known.draft(changes) {
		if err := d.page.store(ctx, s, known.version, name); err != nil {
			l.forget() // nobody knows what storage holds
			for _, c := range d.changes {
				c.err = err
			}
			continue
		}
		l.mu.Lock()
		known.put(name, d.page)
		l.mu.Unlock()
	}
}

// concerned returns the pages of the latest version that changes are about, or of a
// later one if that is what is remembered: the records of older versions are dropped
// as a whole, so that changes of them need no write.
func (l *ledger) concerned(ctx context.Context, s logical.Storage, changes []*change) (*pages, error) {
	version := 0
	for _, c := range changes {
		version = max(version, c.version)
	}
	if known := l.remembered(); known != nil && known.version > version {
		return known, nil
	}
	return l.load(ctx, s, version)
}

// draft is what becomes of a page, and by which changes.
type draft struct {
	page    *page
	changes []*change
}

// draft applies changes to copies of the pages that they concern, by their names.
func (k *pages) draft(changes []*change) map[string]*draft {
	drafts := map[string]*draft{}
	for _, c := range changes {
		switch {
		case c.id != "":
			name, slot := splitLeaseID(c.id)
			if p := k.byName[name]; p != nil && c.version == k.version {
				d := draftOf(drafts, name, p)
				d.page.clear(slot)
				d.changes = append(d.changes, c)
			}
		case c.version != k.version:
			c.err = errSuperseded
		default:
			name, d := k.openDraft(drafts, pageEndFor(c.end))
			c.id = leaseID(name, d.page.take())
			d.changes = append(d.changes, c)
		}
	}
	return drafts
}

// openDraft returns the draft of a page with room for a lease. The page is one that
// this process has made since it last read the ledger: were there two nodes for a
// moment that hold themselves for the active one, neither could overwrite what the
// other has recorded.
func (k *pages) openDraft(drafts map[string]*draft, end time.Time) (string, *draft) {
	name := k.open[end.Unix()]
	if d := drafts[name]; d != nil && !d.page.full() {
		return name, d
	}
	if p := k.byName[name]; p != nil && !p.full() && drafts[name] == nil {
		return name, draftOf(drafts, name, p)
	}
	name = newPageName(end)
	k.open[end.Unix()] = name
	return name, draftOf(drafts, name, &page{end: end})
}

func draftOf(drafts map[string]*draft, name string, p *page) *draft {
	d := drafts[name]
	if d == nil {
		d = &draft{page: p.clone()}
		drafts[name] = d
	}
	return d
}

// put replaces a page, or drops it when nothing on it is live.
func (k *pages) put(name string, p *page) {
	if p.live() > 0 {
		k.byName[name] = p
		return
	}
	delete(k.byName, name)
	if end := p.end.Unix(); k.open[end] == name {
		delete(k.open, end)
	}
}
