// SPDX-License-Identifier: MPL-2.0

package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/store"
)

// holder takes a lock, holds it for some time and notes when it had it.
type holder struct {
	writes      bool
	since, till time.Duration
	err         error
}

// hold has a holder take the lock in the background.
func hold(ctx context.Context, l store.Lock, writes bool, d time.Duration, start time.Time) *holder {
	h := &holder{writes: writes}
	go func() {
		take := l.Read
		if writes {
			take = l.Write
		}
		unlock, err := take(ctx)
		h.since = time.Since(start)
		if h.err = err; err != nil {
			return
		}
		time.Sleep(d)
		h.till = time.Since(start)
		unlock()
	}()
	synctest.Wait()
	return h
}

func hasty(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pass lets time pass, and whatever happens then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Readers hold it side by side and a writer alone, in the order in which they came: no
// reader overtakes a writer that waits.
func TestOrder(t *testing.T) {
	const r, w = false, true
	for name, c := range map[string]struct {
		holders []bool // each holds it for a second
		since   []int  // in seconds
	}{
		"readers":                        {[]bool{r, r, r}, []int{0, 0, 0}},
		"writers":                        {[]bool{w, w, w}, []int{0, 1, 2}},
		"readers behind a writer":        {[]bool{w, r, r}, []int{0, 1, 1}},
		"a writer behind readers":        {[]bool{r, r, w}, []int{0, 0, 1}},
		"a reader behind a waiting one":  {[]bool{r, w, r}, []int{0, 1, 2}},
		"readers behind waiting writers": {[]bool{r, w, w, r, r, w}, []int{0, 1, 2, 3, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, start := store.NewLock(), time.Now()
				holders := make([]*holder, len(c.holders))
				for i, writes := range c.holders {
					holders[i] = hold(t.Context(), l, writes, time.Second, start)
				}
				pass(time.Minute)
				for i, want := range c.since {
					require.NoError(t, holders[i].err)
					require.Equal(t, time.Duration(want)*time.Second, holders[i].since, "holder %d", i)
				}
			})
		})
	}
}

// A wait ends with the context, with its error, and leaves nothing behind: those who come
// later do not wait for one that left.
func TestWaitEndsWithTheContext(t *testing.T) {
	for _, held := range []bool{false, true} {
		for _, writes := range []bool{false, true} {
			if !held && !writes {
				continue // readers do not wait for readers
			}
			t.Run(fmt.Sprint(held, writes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l, start := store.NewLock(), time.Now()
					slow := hold(t.Context(), l, held, time.Minute, start)
					late := hold(hasty(t, time.Second), l, writes, time.Second, start)
					gone, hangUp := context.WithCancel(t.Context())
					left := hold(gone, l, writes, time.Second, start)
					after := hold(t.Context(), l, false, time.Second, start)
					hangUp()
					pass(time.Hour)
					require.ErrorIs(t, late.err, context.DeadlineExceeded)
					require.Equal(t, time.Second, late.since)
					require.ErrorIs(t, left.err, context.Canceled)
					require.Zero(t, left.since)
					require.NoError(t, slow.err)
					want := time.Minute // behind the writer that holds it
					if !held {
						want = time.Second // beside the reader, once no writer waits
					}
					require.Equal(t, want, after.since)
				})
			})
		}
	}
}

// A context that has ended gets no lock, so that nobody works in vain.
func TestEndedContext(t *testing.T) {
	l := store.NewLock()
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for _, take := range []func(context.Context) (func(), error){l.Read, l.Write} {
		unlock, err := take(gone)
		require.ErrorIs(t, err, context.Canceled)
		require.Nil(t, unlock)
	}
	unlock, err := l.Write(t.Context())
	require.NoError(t, err)
	unlock()
}

// However many come and leave, a writer is alone, and in the end nobody holds it.
func TestAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a seed makes it repeatable
		l, start := store.NewLock(), time.Now()
		var all []*holder
		for range 2000 {
			all = append(all, hold(hasty(t, time.Duration(1+random.IntN(20))*time.Millisecond), l, random.IntN(4) == 0, time.Duration(1+random.IntN(5))*time.Millisecond, start))
			time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
		}
		pass(time.Second)
		got := map[bool]int{}
		for i, a := range all {
			if a.err != nil {
				got[false]++
				continue
			}
			got[true]++
			for _, b := range all[:i] {
				apart := b.err != nil || a.since >= b.till || b.since >= a.till
				require.True(t, apart || !a.writes && !b.writes, "%+v and %+v", a, b)
			}
		}
		require.Greater(t, got[true], 100)
		require.Greater(t, got[false], 100)
		unlock, err := l.Write(t.Context())
		require.NoError(t, err)
		unlock()
	})
}

// What readers see is what the last writer left: the race detector watches.
func TestWhatItProtects(t *testing.T) {
	l, counter := store.NewLock(), 0
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 100 {
				unlock, err := l.Write(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				counter++
				unlock()
				if unlock, err = l.Read(t.Context()); err == nil {
					_ = counter
					unlock()
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, 2000, counter)
}
