// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// flightBudget bounds one piece of work that talks to Graph.
const flightBudget = 45 * time.Second

// flights runs one piece of work at a time that talks to Graph about the key, or
// changes how that is done. The work runs apart from the request that asked for
// it: a client that hangs up must not lose a key that Graph has already made.
type flights struct {
	ctx context.Context // ends with the backend

	mu      sync.Mutex
	left    sync.Cond // a taker has left
	current *flight
	landed  *flight // the one before, whose takers may still be about
}

// purpose tells which flights can be shared: those of the same purpose.
type purpose int

const (
	toChange     purpose = iota // of the configuration: shared by nobody
	toRegenerate                // the key
	toCompare                   // the key with the tenant's
)

// flight is one such piece of work.
type flight struct {
	purpose purpose
	done    chan struct{} // closed when the fields below are set
	record  *keyRecord    // of the key that came of it
	resp    *logical.Response
	err     error

	takers int // how many share it and have not taken what they wanted; see flights.mu
}

func newFlights(ctx context.Context) *flights {
	f := &flights{ctx: ctx}
	f.left.L = &f.mu
	return f
}

// share runs work, or joins a flight of the same purpose that is under way, and
// returns what came of it. The caller must call taken when it has taken what it
// wanted: until then no other flight starts, so that a key cannot be replaced before
// those who waited for it have got it.
func (f *flights) share(ctx context.Context, to purpose, work func(context.Context) (*keyRecord, error)) (*outcome, error) {
	for {
		fl, started := f.enter(ctx, to, func(ctx context.Context, fl *flight) {
			fl.record, fl.err = work(ctx)
		})
		err := fl.wait(ctx)
		if fl.purpose != to {
			if err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			err = fl.err
		}
		if err != nil {
			f.leave(fl)
			return nil, err
		}
		return &outcome{record: fl.record, joined: !started, taken: func() { f.leave(fl) }}, nil
	}
}

// outcome is what came of a shared flight.
type outcome struct {
	record *keyRecord
	joined bool // somebody else had started it
	taken  func()
}

// alone runs work when its turn has come; nobody joins it. If its turn does not come
// in time it returns errNotBegun.
func (f *flights) alone(ctx context.Context, work func(context.Context) (*logical.Response, error)) (*logical.Response, error) {
	for {
		fl, started := f.enter(ctx, toChange, func(ctx context.Context, fl *flight) {
			fl.resp, fl.err = work(ctx)
		})
		err := fl.wait(ctx)
		switch {
		case started && err == nil:
			return fl.resp, fl.err
		case started:
			return nil, err
		case errors.Is(err, errUnderWay):
			return nil, errNotBegun
		case err != nil:
			return nil, err
		}
	}
}

// enter returns the flight that is under way, having started one if there was none.
// The caller is a taker of one that it can share.
func (f *flights) enter(ctx context.Context, to purpose, work func(context.Context, *flight)) (fl *flight, started bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current == nil {
		fl := &flight{purpose: to, done: make(chan struct{})}
		go f.run(onBehalf(f.ctx, ctx), fl, f.landed, work)
		f.current, f.landed = fl, nil
		started = true
	}
	if to != toChange && f.current.purpose == to {
		f.current.takers++
	}
	return f.current, started
}

func (f *flights) run(ctx context.Context, fl, before *flight, work func(context.Context, *flight)) {
	ctx, cancel := context.WithTimeout(ctx, flightBudget)
	defer cancel()
	f.awaitTakers(before)
	work(ctx, fl)
	f.mu.Lock()
	f.current, f.landed = nil, fl
	f.mu.Unlock()
	close(fl.done)
}

// awaited tells whether somebody waits for what comes of the flight that is under way.
func (f *flights) awaited() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current != nil && f.current.takers > 0
}

// awaitTakers returns when those who shared a flight have taken what they wanted,
// which takes them no longer than their handlers may.
func (f *flights) awaitTakers(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for fl != nil && fl.takers > 0 {
		f.left.Wait()
	}
}

// leave is called by each taker of a flight once.
func (f *flights) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.takers--
	f.left.Broadcast()
}

// wait returns when the flight has landed, or why the caller cannot wait longer:
// errUnderWay if its time is up.
func (fl *flight) wait(ctx context.Context) error {
	select {
	case <-fl.done:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return errUnderWay
		}
		return ctx.Err()
	}
}
