// SPDX-License-Identifier: MPL-2.0

// Package flight runs pieces of work one at a time, apart from the requests that ask for
// them, the most urgent first.
//
// Work with Microsoft Graph has to be apart: a client that hangs up must not lose a key
// that Graph has already made. It has to be one at a time, because each regeneration
// replaces the key of the one before. And requests that need the same work share it.
// Shared work counts its waiters until each has released the result, and the next work
// starts only then: otherwise a key could be replaced before those who waited for it
// have it.
package flight

import (
	"cmp"
	"context"
	"errors"
	"slices"
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

// Rank orders the work that waits: the lowest goes first.
type Rank int

// The ranks.
const (
	BreakGlass Rank = iota
	Farewell        // deleting the configuration, or the mount going away
	Configuration
	Retirement
	Readers
	Schedule
)

// Order says which work a request asks for.
type Order struct {
	Purpose string // requests for the same share it; "": nobody shares it
	Rank    Rank
	// JoinAny shares work of any purpose that is under way.
	JoinAny bool
	// Keep does the work although all who asked for it have left before it began.
	Keep bool
}

// Group runs one piece of work at a time.
type Group struct {
	base   context.Context
	detach func(base, request context.Context) context.Context

	mu sync.Mutex
	// flights are those that wait, after the one that is under way or whose result is not
	// released by all. If there are any, the first has begun.
	flights []*flight
}

// New returns a group whose work ends with base. detach makes the context of a piece of
// work: it ends with base, and takes from the request what is to be logged.
func New(base context.Context, detach func(base, request context.Context) context.Context) *Group {
	return &Group{base: base, detach: detach}
}

// flight is one piece of work.
type flight struct {
	Order
	ctx  context.Context
	work func(context.Context) error
	done chan struct{} // closed when err is set
	err  error

	begun, over bool // see Group.mu, also for what follows
	waiters     int  // those who share it and have not released the result
}

// Share has work done, or joins it, and returns how it went. The caller must call release
// as soon as it has what it wanted. That does nothing if there is an error, nor a second
// time. The error is the work's own, ErrUnderWay, ErrNotBegun, or the context's.
func (g *Group) Share(ctx context.Context, o Order, work func(context.Context) error) (release func(), err error) {
	f := g.enter(ctx, o, work)
	release = sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		f.waiters--
		g.next()
	})
	if err = g.wait(ctx, f); err != nil {
		release()
	}
	return release, err
}

// Alone runs work when its turn comes. No other request joins it. The error is the
// work's own, ErrNotBegun if its turn did not come in time, ErrUnderWay, or the context's.
func (g *Group) Alone(ctx context.Context, rank Rank, work func(context.Context) error) error {
	release, err := g.Share(ctx, Order{Rank: rank}, work)
	release()
	return err
}

// Pause returns when no work is under way, or after d.
func (g *Group) Pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	g.mu.Lock()
	flights := slices.Clone(g.flights)
	g.mu.Unlock()
	if len(flights) > 0 {
		_ = g.wait(ctx, flights[0])
	}
}

// Waiters returns the number of requests that wait for work of a purpose, or have not
// released its result, while that work waits or is under way.
func (g *Group) Waiters(purpose string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, f := range g.flights {
		if f.Purpose == purpose && !f.over {
			n += f.waiters
		}
	}
	return n
}

// enter returns the flight that does what is ordered. If there is none, a new one waits
// for its turn.
func (g *Group) enter(ctx context.Context, o Order, work func(context.Context) error) *flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.flights {
		if f.joins(o) {
			f.waiters++
			return f
		}
	}
	f := &flight{Order: o, ctx: g.detach(g.base, ctx), work: work, done: make(chan struct{}), waiters: 1}
	g.flights = append(g.flights, f)
	g.next()
	return f
}

// joins reports whether an order is served by a flight. The result of one that is over is
// not: it may be older than the order.
func (f *flight) joins(o Order) bool {
	if o.Purpose == "" || f.Purpose == "" || f.over {
		return false
	}
	return f.Purpose == o.Purpose || o.JoinAny && f.begun
}

// next drops what nobody waits for any longer, and begins the most urgent flight, unless
// one is under way, or not all its waiters have released its result. That takes them no
// longer than their handlers may run. The caller holds the lock.
func (g *Group) next() {
	g.flights = slices.DeleteFunc(g.flights, func(f *flight) bool {
		return f.waiters == 0 && (f.over || !f.begun && !f.Keep)
	})
	if len(g.flights) == 0 || g.flights[0].begun {
		return
	}
	slices.SortStableFunc(g.flights, func(a, b *flight) int { return cmp.Compare(a.Rank, b.Rank) })
	g.flights[0].begun = true
	go g.run(g.flights[0])
}

func (g *Group) run(f *flight) {
	ctx, cancel := context.WithTimeout(f.ctx, Budget)
	defer cancel()
	f.err = f.work(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	f.over = true
	close(f.done)
	g.next()
}

// wait returns the work's error when the flight is done. If the caller's time is up before,
// it is ErrUnderWay, or ErrNotBegun if the flight still waits for its turn. Otherwise it is
// the context's error.
func (g *Group) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ctx.Err()
	case f.begun:
		return ErrUnderWay
	default:
		return ErrNotBegun
	}
}
