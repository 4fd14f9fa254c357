// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	// postBudget is the part of a flight that Graph gets for regenerating, and storage for the
	// intent.
	postBudget = 30 * time.Second

	// outcomeBudget bounds the storing of an outcome, which must not be lost because the
	// flight's time is up.
	outcomeBudget = 10 * time.Second

	// between is the shortest time from one regeneration to the next, whatever readers do:
	// one who reads and revokes in a loop could otherwise have the key replaced hundreds of
	// times a second.
	between = time.Second

	// leaveWithin is how soon a regeneration must leave after its intent was stored,
	// whose time is what a doubt is counted from.
	leaveWithin = 5 * time.Second
)

// attempt is a regeneration.
type attempt struct {
	*Manager
	job

	asks accesskey.Terms // a reader's: any version that is as fresh will do
}

// regenerate regenerates the key, or joins a regeneration. If the error is nil, no other
// begins before release is called, which may be called at any time. It is
// [accesskey.ErrNotDue] if the joined work was not made for those who wait.
func (m *Manager) regenerate(ctx context.Context, a attempt) (release func(), err error) {
	return m.Flights.Share(ctx, a.Order, a.criticalSection)
}

// unattended says that the engine makes the attempt without being asked.
func (a attempt) unattended() bool { return a.Rank == flight.Retirement || a.Rank == flight.Schedule }

// criticalSection regenerates the key in a flight. Each step leaves a state from which the
// engine can go on, whatever happens after it:
//
//  1. sign in, or ask Graph for the key, and do all else that can fail without touching it;
//  2. connect to Graph, and store the intent meanwhile: from here on nobody knows which
//     key is the tenant's;
//  3. ask Graph to regenerate the key;
//  4. store the new version, which clears the intent.
//
// A failure of unattended work is marked as [accesskey.ErrNotDue], so that readers who
// joined it are judged anew: they may fare better.
func (a attempt) criticalSection(ctx context.Context) (err error) {
	defer func() { // after the report, which gets the failure itself
		if err != nil && a.unattended() {
			err = errors.Join(accesskey.ErrNotDue, err)
		}
	}()
	conn, err := a.Configs.Current(ctx)
	if err != nil {
		return err
	}
	before, err := a.Keys.Record(ctx)
	if err != nil {
		return err
	}
	if before.Fresh(a.asks.Fresh) {
		return nil // a flight that the reader was too late to join has made a key
	}
	if !a.urgent() {
		if err := a.Health.May(ctx, a.kind); err != nil {
			return err
		}
	}
	rec, err := a.post(ctx, conn, before)
	a.report(ctx, before, rec, err)
	return err
}

// post asks Graph to regenerate the key, and deals with what becomes of that.
func (a attempt) post(ctx context.Context, conn *config.Connection, before accesskey.Record) (rec accesskey.Record, err error) {
	if err := a.prepare(ctx, conn, before); err != nil {
		return rec, err
	}
	if err := a.keepPace(ctx); err != nil {
		return rec, err
	}
	posting, cancel := context.WithTimeout(ctx, postBudget)
	defer cancel()
	begun := false // that is, the intent is stored
	key, requestID, err := conn.Graph.RegenerateDeploymentAccessKey(posting, func() error {
		err := a.begin(ctx)
		begun = err == nil
		return err
	})
	if !begun {
		return rec, err
	}
	a.postedAt = a.Now() // the client may have repeated it
	if err != nil {
		return rec, a.afterFailure(ctx, err)
	}
	return a.answered(ctx, key, requestID)
}

// urgent says that the attempt waits for nothing: an operator breaks the glass, or the mount
// goes away.
func (a attempt) urgent() bool { return a.Rank <= flight.Farewell }

// keepPace waits until the next regeneration may be sent.
func (a attempt) keepPace(ctx context.Context) error {
	left := between - a.Now().Sub(a.postedAt)
	if a.urgent() || left <= 0 || left > between { // the clock was put back
		return nil
	}
	return a.Sleep(ctx, left)
}

// prepare does what can fail before there is an intent. Unattended work first asks Graph
// for the key: while nothing answers, there must not be an intent that keeps others from
// the key. A retirement goes on if Graph has answered with a failure of its own.
func (a attempt) prepare(ctx context.Context, conn *config.Connection, rec accesskey.Record) error {
	if !a.unattended() {
		return conn.Graph.SignIn(ctx)
	}
	failure := a.ask(ctx, conn, a.Health.Connection(), nil) // it has been allowed to try
	remote, ok := errors.AsType[*graph.Error](failure)
	switch young := rec.Intent.Doubt && a.Now().Sub(rec.Intent.StartedAt) < accesskey.DoubtFor; {
	case ok && remote.NamesNoKey() && rec.Key == "":
		return nil // the first key of a tenant
	case ok && remote.Signed && a.Rank == flight.Retirement && !young:
		a.logUncompared(ctx, failure)
		return nil
	}
	return failure
}

// begin stores the intent. If storing it took so long that a doubt would be counted from
// too early a time, it is stored anew.
func (a attempt) begin(ctx context.Context) error {
	for pass := range 3 {
		rec, _, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Begun, OnlyIf: a.work})
		if err != nil && pass > 0 { // there is the intent of the pass before
			_ = a.ended(ctx, accesskey.Refused)
		}
		if err != nil {
			return err
		}
		if a.Now().Sub(rec.Intent.BegunAt) < leaveWithin {
			return nil
		}
	}
	slow := errors.New("storage takes too long: Microsoft Graph has not been asked to regenerate the key")
	return errors.Join(slow, a.ended(ctx, accesskey.Refused))
}

// outcome tells the store of the key what has become of a regeneration.
func (a attempt) outcome(ctx context.Context, e accesskey.Event) (accesskey.Record, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeBudget)
	defer cancel()
	rec, _, err := a.Keys.Apply(ctx, e)
	return rec, err
}

// answered stores the new key. An answer with a key from before the regeneration proves
// nothing.
func (a attempt) answered(ctx context.Context, key, requestID string) (accesskey.Record, error) {
	if a.Flights.Waiters(accesskey.CauseRead) == 0 {
		a.asks.TTL = 0 // all readers have left
	}
	rec, err := a.outcome(ctx, accesskey.Event{Kind: accesskey.Answered, Key: key, Cause: a.Purpose, TTL: a.asks.TTL})
	if a.Flights.Waiters(accesskey.CauseRead) == 0 {
		a.Keys.Unreserve() // whoever leaves from now on does so as well
	}
	switch {
	case err == nil && rec.Intent.Doubt:
		_ = a.compare(ctx) // the work may have been done
		err = &UnsettledError{&graph.Error{
			Op: graph.OpRegenerate, Kind: graph.Unreadable, RequestID: requestID,
			Reason: "the answer names a key from before the regeneration",
		}}
	case err == nil:
		hclog.FromContext(ctx).Info("deployment access key regenerated", "cause", rec.Cause, "key_version", rec.Version, "graph_request_id", requestID)
	}
	return rec, err
}

// afterFailure deals with a regeneration that did not return a key. If Graph provably did
// not carry it out, the record's key is good; otherwise Graph is asked which one is.
func (a attempt) afterFailure(ctx context.Context, failure error) error {
	// An error that is not Graph's is that of a context that had ended before anything
	// was sent.
	remote, ok := errors.AsType[*graph.Error](failure)
	if !ok || !remote.MayHaveHappened() {
		_ = a.ended(ctx, accesskey.Refused)
		return failure
	}
	_ = a.ended(ctx, accesskey.Lost)
	if ctx.Err() == nil {
		_ = a.compare(ctx) // for all who wait; they ask again if it fails
	}
	return &UnsettledError{remote}
}

// ended tells the store of the key that a regeneration has ended without a key. If that
// cannot be stored, it is known in memory.
func (a attempt) ended(ctx context.Context, kind string) error {
	_, err := a.outcome(ctx, accesskey.Event{Kind: kind})
	if err != nil {
		hclog.FromContext(ctx).Warn("storing the outcome of a regeneration", graph.LogArgs(err)...)
	}
	return err
}

// report records how an attempt went.
func (a attempt) report(ctx context.Context, before, rec accesskey.Record, failure error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeBudget)
	defer cancel()
	switch {
	case errors.Is(failure, accesskey.ErrNotDue):
	case failure != nil:
		hclog.FromContext(ctx).Warn("the deployment access key was not regenerated", graph.LogArgs(failure, "cause", a.Purpose)...)
		a.Health.Failed(ctx, a.Purpose, a.unattended(), failure)
		a.Events.SendOfKey(ctx, event.KeyRotateFail, before.Version, append([]string{"cause", a.Purpose}, ofGraph(failure)...)...)
	default:
		a.Health.Succeeded(ctx)
		a.Events.SendOfKey(ctx, event.KeyRotate, rec.Version, "cause", rec.Cause)
		if before.Disclosed {
			a.Events.SendOfKey(ctx, event.KeyRetire, before.Version)
		}
	}
}

// UnsettledError says that Graph may have regenerated the key, although it has not
// answered so.
type UnsettledError struct{ reason *graph.Error }

func (e *UnsettledError) Error() string {
	return fmt.Sprintf("%s: Microsoft Graph may have regenerated the key nevertheless, so repeat the request", graph.Explain(e.reason))
}

func (e *UnsettledError) Unwrap() error { return e.reason }
