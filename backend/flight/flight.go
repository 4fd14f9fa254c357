// SPDX-License-Identifier: MPL-2.0

// Package flight runs pieces of work one at a time, apart from the requests that ask for
// them.
//
// Work with Microsoft Graph has to be apart: a client that hangs up must not lose a key
// that Graph has already made. It has to be one at a time, because each regeneration
// replaces the key of the one before. And requests that need the same work share it.
// Shared work counts its waiters until each has released the result, and the next work
// starts only then: otherwise a key could be replaced before those who waited for it
// have it.
package flight

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Budget bounds one piece of work.
const Budget = 45 * time.Second

var (
	// ErrUnderWay is returned when a request cannot wait any longer for work that goes on.
	ErrUnderWay = errors.New("Microsoft Graph has not answered in time; the work goes on, and repeating the request finds its result") //nolint:staticcheck // a name

	// ErrNotBegun is returned when other work has left a request no time.
	ErrNotBegun = errors.New("Microsoft Graph is slow, and other work with it came first: nothing has been changed, repeat the request") //nolint:staticcheck // a name
)

// Group runs one piece of work at a time. R is the result of shared work.
type Group[R any] struct {
	base   context.Context
	detach func(base, request context.Context) context.Context

	mu       sync.Mutex
	released sync.Cond // a waiter has released its result
	current  *flight[R]
	previous *flight[R] // its waiters may still be reading the result
}

// New returns a group whose work ends with base. detach makes the context of a piece of
// work: it ends with base, and takes from the request what is to be logged.
func New[R any](base context.Context, detach func(base, request context.Context) context.Context) *Group[R] {
	g := &Group[R]{base: base, detach: detach}
	g.released.L = &g.mu
	return g
}

// flight is one piece of work.
type flight[R any] struct {
	purpose string        // flights of the same purpose are shared; "": not shared
	done    chan struct{} // closed when the result and err are set
	result  R
	err     error
	waiters int // those who share it and have not released the result; see Group.mu
}

// Result is what came of shared work. The caller must call Release as soon as it has
// what it wanted.
type Result[R any] struct {
	Value   R
	Joined  bool // another request had started the work
	Release func()
}

// Share runs work, or joins work of the same purpose that is under way, and returns what
// came of it. The error is the work's own, ErrUnderWay, or the context's.
func (g *Group[R]) Share(ctx context.Context, purpose string, work func(context.Context) (R, error)) (*Result[R], error) {
	for {
		f, started := g.enter(ctx, purpose, work)
		err := f.wait(ctx)
		if f.purpose != purpose {
			if err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			err = f.err
		}
		if err != nil {
			g.release(f)
			return nil, err
		}
		return &Result[R]{Value: f.result, Joined: !started, Release: func() { g.release(f) }}, nil
	}
}

// Alone runs work when its turn comes. No other request joins it. The error is the
// work's own, ErrNotBegun if its turn did not come in time, ErrUnderWay, or the context's.
func (g *Group[R]) Alone(ctx context.Context, work func(context.Context) error) error {
	for {
		f, started := g.enter(ctx, "", func(ctx context.Context) (none R, err error) { return none, work(ctx) })
		err := f.wait(ctx)
		switch {
		case started && err == nil:
			return f.err
		case started:
			return err
		case errors.Is(err, ErrUnderWay):
			return ErrNotBegun
		case err != nil:
			return err
		}
	}
}

// Waiters returns the number of requests that wait for work of a purpose, or have not
// released its result, while that work is under way.
func (g *Group[R]) Waiters(purpose string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil || g.current.purpose != purpose {
		return 0
	}
	return g.current.waiters
}

// enter returns the flight that is under way. If there is none, it starts one.
func (g *Group[R]) enter(ctx context.Context, purpose string, work func(context.Context) (R, error)) (f *flight[R], started bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		f := &flight[R]{purpose: purpose, done: make(chan struct{})}
		go g.run(g.detach(g.base, ctx), f, g.previous, work)
		g.current, g.previous = f, nil
		started = true
	}
	if purpose != "" && g.current.purpose == purpose {
		g.current.waiters++
	}
	return g.current, started
}

func (g *Group[R]) run(ctx context.Context, f, previous *flight[R], work func(context.Context) (R, error)) {
	ctx, cancel := context.WithTimeout(ctx, Budget)
	defer cancel()
	g.awaitRelease(previous)
	f.result, f.err = work(ctx)
	g.mu.Lock()
	g.current, g.previous = nil, f
	g.mu.Unlock()
	close(f.done)
}

// awaitRelease returns when all waiters of a flight have released its result, which takes
// them no longer than their handlers may run.
func (g *Group[R]) awaitRelease(f *flight[R]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for f != nil && f.waiters > 0 {
		g.released.Wait()
	}
}

func (g *Group[R]) release(f *flight[R]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.waiters--
	g.released.Broadcast()
}

// wait returns nil when the flight is done, ErrUnderWay if the caller's time is up, and
// otherwise the context's error.
func (f *flight[R]) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ErrUnderWay
		}
		return ctx.Err()
	}
}
