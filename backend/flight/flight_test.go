// SPDX-License-Identifier: MPL-2.0

package flight_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/flight"
)

var errBroken = errors.New("broken")

func detach(base, _ context.Context) context.Context { return base }

// group is a group whose work has a number as its result, so that a test sees which work was
// shared: until all who share it have released it, no other begins.
type group struct {
	*flight.Group
	last atomic.Int64
}

type result struct {
	Value   int
	Joined  bool
	Release func()
}

func (g *group) share(ctx context.Context, o flight.Order, work func(context.Context) (int, error)) (*result, error) {
	var own atomic.Bool
	release, err := g.Share(ctx, o, func(ctx context.Context) error {
		own.Store(true)
		n, err := work(ctx)
		g.last.Store(int64(n))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &result{int(g.last.Load()), !own.Load(), release}, nil
}

// within runs a test in a bubble of its own time, with a group whose work ends with the
// test. A goroutine that is left at the end fails the test.
func within(t *testing.T, test func(t *testing.T, g *group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &group{Group: flight.New(t.Context(), detach)}) })
}

// lasting is work that lasts for some time, or until its context ends.
func lasting(d time.Duration, result int, err error) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		select {
		case <-time.After(d):
			return result, err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// never is work that a test does not expect to run.
func never(t *testing.T) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		t.Error("this work should not run")
		return 0, nil
	}
}

// shared is work for readers that others join by its purpose.
func shared(purpose string) flight.Order {
	return flight.Order{Purpose: purpose, Rank: flight.Readers}
}

// outcome is what a request got, and when.
type outcome struct {
	got  *result
	err  error
	took time.Duration
}

// share shares work in the background.
func share(ctx context.Context, g *group, o flight.Order, work func(context.Context) (int, error)) *outcome {
	out, start := &outcome{}, time.Now()
	go func() {
		out.got, out.err = g.share(ctx, o, work)
		out.took = time.Since(start)
	}()
	synctest.Wait()
	return out
}

// pass lets time pass, and whatever happens then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func hasty(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestRequestsOfTheSamePurposeShareWork(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		first := share(t.Context(), g, shared("a"), lasting(time.Second, 7, nil))
		second := share(t.Context(), g, shared("a"), never(t))
		require.Equal(t, 2, g.Waiters("a"))
		require.Zero(t, g.Waiters("b"))
		pass(time.Second)
		for joined, o := range map[bool]*outcome{false: first, true: second} {
			require.NoError(t, o.err)
			require.Equal(t, 7, o.got.Value)
			require.Equal(t, joined, o.got.Joined)
			o.got.Release()
		}
		require.Zero(t, g.Waiters("a"), "the work is no longer under way")
	})
}

// Which work an order joins: that of its purpose, whether it waits or is under way, and
// with JoinAny whatever shared work is under way.
func TestWhatIsJoined(t *testing.T) {
	const begun, waiting = "begun", "waiting"
	anyOf := func(purpose string) flight.Order {
		return flight.Order{Purpose: purpose, Rank: flight.Readers, JoinAny: true}
	}
	for name, c := range map[string]struct {
		order flight.Order
		begun string // the purpose of the work under way; that of the work that waits is "waiting"
		joins string // "" for work of its own
	}{
		"its purpose, under way":          {shared(begun), begun, begun},
		"its purpose, waiting":            {shared(waiting), begun, waiting},
		"another purpose":                 {shared("other"), begun, ""},
		"any, under way":                  {anyOf("other"), begun, begun},
		"any, although its purpose waits": {anyOf(waiting), begun, begun},
		"any, but work of nobody else's":  {anyOf("other"), "", ""},
		"any, and its purpose waits":      {anyOf(waiting), "", waiting},
		"nobody's, beside nobody's":       {flight.Order{Rank: flight.Readers}, "", ""},
		"nobody's, although it takes any": {flight.Order{Rank: flight.Readers, JoinAny: true}, begun, ""},
		"its purpose, at another urgency": {flight.Order{Purpose: waiting, Rank: flight.Schedule}, begun, waiting},
		"any, at another urgency":         {flight.Order{Purpose: "other", Rank: flight.BreakGlass, JoinAny: true}, begun, begun},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(t *testing.T, g *group) {
				values := map[string]int{begun: 1, waiting: 2, "": 3}
				brief := func(o flight.Order, result int) *outcome {
					out := &outcome{}
					go func() {
						if out.got, out.err = g.share(t.Context(), o, lasting(time.Second, result, nil)); out.err == nil {
							out.got.Release()
						}
					}()
					synctest.Wait()
					return out
				}
				brief(shared(c.begun), 1)
				brief(shared(waiting), 2)
				asked := brief(c.order, 3)
				pass(3 * time.Second)
				require.NoError(t, asked.err)
				require.Equal(t, values[c.joins], asked.got.Value)
				require.Equal(t, c.joins != "", asked.got.Joined)
			})
		})
	}
}

// A failure is that of those who asked for the work. Those who asked for other work, and
// those who come after it, do not see it.
func TestFailureBelongsToThoseWhoSharedIt(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		blocker := share(t.Context(), g, shared("blocker"), lasting(time.Second, 1, nil))
		failing := []*outcome{
			share(t.Context(), g, shared("a"), lasting(time.Second, 7, errBroken)),
			share(t.Context(), g, shared("a"), never(t)),
		}
		other := share(t.Context(), g, shared("b"), lasting(time.Second, 8, nil))
		pass(time.Second)
		blocker.got.Release()
		pass(2 * time.Second)
		for _, o := range failing {
			require.ErrorIs(t, o.err, errBroken)
			require.Nil(t, o.got)
			require.Equal(t, 2*time.Second, o.took)
		}
		require.NoError(t, other.err)
		require.Equal(t, 8, other.got.Value)
		other.got.Release()
		next, err := g.share(t.Context(), shared("a"), lasting(time.Second, 9, nil))
		require.NoError(t, err)
		require.Equal(t, 9, next.Value)
		next.Release()
	})
}

// Work could replace a key before those who waited for it have it. What is more urgent
// goes first all the same.
func TestNextWorkStartsWhenAllHaveReleasedTheResult(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		first := share(t.Context(), g, shared("a"), lasting(time.Second, 1, nil))
		second := share(t.Context(), g, shared("a"), never(t))
		pass(time.Second)
		next := share(t.Context(), g, shared("a"), lasting(time.Second, 2, nil))
		late := share(hasty(t, time.Second), g, shared("late"), never(t))
		first.got.Release()
		pass(10 * time.Second)
		require.Nil(t, next.got, "a result that others read is not joined, nor replaced")
		require.ErrorIs(t, late.err, flight.ErrNotBegun)
		urgent := share(t.Context(), g, flight.Order{Rank: flight.BreakGlass}, lasting(time.Second, 3, nil))
		second.got.Release()
		pass(time.Second)
		require.Equal(t, time.Second, urgent.took)
		urgent.got.Release()
		pass(time.Second)
		require.Equal(t, 12*time.Second, next.took)
		require.False(t, next.got.Joined)
		next.got.Release()
	})
}

// What waits goes in the order of ranks, and then in that of arrival, one at a time.
func TestOrderOfRanksAndThenOfArrival(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		ranks := []flight.Rank{flight.Schedule, flight.Readers, flight.Retirement, flight.Configuration, flight.Farewell, flight.BreakGlass}
		blocker := share(t.Context(), g, shared("blocker"), lasting(time.Second, 1, nil))
		var went []string
		for _, n := range []int{1, 2} {
			for _, rank := range ranks {
				name := fmt.Sprint(rank, " ", n)
				go func() {
					require.NoError(t, g.Alone(t.Context(), rank, func(context.Context) error {
						went = append(went, name)
						return nil
					}))
				}()
				synctest.Wait()
			}
		}
		pass(time.Second)
		blocker.got.Release()
		synctest.Wait()
		var want []string
		for rank := flight.BreakGlass; rank <= flight.Schedule; rank++ {
			want = append(want, fmt.Sprint(rank, " 1"), fmt.Sprint(rank, " 2"))
		}
		require.Equal(t, want, went)
	})
}

// request is one of many at random, and what became of it.
type request struct {
	n                    int
	rank                 flight.Rank
	keep                 bool
	arrives, stays       time.Duration
	lasts, holds         time.Duration
	entered, begun, left bool
}

// However requests arrive, leave and hold their results: one piece of work at a time, none
// while a result is held, the most urgent of those that wait first, and none without
// anybody who waits for it but what is kept.
func TestWorkAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		within(t, func(t *testing.T, g *group) {
			random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a seed makes it repeatable
			requests := make([]*request, 20)
			for n := range requests {
				ms := func(limit int) time.Duration { return time.Duration(random.IntN(limit)) * time.Millisecond }
				requests[n] = &request{
					n: n, rank: flight.Rank(random.IntN(6)), keep: random.IntN(4) == 0,
					// The fractions keep two things from happening at once.
					arrives: ms(200) + time.Duration(n), stays: ms(200) + time.Duration(100*(n+1)), lasts: ms(20), holds: ms(20) + time.Duration(10_000*(n+1)),
				}
			}
			c := &course{requests: requests}
			var all sync.WaitGroup
			for _, r := range requests {
				all.Go(func() { c.ask(t, g, r) })
			}
			all.Wait()
			pass(time.Second)
			for _, r := range requests {
				require.True(t, r.begun || r.left && !r.keep, "%d: request %d: neither done nor given up", seed, r.n)
			}
		})
	}
}

// course is how requests fare.
type course struct {
	mu            sync.Mutex
	requests      []*request
	running, held int
}

func (c *course) locked(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
}

func (c *course) ask(t *testing.T, g *group, r *request) {
	time.Sleep(r.arrives)
	c.locked(func() { r.entered = true })
	purpose := fmt.Sprint("of request ", r.n)
	got, err := g.share(hasty(t, r.stays), flight.Order{Purpose: purpose, Rank: r.rank, Keep: r.keep}, func(context.Context) (int, error) {
		c.locked(func() { c.begin(t, r) })
		time.Sleep(r.lasts)
		c.locked(func() {
			c.running--
			if !r.left {
				c.held++
			}
		})
		return r.n, nil
	})
	if err != nil {
		c.locked(func() {
			r.left = true
			want := flight.ErrNotBegun
			if r.begun {
				want = flight.ErrUnderWay
			}
			require.Equal(t, want, err)
		})
		return
	}
	require.Equal(t, r.n, got.Value)
	time.Sleep(r.holds)
	c.locked(func() { c.held-- })
	got.Release()
}

func (c *course) begin(t *testing.T, r *request) {
	require.Zero(t, c.running, "another piece of work is under way")
	require.Zero(t, c.held, "a result is still held")
	require.False(t, r.left && !r.keep, "nobody waits for it")
	waiting := slices.DeleteFunc(slices.Clone(c.requests), func(o *request) bool { return !o.entered || o.begun || o.left && !o.keep })
	first := slices.MinFunc(waiting, func(a, b *request) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.arrives, b.arrives))
	})
	require.Equal(t, first.n, r.n, "the first in the order of ranks and arrival")
	r.begun = true
	c.running++
}

func TestRequestThatEndsLeavesTheWorkToTheOthers(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		gone, hangUp := context.WithCancel(t.Context())
		first := share(hasty(t, time.Second), g, shared("a"), lasting(2*time.Second, 7, nil))
		second := share(gone, g, shared("a"), never(t))
		third := share(t.Context(), g, shared("a"), never(t))
		other := share(hasty(t, time.Second), g, shared("b"), lasting(time.Second, 8, nil))
		stays := share(t.Context(), g, shared("b"), never(t))
		hangUp()
		pass(time.Second)
		require.ErrorIs(t, second.err, context.Canceled)
		require.ErrorIs(t, first.err, flight.ErrUnderWay)
		require.ErrorIs(t, other.err, flight.ErrNotBegun)
		require.Equal(t, 1, g.Waiters("a"))
		require.Equal(t, 1, g.Waiters("b"), "those who wait for work that has not begun count")
		pass(time.Second)
		require.Equal(t, 7, third.got.Value)
		third.got.Release()
		pass(time.Second)
		require.Equal(t, 8, stays.got.Value)
		require.True(t, stays.got.Joined)
		stays.got.Release()
		_, err := g.share(t.Context(), shared("a"), lasting(0, 0, errBroken)) // no one holds it up
		require.ErrorIs(t, err, errBroken)
	})
}

// Work that nobody waits for is dropped before it begins, in whatever order they left,
// also if at once, unless it is to be done in any case.
func TestWorkThatNobodyWaitsForIsDropped(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for range 50 {
			within(t, func(t *testing.T, g *group) {
				order := flight.Order{Purpose: "a", Rank: flight.Readers, Keep: keep}
				blocker := share(t.Context(), g, shared("blocker"), lasting(2*time.Second, 1, nil))
				done := 0
				at, together := hasty(t, time.Second), []*outcome{}
				for range 10 {
					together = append(together, share(at, g, order, func(context.Context) (int, error) { done++; return 0, nil }))
				}
				gone, hangUp := context.WithCancel(t.Context())
				other := share(gone, g, flight.Order{Purpose: "b", Rank: flight.Readers, Keep: keep}, func(context.Context) (int, error) { done++; return 0, nil })
				hangUp()
				pass(time.Second)
				for _, o := range together {
					require.ErrorIs(t, o.err, flight.ErrNotBegun)
				}
				require.ErrorIs(t, other.err, context.Canceled)
				require.Zero(t, g.Waiters("a")+g.Waiters("b"))
				pass(time.Second)
				blocker.got.Release()
				pass(time.Second)
				require.Equal(t, map[bool]int{false: 0, true: 2}[keep], done)
			})
		}
	}
}

func TestAloneWaitsForItsTurnAndIsNotJoined(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		first := share(t.Context(), g, shared("a"), lasting(time.Second, 1, nil))
		var (
			turns []time.Duration
			all   sync.WaitGroup
		)
		start := time.Now()
		for range 3 { // in any order, one at a time
			all.Go(func() {
				err := g.Alone(t.Context(), flight.Configuration, func(context.Context) error {
					time.Sleep(time.Second)
					turns = append(turns, time.Since(start))
					return errBroken
				})
				require.ErrorIs(t, err, errBroken)
			})
		}
		pass(time.Second)
		first.got.Release()
		all.Wait()
		require.Equal(t, []time.Duration{2 * time.Second, 3 * time.Second, 4 * time.Second}, turns)
	})
}

func TestAloneWhenTimeRunsOut(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		lastingTwo := func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		alone := func(ctx context.Context) error { return g.Alone(ctx, flight.Configuration, lastingTwo) }
		require.ErrorIs(t, alone(hasty(t, time.Second)), flight.ErrUnderWay)
		require.ErrorIs(t, alone(gone), context.Canceled)
		require.NoError(t, alone(t.Context()))
		require.ErrorIs(t, alone(hasty(t, time.Second)), flight.ErrUnderWay)
		pass(time.Second)
		blocker := share(t.Context(), g, shared("a"), lasting(2*time.Second, 1, nil))
		pass(time.Second)
		require.ErrorIs(t, alone(hasty(t, time.Second-1)), flight.ErrNotBegun)
		pass(time.Second)
		blocker.got.Release()
	})
}

// Who pauses goes on when the work under way is done, or after some time, or when their
// own is up.
func TestPause(t *testing.T) {
	within(t, func(t *testing.T, g *group) {
		pause := func(ctx context.Context, d time.Duration) time.Duration {
			start := time.Now()
			g.Pause(ctx, d)
			return time.Since(start)
		}
		require.Zero(t, pause(t.Context(), time.Hour), "no work is under way")
		work := share(t.Context(), g, shared("a"), lasting(10*time.Second, 1, nil))
		require.Equal(t, 2*time.Second, pause(t.Context(), 2*time.Second))
		require.Equal(t, time.Second, pause(hasty(t, time.Second), 2*time.Second))
		require.Equal(t, 7*time.Second, pause(t.Context(), time.Hour))
		synctest.Wait()
		require.Zero(t, pause(t.Context(), time.Hour), "nor while its result is held")
		work.got.Release()
	})
}

// Work is bounded by its budget and by the group's context, and not by the request's.
func TestContextOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type name struct{}
		base, stop := context.WithCancel(t.Context())
		g := &group{Group: flight.New(base, func(base, request context.Context) context.Context {
			return context.WithValue(base, name{}, request.Value(name{}))
		})}
		request, hangUp := context.WithCancel(context.WithValue(t.Context(), name{}, "reader"))
		first := share(request, g, shared("a"), func(ctx context.Context) (int, error) {
			require.Equal(t, "reader", ctx.Value(name{}))
			return lasting(time.Hour, 1, nil)(ctx)
		})
		second := share(t.Context(), g, shared("a"), never(t))
		hangUp()
		pass(flight.Budget)
		require.ErrorIs(t, first.err, context.Canceled)
		require.ErrorIs(t, second.err, context.DeadlineExceeded)
		require.Equal(t, flight.Budget, second.took)

		third := share(t.Context(), g, shared("a"), lasting(time.Hour, 1, nil))
		waiting := share(t.Context(), g, shared("b"), lasting(time.Hour, 1, nil))
		stop()
		synctest.Wait()
		require.ErrorIs(t, third.err, context.Canceled)
		require.ErrorIs(t, waiting.err, context.Canceled, "work that waits ends with the base as well")
	})
}
