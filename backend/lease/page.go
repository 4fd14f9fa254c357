// SPDX-License-Identifier: MPL-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/store"
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
// lease. Only the process that has made a page writes it.
//
// Another process stores what it removes from the page beside it, in a sibling:
// <end>-<random>-<random>, with one bit for each lease that is removed. Only one process
// writes a sibling, and bits are only added to it. The live leases of a page are its bits
// without those of its siblings, in whichever order they were written.
type page struct {
	slots int    // how many are in use, now or before, if this process has made the page
	bits  bitset // which of them are live; empty: there is no such page
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

func (p *page) isGone() bool { return !p.unreadable && p.bits.count() == 0 }

// loadPage reads a page. Without a storage entry it is empty.
func loadPage(ctx context.Context, s logical.Storage, key string) (*page, error) {
	var stored pageEntry
	switch found, err := store.Load(ctx, s, key, &stored, errUnreadable); {
	case errors.Is(err, errUnreadable):
		return &page{unreadable: true}, nil
	case err != nil:
		return nil, fmt.Errorf("reading the leases: %w", err)
	case found && len(stored.Live) == 0:
		return &page{bits: bitset{1}, single: true}, nil
	default:
		return &page{bits: stored.Live}, nil
	}
}

var errUnreadable = errors.New("the page of leases cannot be decoded")

// loadRemoved reads a sibling. One that is gone or cannot be decoded removes nothing.
func loadRemoved(ctx context.Context, s logical.Storage, key string) (bitset, error) {
	var stored siblingEntry
	if _, err := store.Load(ctx, s, key, &stored, errUnreadable); err != nil && !errors.Is(err, errUnreadable) {
		return nil, fmt.Errorf("reading the ended leases: %w", err)
	}
	return stored.Removed, nil
}

func pageKey(version int, name string) string {
	return Prefix + strconv.Itoa(version) + "/" + name
}

// siblingOf returns the name of the page that an entry is a sibling of. It is listed next to
// the page, and ends with it.
func siblingOf(name string) (page string, isSibling bool) {
	if strings.Count(name, "-") < 2 {
		return "", false
	}
	return name[:strings.LastIndex(name, "-")], true
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
func splitRecordID(id string) (name string, slot int, ok bool) {
	name, number, found := strings.Cut(id, ".")
	if !found {
		return name, 0, true
	}
	slot, err := strconv.Atoi(number)
	return name, slot, err == nil && slot >= 0 && slot < pageSlots
}
