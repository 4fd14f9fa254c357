// SPDX-License-Identifier: MPL-2.0

package lease_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// repeatEvery and settled are how often removals are repeated beside other changes, and how
// long a failed write may still be carried out.
const (
	repeatEvery = 5 * time.Second
	settled     = 2 * time.Minute
)

// outage is a ledger whose storage fails as the test wants, in a bubble of synctest.
type outage struct {
	*testing.T
	ledger  *lease.Ledger
	storage *storagetest.Storage
}

func inOutage(t *testing.T, test func(o *outage)) {
	synctest.Test(t, func(t *testing.T) {
		test(&outage{T: t, ledger: lease.New(), storage: storagetest.New()})
	})
}

func (o *outage) add() string {
	o.Helper()
	id, err := o.ledger.Add(o.Context(), o.storage, 1, inAnHour)
	require.NoError(o, err)
	return id
}

func (o *outage) remove(id string) error {
	return o.ledger.Remove(o.Context(), o.storage, 1, id)
}

// refused adds a lease in vain.
func (o *outage) refused() {
	o.Helper()
	_, err := o.ledger.Add(o.Context(), o.storage, 1, inAnHour)
	require.ErrorIs(o, err, storagetest.ErrBroken)
}

// live demands a number of live leases in the eyes of a ledger.
func (o *outage) live(want int, l *lease.Ledger) {
	o.Helper()
	n, err := l.Live(o.Context(), o.storage.Storage, 1, beginning)
	require.NoError(o, err)
	require.Equal(o, want, n)
	held, err := l.Held(o.Context(), o.storage.Storage, 1, beginning)
	require.NoError(o, err)
	require.Equal(o, want > 0, held)
}

func (o *outage) prune() {
	o.Helper()
	require.NoError(o, o.ledger.Prune(o.Context(), o.storage, only(1), beginning))
}

func (o *outage) keys() []string {
	o.Helper()
	keys, err := logical.CollectKeys(o.Context(), o.storage.Storage)
	require.NoError(o, err)
	return keys
}

func puts(op, _ string) bool   { return op == "put" }
func writes(op, _ string) bool { return op == "put" || op == "delete" }

// Of readers whose time is over, those whose leases have not been written leave nothing, and
// the others nothing for long.
func TestWhoLeftLeavesNoRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLedgerRig(t)
		require.Zero(t, r.live(r.ledger)) // lists the pages
		var all sync.WaitGroup
		read := func(n int) {
			for range n {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					defer cancel()
					_, err := r.ledger.Add(ctx, r.storage, 1, inAnHour)
					require.ErrorIs(t, err, context.DeadlineExceeded)
				})
			}
		}
		read(1)
		writing := <-r.storage.writes
		read(299)
		all.Wait() // for no write
		require.Zero(t, r.live(r.ledger))
		writing <- nil
		r.settle()
		require.EqualValues(t, 1, r.storage.puts.Load(), "only one has been written, and removed again")
		require.Zero(t, r.live(r.ledger))
		require.Zero(t, r.live(lease.New()))

		read(1)
		writing = <-r.storage.writes
		all.Wait()
		writing <- storagetest.ErrBroken
		r.settle()
		require.Zero(t, r.live(r.ledger))
		require.NoError(t, r.ledger.Prune(t.Context(), r.undisturbed(), only(1), beginning))
		require.Zero(t, r.live(lease.New()))
	})
}

// A reader who leaves when the lease has just been stored leaves none, either way.
func TestWhoLeavesAtTheLastMomentLeavesNoRecord(t *testing.T) {
	for range 100 {
		inOutage(t, func(o *outage) {
			ctx, cancel := context.WithTimeout(o.Context(), time.Second)
			defer cancel()
			id, err := o.ledger.Add(ctx, &storagetest.Slow{Storage: o.storage, Takes: time.Second, Heeds: true}, 1, inAnHour)
			synctest.Wait()
			time.Sleep(time.Minute)
			o.live(map[bool]int{true: 1}[err == nil], o.ledger)
			o.live(map[bool]int{true: 1}[err == nil], lease.New())
			require.Equal(o, err == nil, id != "")
		})
	}
}

// A page write that was carried out and reported as failed leaves no record of the leases
// that were refused for it.
func TestRefusedLeaseLeavesNoRecord(t *testing.T) {
	inOutage(t, func(o *outage) {
		o.storage.LieWhen(puts)
		o.refused() // with a page of its own
		o.live(0, o.ledger)
		o.live(1, lease.New())
		o.storage.LieWhen(nil)
		o.prune()
		o.live(0, lease.New())
		time.Sleep(settled)
		o.prune()
		require.Empty(o, o.keys())

		kept := o.add()
		o.storage.LieWhen(puts)
		o.refused() // with a page that has another lease
		o.live(1, o.ledger)
		o.live(2, lease.New())
		o.storage.LieWhen(nil)
		o.add() // takes it along
		synctest.Wait()
		o.live(2, o.ledger)
		o.live(2, lease.New())
		require.NoError(o, o.remove(kept))
		o.live(1, lease.New())
	})
}

// A write can be carried out long after it was reported as failed, and in another order.
func TestRefusedLeaseLeavesNoRecordWhenItsWriteComesLate(t *testing.T) {
	for _, first := range []bool{true, false} {
		inOutage(t, func(o *outage) {
			leases := 0
			if !first {
				o.add()
				leases++
			}
			late := &lateStorage{Storage: o.storage.Storage}
			_, err := o.ledger.Add(o.Context(), late, 1, inAnHour)
			require.ErrorIs(o, err, storagetest.ErrBroken)
			o.add()
			leases++
			require.NoError(o, late.land(o.Context()))
			o.live(leases, o.ledger)
			o.prune()
			o.live(leases, lease.New())
			time.Sleep(settled)
			o.prune()
			o.live(leases, o.ledger)
			o.live(leases, lease.New())
		})
	}
}

// lateStorage reports writes as failed and carries them out later.
type lateStorage struct {
	logical.Storage
	entry *logical.StorageEntry
}

func (s *lateStorage) Put(_ context.Context, entry *logical.StorageEntry) error {
	s.entry = entry
	return storagetest.ErrBroken
}

func (s *lateStorage) land(ctx context.Context) error { return s.Storage.Put(ctx, s.entry) }

// Core sends the Revoke of a lease that it could not register once.
func TestRemovalThatFailsIsRepeated(t *testing.T) {
	for name, repeat := range map[string]func(o *outage){
		"by the next change": func(o *outage) {
			time.Sleep(repeatEvery)
			id := o.add()
			require.NoError(o, o.remove(id))
		},
		"by Prune":         func(o *outage) { o.prune() },
		"by who failed it": func(*outage) {},
	} {
		for what, fault := range map[string]func(func(op, key string) bool, *storagetest.Storage){
			"not carried out": func(w func(op, key string) bool, s *storagetest.Storage) { s.FailWhen(w) },
			"carried out":     func(w func(op, key string) bool, s *storagetest.Storage) { s.LieWhen(w) },
		} {
			for which := range 2 {
				t.Run(name+", "+what, func(t *testing.T) {
					inOutage(t, func(o *outage) {
						ids := []string{o.add(), o.add()}
						fault(writes, o.storage)
						require.ErrorIs(o, o.remove(ids[which]), storagetest.ErrBroken)
						o.live(1, o.ledger)
						require.ErrorIs(o, o.remove(ids[1-which]), storagetest.ErrBroken)
						o.live(0, o.ledger)
						fault(nil, o.storage)
						repeat(o)
						for _, id := range ids {
							if name == "by who failed it" {
								require.NoError(o, o.remove(id))
							}
						}
						o.live(0, o.ledger)
						o.live(0, lease.New())
						for range 2 { // a failed write may undo a deletion, and leave a sibling to be found
							time.Sleep(settled)
							o.prune()
						}
						require.Empty(o, o.keys())
					})
				})
			}
		}
	}
}

// What Discard cannot store is kept as well.
func TestDiscardThatFailsIsRepeated(t *testing.T) {
	inOutage(t, func(o *outage) {
		o.add()
		id := o.add()
		o.storage.FailWhen(writes)
		o.ledger.Discard(o.storage, 1, id)
		synctest.Wait()
		o.ledger.Discard(o.storage, 1, "a lease of nobody")
		o.live(1, o.ledger)
		o.live(2, lease.New())
		o.storage.FailWhen(nil)
		o.prune()
		o.live(1, lease.New())
	})
}

// Readers pay for what is repeated beside them every five seconds, and not for all of it.
func TestRepetitionsKeepAPace(t *testing.T) {
	inOutage(t, func(o *outage) {
		var ids []string
		for i := range 3 * pagesAtOnce {
			for range 2 {
				id, err := o.ledger.Add(o.Context(), o.storage, 1, inAnHour.Add(time.Duration(i)*lease.PageSpan))
				require.NoError(o, err)
				ids = append(ids, id)
			}
		}
		o.storage.FailWhen(writes)
		for i := range ids {
			if i%2 == 0 {
				require.Error(o, o.remove(ids[i]))
			}
		}
		time.Sleep(repeatEvery)
		tried := 0
		o.storage.FailWhen(func(op, key string) bool {
			if op == "put" && strings.Count(key, "-") == 2 {
				tried++
				return true
			}
			return false
		})
		for range 10 {
			_, err := o.ledger.Add(o.Context(), o.storage, 2, inAnHour)
			require.NoError(o, err, "a reader has nothing to do with it")
		}
		synctest.Wait()
		require.Equal(o, pagesAtOnce, tried)
		require.ErrorIs(o, o.ledger.Prune(o.Context(), o.storage, only(1), beginning), storagetest.ErrBroken)
		synctest.Wait()
		require.Equal(o, 4*pagesAtOnce, tried)
		o.storage.FailWhen(nil)
		o.prune()
		o.live(3*pagesAtOnce, lease.New())
	})
}

// A node that must not write repeats nothing: the record ends by time.
func TestNothingIsRepeatedOnANodeThatMustNotWrite(t *testing.T) {
	for _, readOnly := range []error{logical.ErrReadOnly, errors.New(logical.ErrReadOnly.Error())} { // over gRPC
		inOutage(t, func(o *outage) {
			id := o.add()
			s := &readOnlyStorage{Storage: o.storage, err: readOnly}
			require.ErrorIs(o, o.ledger.Remove(o.Context(), s, 1, id), readOnly)
			_, err := o.ledger.Add(o.Context(), s, 1, inAnHour)
			require.ErrorIs(o, err, readOnly)
			require.Equal(o, 2, s.tried)
			time.Sleep(settled)
			require.NoError(o, o.ledger.Prune(o.Context(), s, only(1), beginning))
			require.Equal(o, 2, s.tried)
			o.live(1, o.ledger)
			o.live(1, lease.New())
			require.NoError(o, o.remove(id), "it is the active one by now")
			o.live(0, lease.New())
		})
	}
}

type readOnlyStorage struct {
	logical.Storage
	err   error
	tried int
}

func (s *readOnlyStorage) Put(context.Context, *logical.StorageEntry) error {
	s.tried++
	return s.err
}

func (s *readOnlyStorage) Delete(context.Context, string) error {
	s.tried++
	return s.err
}

// An outage in which nothing is written and readers go on trying leaves nothing behind, not
// even in memory: what has not come to storage by then does not have to be removed.
func TestLongOutageLeavesNothing(t *testing.T) {
	inOutage(t, func(o *outage) {
		o.storage.FailWhen(writes)
		for range 1000 {
			o.refused()
		}
		o.storage.FailWhen(nil)
		time.Sleep(settled)
		touched := 0
		o.storage.FailWhen(func(op, _ string) bool {
			if op != "list" {
				touched++
			}
			return false
		})
		o.prune()
		require.Zero(o, touched)
		o.live(0, o.ledger)
	})
}

// Every operation ends with its context, and what it began is finished when storage allows.
func TestSlowStorage(t *testing.T) {
	for _, delay := range []time.Duration{3 * time.Second, 5 * time.Second, 8 * time.Second, 10*time.Second - 1, 10 * time.Second} {
		inOutage(t, func(o *outage) {
			slow := &storagetest.Slow{Storage: o.storage, Takes: delay, Heeds: true}
			id := o.add()
			other := lease.New()
			for name, use := range map[string]func(ctx context.Context) error{
				"add":    func(ctx context.Context) error { _, err := o.ledger.Add(ctx, slow, 1, inAnHour); return err },
				"remove": func(ctx context.Context) error { return other.Remove(ctx, slow, 1, id) },
				"held":   func(ctx context.Context) error { _, err := other.Held(ctx, slow, 1, beginning); return err },
				"live":   func(ctx context.Context) error { _, err := other.Live(ctx, slow, 1, beginning); return err },
				"prune":  func(ctx context.Context) error { return other.Prune(ctx, slow, only(1), beginning) },
			} {
				o.ledger.Discard(slow, 1, "1-X") // storage is busy
				begun := time.Now()
				ctx, cancel := context.WithTimeout(o.Context(), 2*time.Second)
				require.ErrorIs(o, use(ctx), context.DeadlineExceeded, name)
				cancel()
				require.Equal(o, 2*time.Second, time.Since(begun), name)
			}
			for range 2 { // each learns of the other
				time.Sleep(settled) // batches have a bound of their own
				synctest.Wait()
				o.prune()
				require.NoError(o, other.Prune(o.Context(), o.storage, only(1), beginning))
			}
			o.prune()
			o.live(0, other)
			o.live(0, o.ledger)
			o.live(0, lease.New())
		})
	}
}

// A write that failed may be carried out after others have removed what is on the page, and
// after the page has been found to be without live leases.
func TestLateWriteBringsNoLeaseBack(t *testing.T) {
	inOutage(t, func(o *outage) {
		id, late, other := o.add(), &lateStorage{Storage: o.storage}, lease.New()
		_, err := o.ledger.Add(o.Context(), late, 1, inAnHour)
		require.ErrorIs(o, err, storagetest.ErrBroken)
		synctest.Wait()
		require.NoError(o, other.Remove(o.Context(), o.storage, 1, id))
		for range 2 {
			o.prune()
			require.NoError(o, other.Prune(o.Context(), o.storage, only(1), beginning))
		}
		require.NoError(o, late.land(o.Context()))
		o.live(0, o.ledger)
		o.live(0, lease.New())
		time.Sleep(settled)
		o.prune()
		require.Empty(o, o.keys())
	})
}

// Another process that is still at work for a while goes on removing leases from the pages of
// this one.
func TestSiblingThatGrowsIsReadAgain(t *testing.T) {
	for _, age := range []time.Duration{0, 10 * time.Minute} {
		inOutage(t, func(o *outage) {
			ids, other := []string{o.add(), o.add(), o.add()}, lease.New()
			time.Sleep(age)
			for left, id := range ids[1:] {
				require.NoError(o, other.Remove(o.Context(), o.storage, 1, id))
				if left == 0 {
					o.prune()
					o.live(2, o.ledger)
				}
			}
			time.Sleep(settled)
			o.prune()
			o.live(1, o.ledger)
		})
	}
}
