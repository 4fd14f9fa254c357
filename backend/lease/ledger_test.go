// SPDX-License-Identifier: MPL-2.0

package lease_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// What the ledger does not tell: how many leases fit on a page, and how many pages are
// written at the same time.
const (
	pageSlots   = 4096
	pagesAtOnce = 16
)

// pages is where those of version 1 are stored.
const pages = lease.Prefix + "1/"

var (
	beginning = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	inAnHour  = beginning.Add(time.Hour)
)

// slowStorage lets writes pass one by one, and counts them.
type slowStorage struct {
	logical.Storage
	writes chan chan error // each is told its outcome; nil: it is carried out
	puts   atomic.Int32    // that have been begun
	begun  atomic.Int32    // writes, deletions included
}

func newSlowStorage() *slowStorage {
	return &slowStorage{Storage: &logical.InmemStorage{}, writes: make(chan chan error)}
}

func (s *slowStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.puts.Add(1)
	if err := s.ask(); err != nil {
		return err
	}
	return s.Storage.Put(ctx, entry)
}

func (s *slowStorage) Delete(ctx context.Context, key string) error {
	if err := s.ask(); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

func (s *slowStorage) ask() error {
	s.begun.Add(1)
	outcome := make(chan error)
	s.writes <- outcome
	return <-outcome
}

// ledgerRig is a ledger whose changes gather while a write is held. It is used within a
// bubble of package synctest.
type ledgerRig struct {
	t       *testing.T
	ledger  *lease.Ledger
	storage *slowStorage
}

func newLedgerRig(t *testing.T) *ledgerRig {
	return &ledgerRig{t: t, ledger: lease.New(), storage: newSlowStorage()}
}

// together makes n changes, of which the first is being written while the others
// gather. Its write succeeds; the one of the others ends with outcome.
func (r *ledgerRig) together(n int, outcome error, change func(i int) error) []error {
	var (
		all  sync.WaitGroup
		errs = make([]error, n)
	)
	start := func(i int) { all.Go(func() { errs[i] = change(i) }) }
	start(0)
	first := <-r.storage.writes
	for i := 1; i < n; i++ {
		start(i)
	}
	synctest.Wait()
	first <- nil
	second := <-r.storage.writes
	second <- outcome
	all.Wait()
	return errs
}

// undisturbed lets all writes pass.
func (r *ledgerRig) undisturbed() logical.Storage { return r.storage.Storage }

// settle lets pass what is written now and from now on, until nothing more is.
func (r *ledgerRig) settle() {
	for {
		synctest.Wait()
		select {
		case outcome := <-r.storage.writes:
			outcome <- nil
		default:
			return
		}
	}
}

func (r *ledgerRig) live(l *lease.Ledger) int {
	n, err := l.Live(r.t.Context(), r.undisturbed(), 1, beginning)
	require.NoError(r.t, err)
	return n
}

func TestLeasesOfReadersWhoOverlapAreOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLedgerRig(t)
		ids := make([]string, 20)
		errs := r.together(len(ids), nil, func(i int) (err error) {
			ids[i], err = r.ledger.Add(t.Context(), r.storage, 1, inAnHour)
			return err
		})
		require.Equal(t, make([]error, len(ids)), errs)
		require.Len(t, ids, 20)
		require.Equal(t, 20, r.live(r.ledger))
		require.Equal(t, 20, r.live(lease.New()), "another process reads the same")

		errs = r.together(len(ids), nil, func(i int) error {
			return r.ledger.Remove(t.Context(), r.storage, 1, ids[i])
		})
		require.Equal(t, make([]error, len(ids)), errs)
		require.Zero(t, r.live(lease.New()))
		keys, err := logical.CollectKeys(t.Context(), r.undisturbed())
		require.NoError(t, err)
		require.Empty(t, keys, "an empty page is deleted")
	})
}

func TestReadersWhoseWriteFailsAreAllTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLedgerRig(t)
		errs := r.together(5, storagetest.ErrBroken, func(int) error {
			_, err := r.ledger.Add(t.Context(), r.storage, 1, inAnHour)
			return err
		})
		require.NoError(t, errs[0])
		for _, err := range errs[1:] {
			require.ErrorIs(t, err, storagetest.ErrBroken)
		}
		require.Equal(t, 1, r.live(r.ledger))
		require.Equal(t, 1, r.live(lease.New()))
	})
}

func TestReaderWhoHangsUpFailsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLedgerRig(t)
		ctx, hangUp := context.WithCancel(t.Context())
		errs := r.together(4, nil, func(i int) error {
			switch i {
			case 0: // whose write has begun when it hangs up
				_, err := r.ledger.Add(ctx, r.storage, 1, inAnHour)
				return err
			case 1:
				defer hangUp()
				_, err := r.ledger.Add(expired(t), r.storage, 1, inAnHour)
				return err
			default:
				_, err := r.ledger.Add(t.Context(), r.storage, 1, inAnHour)
				return err
			}
		})
		require.ErrorIs(t, errs[0], context.Canceled)
		require.ErrorIs(t, errs[1], context.Canceled)
		require.NoError(t, errs[2])
		require.NoError(t, errs[3])
		require.Equal(t, 2, r.live(r.ledger))
		r.settle()
		require.Equal(t, 2, r.live(lease.New()))
	})
}

// expired returns a context that has ended.
func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestLeasesWithOtherEndsAreOnOtherPages(t *testing.T) {
	l := lease.New()
	s := &logical.InmemStorage{}
	for i := range 4 {
		_, err := l.Add(t.Context(), s, 1, inAnHour.Add(time.Duration(i)*lease.PageSpan/2+time.Second))
		require.NoError(t, err)
	}
	names, err := s.List(t.Context(), pages)
	require.NoError(t, err)
	require.Len(t, names, 2)
	for i, left := range []int{4, 2, 0} {
		now := inAnHour.Add(time.Duration(i) * lease.PageSpan)
		n, err := l.Live(t.Context(), s, 1, now)
		require.NoError(t, err)
		require.Equal(t, left, n, "at %v", now)
		require.NoError(t, l.Prune(t.Context(), s, only(1), now))
		n, err = l.Live(t.Context(), s, 1, beginning)
		require.NoError(t, err)
		require.Equal(t, left, n, "pruned at %v", now)
	}
}

func TestFullPageIsFollowedByAnother(t *testing.T) {
	l := lease.New()
	s := &logical.InmemStorage{}
	seen := map[string]bool{}
	for range pageSlots + 1 {
		id, err := l.Add(t.Context(), s, 1, inAnHour)
		require.NoError(t, err)
		require.False(t, seen[id], "the id is used twice: %s", id)
		seen[id] = true
	}
	names, err := s.List(t.Context(), pages)
	require.NoError(t, err)
	require.Len(t, names, 2)
	n, err := lease.New().Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, pageSlots+1, n)
}

// Neither of two processes that are active by mistake loses what the other records.
func TestProcessesDoNotWriteOnEachOthersPages(t *testing.T) {
	one, other := lease.New(), lease.New()
	s := &logical.InmemStorage{}
	for range 2 {
		for _, l := range []*lease.Ledger{one, other} {
			_, err := l.Add(t.Context(), s, 1, inAnHour)
			require.NoError(t, err)
		}
	}
	n, err := lease.New().Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 4, n)
}

// Version 0.1.0 stored one entry for each lease, with all there is to know in its name.
func TestRecordsOfTheFirstReleaseAreRead(t *testing.T) {
	l := lease.New()
	s := &logical.InmemStorage{}
	var ids []string
	for i := range 3 {
		id := fmt.Sprintf("%d-RECORD%d", inAnHour.Unix(), i)
		ids = append(ids, id)
		require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{
			Key: "lease/1/" + id, Value: []byte(`{"end":"2027-03-01T13:00:00Z"}`),
		}))
	}
	_, err := l.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	for left := 4; left > 1; left-- {
		n, err := l.Live(t.Context(), s, 1, beginning)
		require.NoError(t, err)
		require.Equal(t, left, n)
		require.NoError(t, l.Remove(t.Context(), s, 1, ids[left-2]))
	}
	held, err := l.Held(t.Context(), s, 1, inAnHour.Add(-time.Second))
	require.NoError(t, err)
	require.True(t, held)
	held, err = l.Held(t.Context(), s, 1, inAnHour.Add(lease.PageSpan))
	require.NoError(t, err)
	require.False(t, held)
}

func TestIDsThatMakeNoSenseAreOfNoLease(t *testing.T) {
	l := lease.New()
	s := &logical.InmemStorage{}
	id, err := l.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	name, _, _ := strings.Cut(id, ".")
	for _, wrong := range []string{name + ".x", name + ".-1", name + ".99999", "x", "."} {
		require.NoError(t, l.Remove(t.Context(), s, 1, wrong))
	}
	n, err := l.Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// What cannot be read is left alone: it is not known whose leases are on it.
func TestUnreadablePageCountsAsALeaseUntilItsEnd(t *testing.T) {
	l := lease.New()
	s := &logical.InmemStorage{}
	name := fmt.Sprintf("%d-PAGE", inAnHour.Unix())
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: pages + name, Value: []byte("?")}))
	require.NoError(t, l.Remove(t.Context(), s, 1, name+".0"))
	_, err := l.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	n, err := l.Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	held, err := lease.New().Held(t.Context(), s, 1, inAnHour.Add(-time.Second))
	require.NoError(t, err)
	require.True(t, held)
	require.NoError(t, l.Prune(t.Context(), s, only(1), inAnHour))
	held, err = l.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.False(t, held)
}

// A removal reads what another process may have added to its page.
func TestRemovalFromAnotherProcessesPageSeesWhatItHasAdded(t *testing.T) {
	one, other := lease.New(), lease.New()
	s := &logical.InmemStorage{}
	first, err := one.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	held, err := other.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.True(t, held)
	_, err = one.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	require.NoError(t, other.Remove(t.Context(), s, 1, first))
	n, err := lease.New().Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestHeldReadsNoPage(t *testing.T) {
	gets := 0
	s := storagetest.New()
	s.FailWhen(func(op, _ string) bool {
		if op == "get" {
			gets++
		}
		return false
	})
	l := lease.New()
	for i := range 20 {
		_, err := l.Add(t.Context(), s, 1, inAnHour.Add(time.Duration(i)*lease.PageSpan))
		require.NoError(t, err)
	}
	successor := lease.New()
	held, err := successor.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.True(t, held)
	_, err = successor.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	require.Zero(t, gets)
	for range 2 {
		n, err := successor.Live(t.Context(), s, 1, beginning)
		require.NoError(t, err)
		require.Equal(t, 21, n)
		require.Equal(t, 20, gets, "each page is counted once")
	}
}

// Storage that is busy with many pages does not keep a reader waiting for all of them.
func TestPagesAreWrittenAtTheSameTimeThoseOfReadersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLedgerRig(t)
		var ids []string
		for i := range 3 * pagesAtOnce {
			id, err := r.ledger.Add(t.Context(), r.undisturbed(), 1, inAnHour.Add(time.Duration(i)*lease.PageSpan))
			require.NoError(t, err)
			ids = append(ids, id)
		}
		var all sync.WaitGroup
		change := func(id string) {
			all.Go(func() {
				if id == "" {
					_, err := r.ledger.Add(t.Context(), r.storage, 1, inAnHour.Add(-time.Hour/2))
					require.NoError(t, err)
				} else {
					require.NoError(t, r.ledger.Remove(t.Context(), r.storage, 1, id))
				}
			})
		}
		change(ids[0])
		first := <-r.storage.writes
		for _, id := range ids[1:] {
			change(id)
		}
		change("")
		synctest.Wait()
		first <- nil
		synctest.Wait()
		require.EqualValues(t, 1+pagesAtOnce, r.storage.begun.Load())
		require.EqualValues(t, 1, r.storage.puts.Load(), "the reader's page is among the first")
		for range ids {
			outcome := <-r.storage.writes
			outcome <- nil
		}
		all.Wait()
	})
}

func TestWhatIsForgottenWhileItIsListedIsListedAgain(t *testing.T) {
	l := lease.New()
	s := storagetest.New()
	s.FailWhen(func(op, _ string) bool {
		if op == "list" { // another node changes something meanwhile
			l.Forget()
		}
		return false
	})
	held, err := l.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.False(t, held)
	_, err = lease.New().Add(t.Context(), s.Storage, 1, inAnHour)
	require.NoError(t, err)
	held, err = l.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.True(t, held)
}

func TestDiscardDoesNotWaitForTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLedgerRig(t)
		id, err := r.ledger.Add(t.Context(), r.undisturbed(), 1, inAnHour)
		require.NoError(t, err)
		r.ledger.Discard(r.storage, 1, id)
		require.Equal(t, 1, r.live(lease.New()))
		outcome := <-r.storage.writes
		outcome <- nil
		synctest.Wait()
		require.Zero(t, r.live(lease.New()))
	})
}

// Whatever fails is repeated with success.
func TestStorageThatFails(t *testing.T) {
	s := storagetest.New()
	first := lease.New()
	id, err := first.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	l := lease.New() // another process
	live := func() error { _, err := l.Live(t.Context(), s, 1, beginning); return err }
	held := func() error { _, err := l.Held(t.Context(), s, 1, beginning); return err }
	remove := func() error { return l.Remove(t.Context(), s, 1, id) }
	prune := func() error { return l.Prune(t.Context(), s, only(2), beginning) }
	for _, c := range []struct {
		op, key string
		use     func() error
	}{
		{"list", pages, held},
		{"list", pages, live},
		{"get", pages, live},
		{"get", pages, remove},
		{"put", pages, remove},
		{"list", lease.Prefix, prune},
		{"list", pages, prune},
		{"delete", pages, prune},
	} {
		s.FailWhen(storagetest.Nth(1, c.op, c.key))
		require.ErrorIs(t, c.use(), storagetest.ErrBroken, "%s %s", c.op, c.key)
	}
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: lease.Prefix + "odd/x"}))
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: lease.Prefix + "2/odd"}))
	require.NoError(t, prune())
	keys, err := logical.CollectKeys(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, []string{lease.Prefix + "odd/x"}, keys, "a page without an end has ended")
}

// only keeps one version.
func only(version int) func(int) bool {
	return func(v int) bool { return v == version }
}

// A page that cannot be read keeps no other from being pruned.
func TestPruneBesideAPageThatCannotBeRead(t *testing.T) {
	s, l := storagetest.New(), lease.New()
	_, err := l.Add(t.Context(), s, 1, beginning.Add(-time.Minute))
	require.NoError(t, err)
	id, err := l.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	require.NoError(t, lease.New().Remove(t.Context(), s, 1, id)) // its sibling has to be read
	s.FailWhen(func(op, _ string) bool { return op == "get" })
	require.ErrorIs(t, lease.New().Prune(t.Context(), s, func(int) bool { return true }, beginning), storagetest.ErrBroken)
	s.FailWhen(nil)
	names, err := s.List(t.Context(), pages)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	page, _, _ := strings.Cut(id, ".")
	for _, name := range names {
		require.True(t, strings.HasPrefix(name, page), "the page that has ended is deleted")
	}
}
