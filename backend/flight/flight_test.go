// SPDX-License-Identifier: MPL-2.0

package flight_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/flight"
)

var errBroken = errors.New("broken")

func detach(base, _ context.Context) context.Context { return base }

// within runs a test in a bubble of its own time, with a group whose work ends with the
// test.
func within(t *testing.T, test func(t *testing.T, g *flight.Group[int])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, flight.New[int](t.Context(), detach)) })
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

// outcome is what a request got, and when.
type outcome struct {
	got  *flight.Result[int]
	err  error
	took time.Duration
}

// share shares work in the background.
func share(ctx context.Context, g *flight.Group[int], purpose string, work func(context.Context) (int, error)) *outcome {
	o, start := &outcome{}, time.Now()
	go func() {
		o.got, o.err = g.Share(ctx, purpose, work)
		o.took = time.Since(start)
	}()
	synctest.Wait()
	return o
}

func TestRequestsOfTheSamePurposeShareWork(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		first := share(t.Context(), g, "a", lasting(time.Second, 7, nil))
		second := share(t.Context(), g, "a", never(t))
		require.Equal(t, 2, g.Waiters("a"))
		require.Zero(t, g.Waiters("b"))
		time.Sleep(time.Second)
		synctest.Wait()
		for joined, o := range map[bool]*outcome{false: first, true: second} {
			require.NoError(t, o.err)
			require.Equal(t, 7, o.got.Value)
			require.Equal(t, joined, o.got.Joined)
			o.got.Release()
		}
		require.Zero(t, g.Waiters("a"), "the work is no longer under way")
	})
}

func TestFailureIsSharedAndLeavesNoWaiter(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		first := share(t.Context(), g, "a", lasting(time.Second, 7, errBroken))
		second := share(t.Context(), g, "a", never(t))
		time.Sleep(time.Second)
		synctest.Wait()
		for _, o := range []*outcome{first, second} {
			require.ErrorIs(t, o.err, errBroken)
			require.Nil(t, o.got)
		}
		next, err := g.Share(t.Context(), "a", lasting(time.Second, 8, nil))
		require.NoError(t, err)
		require.Equal(t, 8, next.Value)
		next.Release()
	})
}

func TestOtherPurposesTakeTurns(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		first := share(t.Context(), g, "a", lasting(time.Second, 1, nil))
		other := share(t.Context(), g, "b", lasting(time.Second, 2, nil))
		time.Sleep(time.Second)
		synctest.Wait()
		first.got.Release()
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, other.err)
		require.Equal(t, 2, other.got.Value)
		require.False(t, other.got.Joined)
		require.Equal(t, 2*time.Second, other.took)
		other.got.Release()
	})
}

// Work could replace a key before those who waited for it have it.
func TestNextWorkStartsWhenAllHaveReleasedTheResult(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		first := share(t.Context(), g, "a", lasting(time.Second, 1, nil))
		second := share(t.Context(), g, "a", never(t))
		time.Sleep(time.Second)
		synctest.Wait()
		next := share(t.Context(), g, "b", lasting(time.Second, 2, nil))
		first.got.Release()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Nil(t, next.got)
		second.got.Release()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 11*time.Second, next.took)
		next.got.Release()
	})
}

func TestRequestThatEndsLeavesTheWorkToTheOthers(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone, hangUp := context.WithCancel(t.Context())
		first := share(hasty, g, "a", lasting(2*time.Second, 7, nil))
		second := share(gone, g, "a", never(t))
		third := share(t.Context(), g, "a", never(t))
		other := share(hasty, g, "b", never(t))
		hangUp()
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, second.err, context.Canceled)
		require.ErrorIs(t, first.err, flight.ErrUnderWay)
		require.ErrorIs(t, other.err, flight.ErrUnderWay)
		require.Equal(t, 1, g.Waiters("a"))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 7, third.got.Value)
		third.got.Release()
		_, err := g.Share(t.Context(), "a", lasting(0, 0, errBroken)) // no one holds it up
		require.ErrorIs(t, err, errBroken)
	})
}

func TestAloneWaitsForItsTurnAndIsNotJoined(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		first := share(t.Context(), g, "a", lasting(time.Second, 1, nil))
		var (
			turns []time.Duration
			all   sync.WaitGroup
		)
		start := time.Now()
		for range 3 { // in any order, one at a time
			all.Go(func() {
				err := g.Alone(t.Context(), func(context.Context) error {
					time.Sleep(time.Second)
					turns = append(turns, time.Since(start))
					return errBroken
				})
				require.ErrorIs(t, err, errBroken)
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		first.got.Release()
		all.Wait()
		require.Equal(t, []time.Duration{2 * time.Second, 3 * time.Second, 4 * time.Second}, turns)
	})
}

func TestAloneWhenTimeRunsOut(t *testing.T) {
	within(t, func(t *testing.T, g *flight.Group[int]) {
		hasty := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		lastingTwo := func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		require.ErrorIs(t, g.Alone(hasty(), lastingTwo), flight.ErrUnderWay)
		require.ErrorIs(t, g.Alone(gone, lastingTwo), context.Canceled)
		require.NoError(t, g.Alone(t.Context(), lastingTwo))
		require.ErrorIs(t, g.Alone(hasty(), lastingTwo), flight.ErrUnderWay)
		share(t.Context(), g, "a", lasting(2*time.Second, 1, nil))
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, g.Alone(hasty(), lastingTwo), flight.ErrNotBegun)
	})
}

// Work is bounded by its budget and by the group's context, and not by the request's.
func TestContextOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type name struct{}
		base, stop := context.WithCancel(t.Context())
		g := flight.New[int](base, func(base, request context.Context) context.Context {
			return context.WithValue(base, name{}, request.Value(name{}))
		})
		request, hangUp := context.WithCancel(context.WithValue(t.Context(), name{}, "reader"))
		first := share(request, g, "a", func(ctx context.Context) (int, error) {
			require.Equal(t, "reader", ctx.Value(name{}))
			return lasting(time.Hour, 1, nil)(ctx)
		})
		second := share(t.Context(), g, "a", never(t))
		hangUp()
		time.Sleep(flight.Budget)
		synctest.Wait()
		require.ErrorIs(t, first.err, context.Canceled)
		require.ErrorIs(t, second.err, context.DeadlineExceeded)
		require.Equal(t, flight.Budget, second.took)

		third := share(t.Context(), g, "a", lasting(time.Hour, 1, nil))
		stop()
		synctest.Wait()
		require.ErrorIs(t, third.err, context.Canceled)
	})
}
