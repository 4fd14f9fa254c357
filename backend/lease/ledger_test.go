// SPDX-License-Identifier: MPL-2.0

package lease

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

var (
	beginning = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	inAnHour  = beginning.Add(time.Hour)
)

// slowStorage lets writes pass one by one, and counts them.
type slowStorage struct {
	logical.Storage
	writes chan chan error // each is told its outcome; nil: it is carried out
	puts   atomic.Int32    // that have been begun
}

// added tells whether anything but deletions has been begun.
func (s *slowStorage) added() bool { return s.puts.Load() > 0 }

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
	outcome := make(chan error)
	s.writes <- outcome
	return <-outcome
}

// ledgerRig is a ledger whose changes gather while a write is held.
type ledgerRig struct {
	t       *testing.T
	ledger  *Ledger
	storage *slowStorage
}

func newLedgerRig(t *testing.T) *ledgerRig {
	return &ledgerRig{t: t, ledger: New(), storage: newSlowStorage()}
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
	require.Eventually(r.t, func() bool { return r.gathered() == n-1 }, 5*time.Second, time.Millisecond)
	first <- nil
	second := <-r.storage.writes
	second <- outcome
	all.Wait()
	return errs
}

func (r *ledgerRig) gathered() int {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	if r.ledger.next == nil {
		return 0
	}
	return len(r.ledger.next.changes)
}

// undisturbed lets all writes pass.
func (r *ledgerRig) undisturbed() logical.Storage { return r.storage.Storage }

func (r *ledgerRig) live(l *Ledger) int {
	n, err := l.Live(r.t.Context(), r.undisturbed(), 1, beginning)
	require.NoError(r.t, err)
	return n
}

func TestLeasesOfReadersWhoOverlapAreOneWrite(t *testing.T) {
	r := newLedgerRig(t)
	ids := make([]string, 20)
	errs := r.together(len(ids), nil, func(i int) (err error) {
		ids[i], err = r.ledger.Add(t.Context(), r.storage, 1, inAnHour)
		return err
	})
	require.Equal(t, make([]error, len(ids)), errs)
	require.Len(t, ids, 20)
	require.Equal(t, 20, r.live(r.ledger))
	require.Equal(t, 20, r.live(New()), "another process reads the same")

	errs = r.together(len(ids), nil, func(i int) error {
		return r.ledger.Remove(t.Context(), r.storage, 1, ids[i])
	})
	require.Equal(t, make([]error, len(ids)), errs)
	require.Zero(t, r.live(New()))
	keys, err := logical.CollectKeys(t.Context(), r.undisturbed())
	require.NoError(t, err)
	require.Empty(t, keys, "an empty page is deleted")
}

func TestReadersWhoseWriteFailsAreAllTold(t *testing.T) {
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
	require.Equal(t, 1, r.live(New()))
}

func TestReaderWhoHangsUpTakesNobodyAlong(t *testing.T) {
	r := newLedgerRig(t)
	ctx, hangUp := context.WithCancel(t.Context())
	errs := r.together(3, nil, func(i int) error {
		if i == 0 { // who has had the write begun
			hangUp()
			_, err := r.ledger.Add(ctx, r.storage, 1, inAnHour)
			return err
		}
		_, err := r.ledger.Add(t.Context(), r.storage, 1, inAnHour)
		return err
	})
	require.ErrorIs(t, errs[0], context.Canceled)
	require.NoError(t, errs[1])
	require.NoError(t, errs[2])
	require.GreaterOrEqual(t, r.live(New()), 2)
}

func TestLeasesWithOtherEndsAreOnOtherPages(t *testing.T) {
	l := New()
	s := &logical.InmemStorage{}
	for i := range 4 {
		_, err := l.Add(t.Context(), s, 1, inAnHour.Add(time.Duration(i)*PageSpan/2+time.Second))
		require.NoError(t, err)
	}
	names, err := s.List(t.Context(), pageKey(1, ""))
	require.NoError(t, err)
	require.Len(t, names, 2)
	for i, left := range []int{4, 2, 0} {
		now := inAnHour.Add(time.Duration(i) * PageSpan)
		n, err := l.Live(t.Context(), s, 1, now)
		require.NoError(t, err)
		require.Equal(t, left, n, "at %v", now)
		require.NoError(t, l.Prune(t.Context(), s, 1, now))
		n, err = l.Live(t.Context(), s, 1, beginning)
		require.NoError(t, err)
		require.Equal(t, left, n, "pruned at %v", now)
	}
}

func TestFullPageIsFollowedByAnother(t *testing.T) {
	l := New()
	s := &logical.InmemStorage{}
	seen := map[string]bool{}
	for range pageSlots + 1 {
		id, err := l.Add(t.Context(), s, 1, inAnHour)
		require.NoError(t, err)
		require.False(t, seen[id], "the id is used twice: %s", id)
		seen[id] = true
	}
	names, err := s.List(t.Context(), pageKey(1, ""))
	require.NoError(t, err)
	require.Len(t, names, 2)
	n, err := New().Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, pageSlots+1, n)
}

// Neither of two processes that are active by mistake loses what the other records.
func TestProcessesDoNotWriteOnEachOthersPages(t *testing.T) {
	one, other := New(), New()
	s := &logical.InmemStorage{}
	for range 2 {
		for _, l := range []*Ledger{one, other} {
			_, err := l.Add(t.Context(), s, 1, inAnHour)
			require.NoError(t, err)
		}
	}
	n, err := New().Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 4, n)
}

// What version 0.1.0 stored: one entry a lease, which its name tells all about.
func TestRecordsOfTheFirstReleaseAreRead(t *testing.T) {
	l := New()
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
	held, err = l.Held(t.Context(), s, 1, inAnHour.Add(PageSpan))
	require.NoError(t, err)
	require.False(t, held)
}

func TestIDsThatMakeNoSenseAreOfNoLease(t *testing.T) {
	l := New()
	s := &logical.InmemStorage{}
	id, err := l.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	name, _ := splitRecordID(id)
	for _, wrong := range []string{name + ".x", name + ".-1", name + ".99999", "x", "."} {
		require.NoError(t, l.Remove(t.Context(), s, 1, wrong))
	}
	n, err := l.Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// What cannot be read is left alone: it is not known whose leases are on it.
func TestUnreadablePageCountsAsALeaseUntilItsEnd(t *testing.T) {
	l := New()
	s := &logical.InmemStorage{}
	name := newPageName(inAnHour)
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: pageKey(1, name), Value: []byte("?")}))
	require.NoError(t, l.Remove(t.Context(), s, 1, recordID(name, 0)))
	_, err := l.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	n, err := l.Live(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	held, err := New().Held(t.Context(), s, 1, inAnHour.Add(-time.Second))
	require.NoError(t, err)
	require.True(t, held)
	require.NoError(t, l.Prune(t.Context(), s, 1, inAnHour))
	held, err = l.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.False(t, held)
}

// A removal reads what another process may have added to its page.
func TestRemovalFromAnotherProcessesPageSeesWhatItHasAdded(t *testing.T) {
	one, other := New(), New()
	s := &logical.InmemStorage{}
	first, err := one.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	held, err := other.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.True(t, held)
	_, err = one.Add(t.Context(), s, 1, inAnHour)
	require.NoError(t, err)
	require.NoError(t, other.Remove(t.Context(), s, 1, first))
	n, err := New().Live(t.Context(), s, 1, beginning)
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
	l := New()
	for i := range 20 {
		_, err := l.Add(t.Context(), s, 1, inAnHour.Add(time.Duration(i)*PageSpan))
		require.NoError(t, err)
	}
	successor := New()
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
	r := newLedgerRig(t)
	var ids []string
	for i := range 3 * pagesAtOnce {
		id, err := r.ledger.Add(t.Context(), r.undisturbed(), 1, inAnHour.Add(time.Duration(i)*PageSpan))
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
	require.Eventually(t, func() bool { return r.gathered() == len(ids) }, 5*time.Second, time.Millisecond)
	first <- nil
	var waiting []chan error
	for range pagesAtOnce {
		waiting = append(waiting, <-r.storage.writes)
	}
	require.True(t, r.storage.added(), "the reader's page is among the first")
	for _, outcome := range waiting {
		outcome <- nil
	}
	for range len(ids) - pagesAtOnce {
		outcome := <-r.storage.writes
		outcome <- nil
	}
	all.Wait()
}

func TestWhatIsForgottenWhileItIsListedIsListedAgain(t *testing.T) {
	l := New()
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
	_, err = New().Add(t.Context(), s.Storage, 1, inAnHour)
	require.NoError(t, err)
	held, err = l.Held(t.Context(), s, 1, beginning)
	require.NoError(t, err)
	require.True(t, held)
}
