// SPDX-License-Identifier: MPL-2.0

package lease

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
	// PageSpan is the longest time between the ends of two leases on a page. A lease
	// that core has lost may count as live for that much longer.
	PageSpan = 10 * time.Second

	// pageSlots keeps a page small, since every change stores the whole page.
	pageSlots = 4096
)

// page records leases that end at about the same time, such as those of hosts that read
// together under one role. It is stored under <end>-<random> and holds one bit for each
// lease.
//
// Version 0.1.0 stored one entry for each lease under such a name. It is read as a page
// with one slot.
type page struct {
	slots int    // how many are in use, now or before
	bits  []byte // which of them are live
	// unreadable marks a page that cannot be decoded. It is not changed, and counts as
	// one live lease until its end.
	unreadable bool
}

// pageEntry is the content of a page's storage entry.
type pageEntry struct {
	Live []byte `json:"live"`
}

// take reserves a slot for a lease.
func (p *page) take() int {
	slot := p.slots
	p.slots++
	for len(p.bits) <= slot/8 {
		p.bits = append(p.bits, 0)
	}
	p.bits[slot/8] |= 1 << (slot % 8)
	return slot
}

// clear ends the lease in a slot, if there is one.
func (p *page) clear(slot int) {
	if slot >= 0 && slot/8 < len(p.bits) {
		p.bits[slot/8] &^= 1 << (slot % 8)
	}
}

// live returns the number of leases on the page that have not been removed.
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

// store writes a page, or deletes it if no lease on it is live.
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

// loadPage reads a page. It returns nil if there is none.
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
	return Prefix + strconv.Itoa(version) + "/" + name
}

// pageEndFor returns the end of the page that a lease belongs to.
func pageEndFor(end time.Time) time.Time {
	return end.Add(PageSpan - time.Nanosecond).Truncate(PageSpan)
}

// newPageName names a page. The name contains the end, so that pruning reads no page.
func newPageName(end time.Time) string {
	return fmt.Sprintf("%d-%s", end.Unix(), rand.Text())
}

// pageEnd reads the end of a page from its name. A page whose name has no end counts as
// ended.
func pageEnd(name string) time.Time {
	seconds, _, _ := strings.Cut(name, "-")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(unix, 0)
}

// recordID returns the id under which a lease finds its record.
func recordID(name string, slot int) string {
	return name + "." + strconv.Itoa(slot)
}

// splitRecordID is the inverse of recordID. An id without a slot is of version 0.1.0 and
// means the only slot of its page.
func splitRecordID(id string) (name string, slot int) {
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
