// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

const (
	leasePrefix = "lease/"

	// leaseGrace is added to a lease's duration for the latest possible end of
	// its record: core starts the lease's clock when it registers the answer,
	// and gives up a request after 90 s (Vault's default_max_request_duration).
	leaseGrace = 90 * time.Second
)

// ledger records who has a lease: one storage entry a lease, named
// lease/<key version>/<end>-<random>, so that listing a version tells all about
// its leases. It remembers the leases of one version, which in practice is the
// current one.
type ledger struct {
	mu      sync.Mutex
	version int // of the leases that are remembered; 0: none are
	ends    map[string]time.Time
}

// leaseEntry is the content of a record; what counts is its name.
type leaseEntry struct {
	End time.Time `json:"end"`
}

// add records a lease on a key version that ends at end at the latest and returns
// the record's id.
func (l *ledger) add(ctx context.Context, s logical.Storage, version int, end time.Time) (string, error) {
	if err := l.remember(ctx, s, version); err != nil {
		return "", err
	}
	id := fmt.Sprintf("%d-%s", end.Unix(), rand.Text())
	entry, err := logical.StorageEntryJSON(leaseKey(version, id), leaseEntry{End: end.UTC()})
	if err != nil {
		return "", err
	}
	if err := s.Put(ctx, entry); err != nil {
		return "", fmt.Errorf("recording the lease: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version == version {
		l.ends[id] = end
	}
	return id, nil
}

// remove deletes the record of a lease. There may be none any more.
func (l *ledger) remove(ctx context.Context, s logical.Storage, version int, id string) error {
	if err := s.Delete(ctx, leaseKey(version, id)); err != nil {
		return fmt.Errorf("deleting the record of the lease: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version == version {
		delete(l.ends, id)
	}
	return nil
}

// live returns how many leases on a key version have not ended.
func (l *ledger) live(ctx context.Context, s logical.Storage, version int, now time.Time) (int, error) {
	if err := l.remember(ctx, s, version); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	count := 0
	for _, end := range l.ends {
		if end.After(now) {
			count++
		}
	}
	return count, nil
}

// held reports whether a lease on a key version is live. Unlike live it stops at
// the first, since it is asked at every revocation.
func (l *ledger) held(ctx context.Context, s logical.Storage, version int, now time.Time) (bool, error) {
	if err := l.remember(ctx, s, version); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range l.ends {
		if end.After(now) {
			return true, nil
		}
	}
	return false, nil
}

// prune deletes the records of superseded versions and those past their end, so
// that a lease that core has lost cannot keep a key alive.
func (l *ledger) prune(ctx context.Context, s logical.Storage, current int, now time.Time) error {
	versions, err := s.List(ctx, leasePrefix)
	if err != nil {
		return err
	}
	for _, folder := range versions {
		version, err := strconv.Atoi(strings.TrimSuffix(folder, "/"))
		if err != nil {
			continue // not ours to judge
		}
		ids, err := s.List(ctx, leasePrefix+folder)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if version >= current && leaseEnd(id).After(now) {
				continue
			}
			if err := l.remove(ctx, s, version, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget drops what is remembered; storage knows it all.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version, l.ends = 0, nil
}

// remember loads the leases of a version unless they are remembered.
func (l *ledger) remember(ctx context.Context, s logical.Storage, version int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version == version && l.ends != nil {
		return nil
	}
	ids, err := s.List(ctx, leaseKey(version, ""))
	if err != nil {
		return fmt.Errorf("listing the leases: %w", err)
	}
	l.version, l.ends = version, make(map[string]time.Time, len(ids))
	for _, id := range ids {
		l.ends[id] = leaseEnd(id)
	}
	return nil
}

func leaseKey(version int, id string) string {
	return leasePrefix + strconv.Itoa(version) + "/" + id
}

// leaseEnd reads the end of a lease from its record's id. An id that does not tell
// is of a lease that has ended.
func leaseEnd(id string) time.Time {
	seconds, _, _ := strings.Cut(id, "-")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(unix, 0)
}
