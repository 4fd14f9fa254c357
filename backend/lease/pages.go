// SPDX-License-Identifier: MPL-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"

	"example.com/vault-plugin-secrets-mdi/backend/store"
)

const (
	// PageSpan is the longest time between the ends of two leases on a page. A lease
	// that core has lost may count as live for that much longer.
	PageSpan = 10 * time.Second

	// pageSlots keeps a page small, since every change stores the whole page.
	pageSlots = 4096
)

// page is what the ledger knows of a page, which records leases that end at about the same
// time, such as those of hosts that read together under one role. It is stored under
// <end>-<random> and holds one bit for each lease. Only the process that has made a page
// writes it.
//
// Another process stores what it removes from the page beside it, in a sibling:
// <end>-<random>-<random>, with one bit for each lease that is removed. Only one process
// writes a sibling, and bits are only added to it. The live leases of a page are its bits
// without those of its siblings, in whichever order they were written.
type page struct {
	version   int
	key, name string // where it is stored, and the last part of that
	end       time.Time
	// since is when this process has made the page, or has first seen it or a sibling, or has
	// failed to write it.
	since time.Time

	// own says that this process has made the page and still writes it. After a write that
	// failed it is only made: nobody knows when that write will be carried out, and whether
	// it would undo a later one.
	made, own bool
	slots     int // how many are in use, now or before, if it is own
	content

	// siblings are those that are known, by key, with the leases that they remove; nil: not
	// read.
	siblings map[string]bitset
	sibling  string // which of them this process writes; "": none
	// unstored are the leases that are to be removed. They do not count as live.
	unstored bitset
	draft    *draft // what is being written of it, if it is in the batch that is being written
}

// content is what is stored of a page, without its siblings.
type content struct {
	isKnown bool      // it has been read, or this process has made it
	read    time.Time // when, or, of a page that this process has made, its siblings
	bits    bitset    // which of them are live; empty: there is no such page
	// unreadable marks a page that cannot be decoded. It is not changed, and counts as
	// one live lease until its end.
	unreadable bool
	// single marks a record of version 0.1.0, which stored one entry for each lease. It is
	// never written a second time.
	single bool
}

// pageEntry is the content of a page's storage entry.
type pageEntry struct {
	Live bitset `json:"live"`
}

// siblingEntry is the content of a sibling's storage entry.
type siblingEntry struct {
	Removed bitset `json:"removed"`
}

// bitset is a set of slots in the form that is stored. It is replaced, never changed.
type bitset []byte

func (b bitset) with(slot int) bitset {
	return b.union(append(make(bitset, slot/8), 1<<(slot%8)))
}

// union never returns nil.
func (b bitset) union(o bitset) bitset {
	if len(b) < len(o) {
		b, o = o, b
	}
	u := append(bitset{}, b...)
	for i := range o {
		u[i] |= o[i]
	}
	return u
}

func (b bitset) without(o bitset) bitset {
	w := append(bitset{}, b...)
	for i := range min(len(w), len(o)) {
		w[i] &^= o[i]
	}
	return w
}

func (b bitset) count() int {
	count := 0
	for _, eight := range b {
		count += bits.OnesCount8(eight)
	}
	return count
}

func (c content) isGone() bool { return !c.unreadable && c.bits.count() == 0 }

// load reads a page. Without a storage entry it is empty.
func load(ctx context.Context, s logical.Storage, key string) (content, error) {
	c := content{isKnown: true, read: time.Now()}
	var stored pageEntry
	switch found, err := store.Load(ctx, s, key, &stored, errUnreadable); {
	case errors.Is(err, errUnreadable):
		c.unreadable = true
	case err != nil:
		return content{}, fmt.Errorf("reading the leases: %w", err)
	case found && len(stored.Live) == 0:
		c.bits, c.single = bitset{1}, true
	default:
		c.bits = stored.Live
	}
	return c, nil
}

var errUnreadable = errors.New("the page of leases cannot be decoded")

// loadRemoved reads a sibling. One that is gone or cannot be decoded removes nothing.
func loadRemoved(ctx context.Context, s logical.Storage, key string) (bitset, error) {
	var stored siblingEntry
	if _, err := store.Load(ctx, s, key, &stored, nil); err != nil {
		return nil, fmt.Errorf("reading the ended leases: %w", err)
	}
	return stored.Removed, nil
}

// store writes the page, if this process still may, else the sibling. A page that other
// processes write is not deleted, since its owner may be adding to it.
func (d *draft) store(ctx context.Context, s logical.Storage) (err error) {
	if !d.isKnown {
		if d.content, err = load(ctx, s, d.key); err != nil {
			return err
		}
	}
	switch gone := d.isGone(); {
	case d.own && gone, d.single:
		return s.Delete(ctx, d.key)
	case d.own:
		return store.Save(ctx, s, d.key, pageEntry{Live: d.bits})
	case !d.made && gone, d.unreadable:
		return nil
	default:
		return store.Save(ctx, s, d.sibling, siblingEntry{Removed: d.unstored})
	}
}

func pageKey(version int, name string) string {
	return Prefix + strconv.Itoa(version) + "/" + name
}

// siblingOf returns the name of the page that an entry is a sibling of; "": it is a page.
// Siblings are listed next to the page, and end with it.
func siblingOf(name string) string {
	if strings.Count(name, "-") < 2 {
		return ""
	}
	return name[:strings.LastIndex(name, "-")]
}

// pageEnd reads the end of a page from its name. A page whose name has no end counts as
// ended.
func pageEnd(name string) time.Time {
	seconds, _, _ := strings.Cut(name, "-")
	unix, _ := strconv.ParseInt(seconds, 10, 64)
	return time.Unix(unix, 0)
}

const (
	// openFor is how long a process adds leases to a page that it has made.
	openFor = time.Minute

	// settled is longer than another process can go on adding to a page, or be at work beside
	// this one. A write that was reported as failed, and is carried out nevertheless, takes
	// no longer either.
	settled = 2 * openFor
)

// removed returns the leases that have ended, whatever the page says.
func (p *page) removed() bitset {
	all := p.unstored
	for _, bits := range p.siblings {
		all = all.union(bits)
	}
	return all
}

// live returns the number of live leases on the page, as far as it is known. Every page has
// one if it is not known that it has none.
func (p *page) live() int {
	if !p.isKnown || p.unreadable {
		return 1
	}
	return p.bits.without(p.removed()).count()
}

// isUnsure reports whether the page has to be read first: before its leases can be counted,
// or, without count, before it is known whether it has one.
func (p *page) isUnsure(count bool) bool {
	if !p.isKnown {
		return count || len(p.siblings) > 0 || p.unstored.count() > 0
	}
	for _, bits := range p.siblings {
		if bits == nil {
			return true
		}
	}
	return !p.isFinal() && (p.live() == 0 || !time.Now().Before(p.settles()))
}

// isFinal reports whether what was read of the page and its siblings is the last word.
func (p *page) isFinal() bool {
	return p.own && len(p.siblings) == 0 || !p.read.Before(p.settles())
}

// settles returns from when on no other process adds to the page or to a sibling, and no
// write that failed is carried out.
func (p *page) settles() time.Time { return p.since.Add(settled) }

// isDead reports whether all leases on the page have been removed, and none can be added.
func (p *page) isDead() bool {
	return !p.own && p.isKnown && p.isFinal() && p.live() == 0
}

// page returns what is remembered of a page; the caller holds mu.
func (l *Ledger) page(version int, name string) *page {
	key := pageKey(version, name)
	p := l.pages[key]
	if p == nil {
		p = &page{version: version, key: key, name: name, end: pageEnd(name), since: time.Now(), siblings: map[string]bitset{}}
		l.pages[key] = p
	}
	return p
}

// remove drops a page that is gone: there is nothing to count on it, and nothing to write.
// The caller holds mu.
func (l *Ledger) remove(p *page) {
	p.made, p.own, p.content = false, false, content{isKnown: true}
	delete(l.behind, p)
	if l.pages[p.key] == p {
		delete(l.pages, p.key)
	}
}

// list lists the pages of a version, again if need be, and returns the siblings whose page
// is gone.
func (l *Ledger) list(ctx context.Context, s logical.Storage, version int, again bool) (orphans []string, err error) {
	known := func() (listed map[int]bool, isListed bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.listed, l.listed[version] && !again
	}
	if _, isListed := known(); isListed {
		return nil, nil
	}
	if err := l.storing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer l.storing.Release(1)
	listed, isListed := known()
	if isListed { // by another request meanwhile
		return nil, nil
	}
	names, err := s.List(ctx, pageKey(version, ""))
	if err != nil {
		return nil, fmt.Errorf("listing the leases: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	listed[version] = true // in vain, if Forget has come meanwhile
	return l.merge(version, names), nil
}

// merge adapts what is remembered of a version to what storage has; the caller holds mu. A
// page that is not listed is gone, unless this process is writing it, or may have written it
// without knowing. It returns the siblings whose page is gone.
func (l *Ledger) merge(version int, names []string) (orphans []string) {
	listed := map[*page]bool{}
	for _, name := range names {
		if siblingOf(name) == "" {
			listed[l.page(version, name)] = true
		}
	}
	for _, p := range l.pages {
		isNeeded := p.made || p.unstored.count() > 0
		if p.version == version && !listed[p] && (!isNeeded || time.Since(p.since) >= settled) {
			l.remove(p)
		}
	}
	for _, name := range names {
		key, of := pageKey(version, name), siblingOf(name)
		if of == "" {
			continue
		} else if p := l.pages[pageKey(version, of)]; p == nil {
			orphans = append(orphans, key)
		} else if _, isKnown := p.siblings[key]; !isKnown {
			p.siblings[key], p.since = nil, time.Now()
		}
	}
	return orphans
}

// survey returns the number of live leases on a version. Unless it is to count them, it
// returns any number above zero as soon as it knows of one.
func (l *Ledger) survey(ctx context.Context, s logical.Storage, version int, now time.Time, count bool) (int, error) {
	if _, err := l.list(ctx, s, version, false); err != nil {
		return 0, err
	}
	live := 0
	unsure, _ := l.choose(version, func(p *page) bool {
		switch {
		case live > 0 && !count, !p.end.After(now):
			return false
		case p.isUnsure(count):
			return true
		default:
			live += p.live()
			return false
		}
	})
	if live > 0 && !count {
		return live, nil
	}
	if err := l.read(ctx, s, unsure); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range unsure {
		live += p.live()
	}
	return live, nil
}

// read reads pages with their siblings.
func (l *Ledger) read(ctx context.Context, s logical.Storage, pages []*page) error {
	reads, ctx := errgroup.WithContext(ctx)
	reads.SetLimit(pagesAtOnce)
	for _, p := range pages {
		reads.Go(func() error { return l.readPage(ctx, s, p) })
	}
	return reads.Wait()
}

func (l *Ledger) readPage(ctx context.Context, s logical.Storage, p *page) (err error) {
	l.mu.Lock()
	isMade, siblings := p.made, maps.Clone(p.siblings)
	delete(siblings, p.sibling) // which is known
	l.mu.Unlock()
	found := content{read: time.Now()}
	if !isMade {
		if found, err = load(ctx, s, p.key); err != nil {
			return err
		}
	}
	for key := range siblings {
		if siblings[key], err = loadRemoved(ctx, s, key); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, bits := range siblings {
		p.siblings[key] = p.siblings[key].union(bits)
	}
	if p.read = found.read; isMade {
		return nil
	}
	p.content = found
	if p.isGone() && p.unstored.count() == 0 {
		l.remove(p)
	}
	return nil
}
