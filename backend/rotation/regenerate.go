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

// attempt is a regeneration. The farewell to a key that is left behind has a rank of its
// own: there is no later.
type attempt struct {
	*Manager
	job

	onlyIf string        // the work without which it does not begin; "" always does
	since  int           // what a reader knew of: a later version that was regenerated will do
	ttl    time.Duration // of the reader's lease
}

func (m *Manager) attempt(work string) attempt {
	return attempt{Manager: m, job: jobs[work], onlyIf: work}
}

// regenerate regenerates the key, or joins a regeneration. If the error is nil, no other
// begins before release is called, which may be called at any time. It is [accesskey.ErrNotDue] if the joined work was not
// made for those who wait.
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
	if err := a.mayBegin(ctx, before); err != nil {
		return err
	}
	var rec accesskey.Record
	defer func() { a.report(ctx, before, rec, err) }()
	if err := a.prepare(ctx, conn); err != nil {
		return err
	}
	if err := a.keepPace(ctx); err != nil {
		return err
	}
	rec, err = a.post(ctx, conn)
	return err
}

// post asks Graph to regenerate the key, and deals with what becomes of that.
func (a attempt) post(ctx context.Context, conn *config.Connection) (rec accesskey.Record, err error) {
	posting, cancel := context.WithTimeout(ctx, postBudget)
	defer cancel()
	begun := false // that is, the intent is stored
	key, err := conn.Graph.RegenerateDeploymentAccessKey(posting, func() error {
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
	return a.answered(ctx, key)
}

// mayBegin returns why the attempt is not made, nil if it is: there is a key for the
// reader, Graph has asked to be left alone, or the last regeneration for a reader has just
// failed.
func (a attempt) mayBegin(ctx context.Context, rec accesskey.Record) error {
	switch {
	case a.onlyIf == "" && rec.Fresh(a.since+1): // a flight that the reader was too late to join has made it
		return accesskey.ErrNotDue
	case a.urgent():
		return nil
	default:
		return a.Health.May(ctx, a.kind)
	}
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
func (a attempt) prepare(ctx context.Context, conn *config.Connection) error {
	if !a.unattended() {
		return conn.Graph.SignIn(ctx)
	}
	failure := a.ask(ctx, conn, a.Health.Connection(), nil) // it has been allowed to try
	if failure == nil {
		return nil
	}
	rec, err := a.Keys.Record(ctx)
	if err != nil {
		return err
	}
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
		rec, _, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Begun, OnlyIf: a.onlyIf})
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
	return errors.Join(errSlowStorage, a.ended(ctx, accesskey.Refused))
}

var errSlowStorage = errors.New("storage takes too long: Microsoft Graph has not been asked to regenerate the key")

// outcome tells the store of the key what has become of a regeneration.
func (a attempt) outcome(ctx context.Context, e accesskey.Event) (accesskey.Record, string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeBudget)
	defer cancel()
	return a.Keys.Apply(ctx, e)
}

// answered stores the new key. An answer with a key from before the regeneration proves
// nothing.
func (a attempt) answered(ctx context.Context, key string) (accesskey.Record, error) {
	if a.Flights.Waiters(Regenerating) == 0 {
		a.ttl = 0 // all readers have left
	}
	rec, _, err := a.outcome(ctx, accesskey.Event{Kind: accesskey.Answered, Key: key, Cause: a.cause, TTL: a.ttl})
	if a.Flights.Waiters(Regenerating) == 0 {
		a.Keys.Unreserve() // whoever leaves from now on does so as well
	}
	if err == nil && rec.Intent.Doubt {
		_ = a.compare(ctx) // the work may have been done
		err = &UnsettledError{&graph.Error{
			Op: graph.OpRegenerate, Kind: graph.Unreadable, RequestID: graph.LastRequestID(ctx),
			Reason: "the answer names a key from before the regeneration",
		}}
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
	_, _, err := a.outcome(ctx, accesskey.Event{Kind: kind})
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
		hclog.FromContext(ctx).Warn("the deployment access key was not regenerated", graph.LogArgs(failure, "cause", a.cause)...)
		logReport(ctx, a.Health.Failed(ctx, a.cause, a.unattended(), failure))
		a.Events.SendOfKey(ctx, event.KeyRotateFail, before.Version, append([]string{event.Cause, a.cause}, ofGraph(failure)...)...)
	default:
		hclog.FromContext(ctx).Info("deployment access key regenerated", "cause", rec.Cause, "key_version", rec.Version, "graph_request_id", graph.LastRequestID(ctx))
		logReport(ctx, a.Health.Succeeded(ctx))
		a.Events.SendOfKey(ctx, event.KeyRotate, rec.Version, event.Cause, rec.Cause)
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
