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
// begins before release is called. It is [accesskey.ErrNotDue] if the joined work was not
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
func (a attempt) criticalSection(ctx context.Context) (err error) {
	conn, err := a.Configs.Current(ctx)
	if err != nil {
		return err
	}
	before, err := a.Keys.Record(ctx)
	if err != nil {
		return err
	}
	if a.onlyIf == "" && before.MadeSince(a.since) {
		return accesskey.ErrNotDue // a flight that the reader was too late to join has made one
	}
	if err := a.mayBegin(ctx); err != nil {
		return a.forOthers(err)
	}
	var rec accesskey.Record
	defer func() { err = a.report(ctx, before, rec, err) }()
	if err := a.prepare(ctx, conn); err != nil {
		return err
	}
	if err := a.pace.wait(ctx, a.Rank, a.Now(), a.Sleep); err != nil {
		return err
	}
	begun, key, err := a.post(ctx, conn)
	switch {
	case !begun:
		return err
	case err != nil:
		return a.afterFailure(ctx, err)
	}
	rec, err = a.answered(ctx, key)
	return err
}

// mayBegin returns why the attempt has to wait, nil if it does not: Graph has asked to be
// left alone, or the last regeneration for a reader has just failed.
func (a attempt) mayBegin(ctx context.Context) error {
	if a.Rank <= flight.Farewell {
		return nil
	}
	return a.Health.May(ctx, a.kind)
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
	switch young := rec.InDoubt() && a.Now().Sub(rec.Intent.Started()) < accesskey.DoubtFor; {
	case ok && remote.NamesNoKey() && rec.Key == "":
		return nil // the first key of a tenant
	case ok && remote.Signed && a.Rank == flight.Retirement && !young:
		a.logUncompared(ctx, failure)
		return nil
	default:
		return failure
	}
}

// begin stores the intent. If storing it took so long that a doubt would be counted from
// too early a time, it is stored anew.
func (a attempt) begin(ctx context.Context) error {
	for pass := range 3 {
		applied, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Begun, OnlyIf: a.onlyIf})
		if err != nil && pass > 0 { // there is the intent of the pass before
			_, failed := a.outcome(ctx, accesskey.Event{Kind: accesskey.Refused})
			a.logUnstored(ctx, failed)
		}
		if err != nil {
			return err
		}
		if a.Now().Sub(applied.Record.Intent.BegunAt) < leaveWithin {
			return nil
		}
	}
	_, err := a.outcome(ctx, accesskey.Event{Kind: accesskey.Refused})
	return errors.Join(errSlowStorage, err)
}

var errSlowStorage = errors.New("storage takes too long: Microsoft Graph has not been asked to regenerate the key")

// post asks Graph to regenerate the key. The intent is stored meanwhile, before anything is
// sent: begun says that it has been.
func (a attempt) post(ctx context.Context, conn *config.Connection) (begun bool, key string, err error) {
	posting, cancel := context.WithTimeout(ctx, postBudget)
	defer cancel()
	key, err = conn.Graph.RegenerateDeploymentAccessKey(posting, func() error {
		err := a.begin(ctx)
		begun = err == nil
		return err
	})
	if begun {
		a.pace.last = a.Now() // the client may have repeated it
	}
	return begun, key, err
}

// outcome tells the store of the key what has become of a regeneration.
func (a attempt) outcome(ctx context.Context, e accesskey.Event) (accesskey.Applied, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeBudget)
	defer cancel()
	return a.Keys.Apply(ctx, e)
}

// answered stores the new key. An answer with a key from before the regeneration proves
// nothing.
func (a attempt) answered(ctx context.Context, key string) (accesskey.Record, error) {
	awaited := a.cause == accesskey.CauseRead && a.Flights.Waiters(Regenerating) > 0
	applied, err := a.outcome(ctx, accesskey.Event{Kind: accesskey.Answered, Key: key, Cause: a.cause, Awaited: awaited, TTL: a.ttl})
	if a.Flights.Waiters(Regenerating) == 0 {
		a.Keys.Unreserve() // whoever leaves from now on does so as well
	}
	if err == nil && applied.Finding == accesskey.OldAnswer {
		_ = a.compare(ctx) // the work may have been done
		err = &UnsettledError{&graph.Error{
			Op: graph.OpRegenerate, Kind: graph.Unreadable, RequestID: graph.LastRequestID(ctx),
			Reason: "the answer names a key from before the regeneration",
		}}
	}
	return applied.Record, err
}

// afterFailure deals with a regeneration that did not return a key. If Graph provably did
// not carry it out, the record's key is good; otherwise Graph is asked which one is.
func (a attempt) afterFailure(ctx context.Context, failure error) error {
	// An error that is not Graph's is that of a context that had ended before anything
	// was sent.
	remote, ok := errors.AsType[*graph.Error](failure)
	if !ok || !remote.MayHaveHappened() {
		_, err := a.outcome(ctx, accesskey.Event{Kind: accesskey.Refused})
		a.logUnstored(ctx, err)
		return failure
	}
	_, err := a.outcome(ctx, accesskey.Event{Kind: accesskey.Lost})
	a.logUnstored(ctx, err)
	if ctx.Err() == nil {
		_ = a.compare(ctx) // for all who wait; they ask again if it fails
	}
	return &UnsettledError{remote}
}

// logUnstored logs that an outcome could not be stored. It is known in memory.
func (a attempt) logUnstored(ctx context.Context, err error) {
	if err != nil {
		hclog.FromContext(ctx).Warn("storing the outcome of a regeneration", graph.LogArgs(err)...)
	}
}

// report records how an attempt went, and returns its error.
func (a attempt) report(ctx context.Context, before, rec accesskey.Record, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeBudget)
	defer cancel()
	switch {
	case errors.Is(err, accesskey.ErrNotDue):
		return err
	case err != nil:
		a.reportFailure(ctx, before, err)
		return a.forOthers(err)
	}
	hclog.FromContext(ctx).Info("deployment access key regenerated", "cause", rec.Cause, "key_version", rec.Version, "graph_request_id", graph.LastRequestID(ctx))
	logReport(ctx, a.Health.Succeeded(ctx))
	a.Events.SendOfKey(ctx, event.KeyRotate, rec.Version, event.Cause, rec.Cause)
	if before.Disclosed {
		a.Events.SendOfKey(ctx, event.KeyRetire, before.Version)
	}
	return nil
}

// forOthers marks the error of unattended work, so that readers who joined it are judged
// anew: they may fare better.
func (a attempt) forOthers(err error) error {
	if a.unattended() {
		return errors.Join(accesskey.ErrNotDue, err)
	}
	return err
}

func (a attempt) reportFailure(ctx context.Context, before accesskey.Record, failure error) {
	hclog.FromContext(ctx).Warn("the deployment access key was not regenerated", graph.LogArgs(failure, "cause", a.cause)...)
	logReport(ctx, a.Health.Failed(ctx, a.cause, a.unattended(), failure))
	a.Events.SendOfKey(ctx, event.KeyRotateFail, before.Version, append([]string{event.Cause, a.cause}, ofGraph(failure)...)...)
}

// UnsettledError says that Graph may have regenerated the key, although it has not
// answered so.
type UnsettledError struct{ reason *graph.Error }

func (e *UnsettledError) Error() string {
	return fmt.Sprintf("%s: Microsoft Graph may have regenerated the key nevertheless, so repeat the request", graph.Explain(e.reason))
}

func (e *UnsettledError) Unwrap() error { return e.reason }
