// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// requestLimit is longer than the 20 s within which a handler of the engine answers.
const requestLimit = 30 * time.Second

// reading is what came of one read.
type reading struct {
	testbed.Response
	err  error
	took time.Duration
}

// read reads a path of Vault once.
func read(ctx context.Context, vault *testbed.Client, path string) reading {
	began := time.Now()
	resp, err := vault.Send(ctx, http.MethodGet, path, nil)
	return reading{resp, err, time.Since(began)}
}

// leasedKey is the answer to a read of the key.
type leasedKey struct {
	LeaseID  string   `json:"lease_id"`
	Warnings []string `json:"warnings"`
	Data     struct {
		Key     string `json:"deployment_access_key"`
		Version int    `json:"key_version"`
		Reused  bool   `json:"reused"`
	} `json:"data"`
}

// key returns the key that was read.
func (r reading) key() (leasedKey, error) {
	var secret leasedKey
	if r.err != nil || r.Status != http.StatusOK {
		return secret, errors.Join(fmt.Errorf("a read was answered with %d", r.Status), r.err)
	}
	return secret, json.Unmarshal(r.Body, &secret)
}

// tally counts what came of many reads of the key, and remembers every key. Its zero
// value is ready.
type tally struct {
	mu        sync.Mutex
	answers   map[int]int // by status; 0: there was no answer
	leases    map[string]bool
	versions  map[string]int // by key
	keys      map[int]string // by version
	conflicts []string       // where a key was told to be what it is not
	succeeded time.Time      // last
	longest   time.Duration  // without success
	slowest   time.Duration  // read
}

// add counts a reading and returns its key, which is zero if there was none.
func (t *tally) add(r reading) leasedKey {
	got, err := r.key()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.init()
	t.answers[r.Status]++
	t.slowest = max(t.slowest, r.took)
	if err != nil {
		return leasedKey{}
	}
	t.leases[got.LeaseID] = true
	t.note(got.Data.Key, got.Data.Version)
	now := time.Now()
	if !t.succeeded.IsZero() {
		t.longest = max(t.longest, now.Sub(t.succeeded))
	}
	t.succeeded = now
	return got
}

// merge adds what another tally has counted, but for how long it took to get a key.
func (t *tally) merge(other *tally) {
	for status, n := range other.answers {
		t.init()
		t.answers[status] += n
	}
	for lease := range other.leases {
		t.leases[lease] = true
	}
	for key, version := range other.versions {
		t.note(key, version)
	}
	t.slowest = max(t.slowest, other.slowest)
}

func (t *tally) init() {
	if t.answers == nil {
		t.answers, t.leases = map[int]int{}, map[string]bool{}
		t.versions, t.keys = map[string]int{}, map[int]string{}
	}
}

// note remembers a key. Each is that of one version: a key that comes under a second
// one was handed out twice as new.
func (t *tally) note(key string, version int) {
	if before, known := t.versions[key]; known && before != version {
		t.conflicts = append(t.conflicts, fmt.Sprintf("the key of version %d was handed out as version %d", before, version))
	}
	if before, known := t.keys[version]; known && before != key {
		t.conflicts = append(t.conflicts, fmt.Sprintf("version %d has two keys", version))
	}
	t.versions[key], t.keys[version] = version, key
}

// String tells the numbers, and no key.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	reads := 0
	for _, n := range t.answers {
		reads += n
	}
	return fmt.Sprintf("reads=%d leases=%d keys=%d by status: %v, longest time without an answer: %s, slowest read: %s",
		reads, len(t.leases), len(t.keys), t.answers, t.longest.Round(10*time.Millisecond), t.slowest.Round(10*time.Millisecond))
}

// readers read a path until they are stopped.
type readers struct {
	tally tally
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

// startReaders lets n readers read a path of one of several nodes, with pauses; a reader
// whose node does not answer turns to the next.
func startReaders(n int, nodes []*testbed.Client, path string, between time.Duration) *readers {
	ctx, cancel := context.WithCancel(context.Background())
	r := &readers{stop: cancel}
	for i := range n {
		r.wg.Go(func() {
			for at := i; ctx.Err() == nil; {
				reading := read(ctx, nodes[at%len(nodes)], path)
				if ctx.Err() != nil {
					return
				}
				r.tally.add(reading)
				if reading.Status != http.StatusOK {
					at++
				}
				pause(ctx, between)
			}
		})
	}
	return r
}

// end stops the readers and returns when none reads any longer.
func (r *readers) end() {
	r.stop()
	r.wg.Wait()
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
