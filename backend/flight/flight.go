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

	mu       sync.Mutex
	current  *flight
	previous *flight // its waiters may still be reading the result
	queue    []*flight
}

// New returns a group whose work ends with base. detach makes the context of a piece of
// work: it ends with base, and takes from the request what is to be logged.
func New(base context.Context, detach func(base, request context.Context) context.Context) *Group {
	return &Group{base: base, detach: detach}
}

// flight is one piece of work.
type flight struct {
	Order
	ctx     context.Context
	work    func(context.Context) error
	begun   bool          // see Group.mu
	done    chan struct{} // closed when err is set
	err     error
	waiters int // those who share it and have not released the result; see Group.mu
}

// Share has work done, or joins it, and returns how it went. If the error is nil, the caller
// must call release as soon as it has what it wanted. The error is the work's own,
// ErrUnderWay, ErrNotBegun, or the context's.
func (g *Group) Share(ctx context.Context, o Order, work func(context.Context) error) (release func(), err error) {
	f := g.enter(ctx, o, work)
	if err = g.wait(ctx, f); err == nil {
		err = f.err
	}
	if err != nil {
		g.release(f)
		return nil, err
	}
	return func() { g.release(f) }, nil
}

// Alone runs work when its turn comes. No other request joins it. The error is the
// work's own, ErrNotBegun if its turn did not come in time, ErrUnderWay, or the context's.
func (g *Group) Alone(ctx context.Context, rank Rank, work func(context.Context) error) error {
	release, err := g.Share(ctx, Order{Rank: rank}, work)
	if err == nil {
		release()
	}
	return err
}

// Pause returns when no work is under way, or after d.
func (g *Group) Pause(ctx context.Context, d time.Duration) {
	g.mu.Lock()
	current := g.current
	g.mu.Unlock()
	if current == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-current.done:
	case <-ctx.Done():
	}
}

// Waiters returns the number of requests that wait for work of a purpose, or have not
// released its result, while that work waits or is under way.
func (g *Group) Waiters(purpose string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, f := range append(slices.Clone(g.queue), g.current) {
		if f != nil && f.Purpose == purpose {
			n += f.waiters
		}
	}
	return n
}

// enter returns the flight that does what is ordered. If there is none, it joins the queue.
func (g *Group) enter(ctx context.Context, o Order, work func(context.Context) error) *flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.joinable(o); f != nil {
		f.waiters++
		return f
	}
	f := &flight{Order: o, ctx: g.detach(g.base, ctx), work: work, done: make(chan struct{}), waiters: 1}
	g.queue = append(g.queue, f)
	g.begin()
	return f
}

// joinable returns the flight that an order joins, nil if there is none. The caller holds
// the lock.
func (g *Group) joinable(o Order) *flight {
	if o.Purpose == "" {
		return nil
	}
	if g.current != nil && g.current.Purpose != "" && (o.JoinAny || g.current.Purpose == o.Purpose) {
		return g.current
	}
	if i := slices.IndexFunc(g.queue, func(f *flight) bool { return f.Purpose == o.Purpose }); i >= 0 {
		return g.queue[i]
	}
	return nil
}

// begin starts the most urgent flight that waits, unless one is under way, or not all
// waiters of the one before have released its result. That takes them no longer than their
// handlers may run. The caller holds the lock.
func (g *Group) begin() {
	if g.current != nil || len(g.queue) == 0 || g.previous != nil && g.previous.waiters > 0 {
		return
	}
	next := 0
	for i, f := range g.queue {
		if f.Rank < g.queue[next].Rank {
			next = i
		}
	}
	f := g.queue[next]
	g.queue = slices.Delete(g.queue, next, next+1)
	g.current, g.previous, f.begun = f, nil, true
	go g.run(f)
}

func (g *Group) run(f *flight) {
	ctx, cancel := context.WithTimeout(f.ctx, Budget)
	defer cancel()
	f.err = f.work(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current, g.previous = nil, f
	close(f.done)
	g.begin()
}

// release says that a waiter needs a flight no longer. One that nobody waits for leaves
// the queue.
func (g *Group) release(f *flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.waiters--
	if !f.begun && f.waiters == 0 && !f.Keep {
		g.queue = slices.DeleteFunc(g.queue, func(other *flight) bool { return other == f })
	}
	g.begin()
}

// wait returns nil when the flight is done. If the caller's time is up before, it is
// ErrUnderWay, or ErrNotBegun if the flight still waits for its turn. Otherwise it is the
// context's error.
func (g *Group) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return nil
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
