// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

const (
	// pageSpan is what the ends of the leases on a page differ by at most. A lease
	// that core has lost may count as live for that much longer.
	pageSpan = 10 * time.Second

	// pageSlots keeps a page small: it is stored whole at each change.
	pageSlots = 4096
)

// page records the leases that end at about the same time: those who read together
// under one role are on one page. It is stored under <end>-<random>, and all that it
// has to remember of a lease is a bit.
//
// Version 0.1.0 stored one entry a lease under such a name. It is read as a page with
// one slot.
type page struct {
	slots int    // how many have been given out
	bits  []byte // which of them are live
	// unreadable is one whose content cannot be read: it is left alone, and counts as
	// one live lease until its end.
	unreadable bool
}

// pageEntry is the content of a page's storage entry.
type pageEntry struct {
	Live []byte `json:"live"`
}

// take gives out a slot, for a lease.
func (p *page) take() int {
	slot := p.slots
	p.slots++
	for len(p.bits) <= slot/8 {
		p.bits = append(p.bits, 0)
	}
	p.bits[slot/8] |= 1 << (slot % 8)
	return slot
}

// clear ends the lease in a slot. There may be none any more.
func (p *page) clear(slot int) {
	if slot >= 0 && slot/8 < len(p.bits) {
		p.bits[slot/8] &^= 1 << (slot % 8)
	}
}

// live returns how many leases on the page have not been removed.
func (p *page) live() int {
	if p.unreadable {
		return 1
	}
	count := 0
	for _, b := range p.bits {
		count += bits.OnesCount8(b)
	}
	return count
}

func (p *page) full() bool { return p.slots >= pageSlots }

func (p *page) clone() *page {
	c := *p
	c.bits = slices.Clone(p.bits)
	return &c
}

// store writes a page, or deletes it when nothing on it is live.
func (p *page) store(ctx context.Context, s logical.Storage, version int, name string) error {
	if p.unreadable {
		return nil
	}
	key := pageKey(version, name)
	if p.live() == 0 {
		return s.Delete(ctx, key)
	}
	entry, err := logical.StorageEntryJSON(key, pageEntry{Live: p.bits})
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}

// loadPage reads a page; nil if there is none.
func loadPage(ctx context.Context, s logical.Storage, version int, name string) (*page, error) {
	entry, err := s.Get(ctx, pageKey(version, name))
	if err != nil {
		return nil, fmt.Errorf("reading the leases: %w", err)
	}
	if entry == nil {
		return nil, nil
	}
	var stored pageEntry
	if err := entry.DecodeJSON(&stored); err != nil {
		return &page{unreadable: true}, nil
	}
	p := &page{slots: 8 * len(stored.Live), bits: stored.Live}
	if len(stored.Live) == 0 { // as of version 0.1.0
		p.take()
	}
	return p, nil
}

func pageKey(version int, name string) string {
	return leasePrefix + strconv.Itoa(version) + "/" + name
}

// pageEndFor returns the end of the page that a lease belongs to.
func pageEndFor(end time.Time) time.Time {
	return end.Add(pageSpan - time.Nanosecond).Truncate(pageSpan)
}

// newPageName names a page. Its name tells its end, so that it takes no look into a
// page to prune it.
func newPageName(end time.Time) string {
	return fmt.Sprintf("%d-%s", end.Unix(), rand.Text())
}

// pageEnd reads the end of a page from its name. A name that does not tell is of a
// page whose leases have ended.
func pageEnd(name string) time.Time {
	seconds, _, _ := strings.Cut(name, "-")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(unix, 0)
}

// leaseID makes the id by which a lease remembers its record.
func leaseID(name string, slot int) string {
	return name + "." + strconv.Itoa(slot)
}

// splitLeaseID is the inverse of leaseID. An id without a slot is of version 0.1.0,
// and names the one slot of its page.
func splitLeaseID(id string) (name string, slot int) {
	name, number, found := strings.Cut(id, ".")
	if !found {
		return name, 0
	}
	slot, err := strconv.Atoi(number)
	if err != nil {
		return name, -1
	}
	return name, slot
}
