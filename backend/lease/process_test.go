// SPDX-License-Identifier: MPL-2.0

package lease_test

import (
	"context"
	"fmt"
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

// The process of a leader that is relieved adds to its page while its successor removes a
// lease from it.
func TestTwoProcessesOnOnePageLoseNoLease(t *testing.T) {
	for _, op := range []string{"get", "put"} { // before which the successor is interrupted
		s := storagetest.New()
		old := lease.New()
		first, err := old.Add(t.Context(), s, 1, inAnHour)
		require.NoError(t, err)
		var second string
		gate := &gatedStorage{Storage: s, op: op, pass: func() {
			second, err = old.Add(t.Context(), s, 1, inAnHour)
			require.NoError(t, err)
		}}
		fresh := lease.New()
		require.NoError(t, fresh.Remove(t.Context(), gate, 1, first))
		require.NotEmpty(t, second)
		for _, l := range []*lease.Ledger{fresh, lease.New()} {
			held, err := l.Held(t.Context(), s, 1, beginning)
			require.NoError(t, err)
			require.True(t, held, "the reader of the old leader has a lease")
			n, err := l.Live(t.Context(), s, 1, beginning)
			require.NoError(t, err)
			require.Equal(t, 1, n)
		}
	}
}

// gatedStorage lets something happen after an operation was carried out, the first time.
type gatedStorage struct {
	logical.Storage
	op   string
	once sync.Once
	pass func()
}

func (s *gatedStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, key)
	if s.op == "get" {
		s.once.Do(s.pass)
	}
	return entry, err
}

func (s *gatedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	err := s.Storage.Put(ctx, entry)
	if s.op == "put" {
		s.once.Do(s.pass)
	}
	return err
}

// A page that others have emptied stays as long as its owner may add to it, and no lease on
// it counts.
func TestPageThatOthersHaveEmptied(t *testing.T) {
	inOutage(t, func(o *outage) {
		ids := []string{o.add(), o.add(), o.add()}
		for _, id := range ids[:2] {
			successor := lease.New()
			require.NoError(o, successor.Remove(o.Context(), o.storage, 1, id))
		}
		require.Len(o, o.keys(), 3, "each has a sibling of its own")
		o.live(1, lease.New())

		last := lease.New()
		o.live(1, last)
		require.NoError(o, last.Remove(o.Context(), o.storage, 1, ids[2]))
		prune := func() {
			o.Helper()
			require.NoError(o, last.Prune(o.Context(), o.storage, only(1), beginning))
		}
		prune()
		o.live(0, last)
		o.live(0, lease.New())
		require.Len(o, o.keys(), 4, "its owner may be adding to it")
		o.add()
		o.live(1, last)
		time.Sleep(settled)
		require.NoError(o, last.Remove(o.Context(), o.storage, 1, strings.Replace(ids[0], ".0", ".3", 1)))
		prune()
		require.Empty(o, o.keys())
		o.live(0, last)
	})
}

// An owner adds to its page for no longer than others wait before they delete it.
func TestOwnerLeavesItsPageAlone(t *testing.T) {
	inOutage(t, func(o *outage) {
		o.add()
		time.Sleep(settled / 2)
		o.add()
		require.Len(o, o.keys(), 2)
	})
}

// An owner learns, with the next tick, of the leases that others have removed from its page.
func TestOwnerLearnsOfRemovals(t *testing.T) {
	inOutage(t, func(o *outage) {
		first, second := o.add(), o.add()
		require.NoError(o, lease.New().Remove(o.Context(), o.storage, 1, first))
		o.prune()
		o.live(1, o.ledger)
		third := o.add()
		o.live(2, o.ledger)
		for _, id := range []string{first, second, third} {
			require.NoError(o, o.remove(id))
		}
		o.live(0, o.ledger)
		o.prune()
		require.Empty(o, o.keys(), "the siblings go after their page")
	})
}

// An owner adds to no page beside which another process is at work: that one counts from the
// last time that it has seen the page change.
func TestOwnerLeavesASharedPageAlone(t *testing.T) {
	inOutage(t, func(o *outage) {
		id := o.add()
		o.add()
		require.NoError(o, lease.New().Remove(o.Context(), o.storage, 1, id))
		o.prune()
		require.Len(o, o.keys(), 2)
		o.add()
		require.Len(o, o.keys(), 3)
		o.live(2, o.ledger)
		o.live(2, lease.New())
	})
}

// A page whose owner has deleted it is gone for who has it in mind.
func TestPageThatItsOwnerHasDeleted(t *testing.T) {
	for _, look := range []func(o *outage, other *lease.Ledger, id string){
		func(o *outage, other *lease.Ledger, _ string) {
			require.NoError(o, other.Prune(o.Context(), o.storage, only(1), beginning))
		},
		func(o *outage, other *lease.Ledger, id string) {
			require.NoError(o, other.Remove(o.Context(), o.storage, 1, id))
		},
		func(_ *outage, other *lease.Ledger, _ string) { other.Forget() },
	} {
		inOutage(t, func(o *outage) {
			id := o.add()
			other := lease.New()
			held, err := other.Held(o.Context(), o.storage, 1, beginning)
			require.NoError(o, err)
			require.True(o, held)
			require.NoError(o, o.remove(id))
			look(o, other, id)
			o.live(0, other)
			require.Empty(o, o.keys())
		})
	}
}

// Siblings end with their page.
func TestSiblingsArePrunedByTime(t *testing.T) {
	inOutage(t, func(o *outage) {
		id := o.add()
		o.add()
		require.NoError(o, lease.New().Remove(o.Context(), o.storage, 1, id))
		l := lease.New()
		require.NoError(o, l.Prune(o.Context(), o.storage, only(1), inAnHour.Add(-time.Second)))
		require.Len(o, o.keys(), 2)
		require.NoError(o, l.Prune(o.Context(), o.storage, only(1), inAnHour.Add(lease.PageSpan)))
		require.Empty(o, o.keys())
	})
}

// A sibling of a page that cannot be decoded changes nothing, nor does one that cannot be
// decoded itself.
func TestUnreadablePagesAndSiblings(t *testing.T) {
	inOutage(t, func(o *outage) {
		page := fmt.Sprintf("%d-PAGE", inAnHour.Unix())
		broken := func(name string) {
			require.NoError(o, o.storage.Put(o.Context(), &logical.StorageEntry{Key: pages + name, Value: []byte("?")}))
		}
		broken(page)
		for range 2 {
			require.NoError(o, o.remove(page+".0"))
			o.live(1, o.ledger)
		}
		require.NoError(o, o.remove(page+"-X.0"), "the id of a sibling is that of no lease")
		require.Equal(o, []string{pages + page}, o.keys())
		broken(page + "-X")
		o.live(1, lease.New())
		time.Sleep(settled)
		o.prune()
		o.live(1, o.ledger)

		id := o.add()
		name, _, _ := strings.Cut(id, ".")
		broken(name + "-X")
		o.prune()
		o.live(2, o.ledger)
		o.live(2, lease.New())
	})
}

// The leases of several versions are asked for in turn, without a listing each time.
func TestSeveralVersions(t *testing.T) {
	inOutage(t, func(o *outage) {
		ops := map[string]int{}
		count := func(op, _ string) bool { ops[op]++; return false }
		ids := map[int]string{}
		o.storage.FailWhen(count)
		for range 3 {
			for v := range 4 {
				held, err := o.ledger.Held(o.Context(), o.storage, v, beginning)
				require.NoError(o, err)
				require.Equal(o, ids[v] != "", held)
				if held {
					require.NoError(o, o.ledger.Remove(o.Context(), o.storage, v, ids[v]))
				}
				ids[v], err = o.ledger.Add(o.Context(), o.storage, v, inAnHour)
				require.NoError(o, err)
			}
		}
		require.Equal(o, map[string]int{"list": 4, "put": 12, "delete": 8}, ops)

		odd := func(version int) bool { return version%2 == 1 }
		require.NoError(o, o.ledger.Prune(o.Context(), o.storage, odd, beginning))
		for v := range 4 {
			n, err := o.ledger.Live(o.Context(), o.storage, v, beginning)
			require.NoError(o, err)
			require.Equal(o, v%2, n)
		}
		require.Equal(o, 1+4+4+2, ops["list"], "what was not kept is forgotten")
	})
}

// A removal that could not be stored for a version that is not kept is forgotten.
func TestRemovalsFromVersionsThatAreNotKept(t *testing.T) {
	inOutage(t, func(o *outage) {
		id := o.add()
		o.storage.FailWhen(writes)
		require.Error(o, o.remove(id))
		o.storage.FailWhen(nil)
		require.NoError(o, o.ledger.Prune(o.Context(), o.storage, only(2), beginning))
		tried := 0
		o.storage.FailWhen(func(_, key string) bool {
			if strings.HasPrefix(key, pages) {
				tried++
			}
			return false
		})
		time.Sleep(repeatEvery)
		_, err := o.ledger.Add(o.Context(), o.storage, 2, inAnHour)
		require.NoError(o, err)
		synctest.Wait()
		require.Zero(o, tried)
	})
}

// Forgetting loses no removal that is still to be stored.
func TestForgetKeepsWhatIsToBeStored(t *testing.T) {
	inOutage(t, func(o *outage) {
		id := o.add()
		o.add()
		o.storage.FailWhen(writes)
		require.Error(o, o.remove(id))
		o.refused()
		synctest.Wait()
		o.ledger.Forget()
		o.storage.FailWhen(nil)
		o.live(1, o.ledger)
		o.live(2, lease.New())
		o.prune()
		o.live(1, lease.New())
	})
}

// A page that the process itself has written is another one's after Forget, and is not
// rewritten.
func TestForgottenPageIsNotRewritten(t *testing.T) {
	inOutage(t, func(o *outage) {
		id := o.add()
		o.add()
		o.ledger.Forget()
		o.add()
		require.NoError(o, o.remove(id))
		require.Len(o, o.keys(), 3)
		o.live(2, o.ledger)
		o.live(2, lease.New())
	})
}

// A removal that was reported as failed and comes late undoes none that was stored since.
func TestRemovalThatComesLateUndoesNone(t *testing.T) {
	inOutage(t, func(o *outage) {
		ids := []string{o.add(), o.add(), o.add(), o.add()}
		other := lease.New()
		require.NoError(o, other.Remove(o.Context(), o.storage, 1, ids[0]))
		late := &lateStorage{Storage: o.storage.Storage}
		require.ErrorIs(o, other.Remove(o.Context(), late, 1, ids[1]), storagetest.ErrBroken)
		require.NoError(o, other.Remove(o.Context(), o.storage, 1, ids[2]))
		require.NoError(o, late.land(o.Context()))
		o.live(1, other)
		o.live(1, lease.New())
	})
}
