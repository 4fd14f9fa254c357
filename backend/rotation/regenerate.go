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

// attempt is a regeneration, and why it is made.
type attempt struct {
	*Manager

	cause string
	// onlyIf is the unattended work that it does; "" for one that a request asks for.
	// Unattended work first asks Graph for the key: while Graph cannot even answer that,
	// there must not be an intent that keeps others from the key.
	onlyIf string
	// lastChance ignores that Graph wants the engine to stay away: there is no later.
	lastChance bool
}

// regenerate regenerates the key, or joins a regeneration that is under way. It returns
// the record of the key that came of it. The error is [accesskey.ErrNotDue] if the joined
// work was not made for those who wait.
func (m *Manager) regenerate(ctx context.Context, a attempt) (*flight.Result[accesskey.Record], error) {
	a.Manager = m
	return m.Flights.Share(ctx, Regenerating, a.criticalSection)
}

// criticalSection regenerates the key in a flight. Each step leaves a state from which the
// engine can go on, whatever happens after it:
//
//  1. settle the intent of an earlier regeneration, if there is one;
//  2. sign in, and do all else that can fail without touching the key;
//  3. store the intent: from here on the stored key is not handed out;
//  4. ask Graph to regenerate the key;
//  5. store the new version, which clears the intent.
func (a attempt) criticalSection(ctx context.Context) (rec accesskey.Record, err error) {
	conn, before, err := a.mayBegin(ctx)
	if err != nil {
		return rec, err
	}
	defer func() { err = a.report(ctx, before, rec, err) }()
	if before.Intent != nil {
		// A key that is found has not been disclosed by this engine. That serves
		// everyone but an operator who wants every key so far to be dead.
		found, err := a.settle(ctx, conn, nil)
		if err != nil || found.Cause == accesskey.CauseRecovered && found.Version > before.Version && a.cause != accesskey.CauseManual {
			return found, err
		}
	}
	baseline, err := a.prepare(ctx, conn)
	if err != nil {
		return rec, err
	}
	if _, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Begun, Baseline: baseline, OnlyIf: a.onlyIf}); err != nil {
		return rec, err
	}
	posting, cancel := context.WithTimeout(ctx, postBudget)
	defer cancel()
	key, err := conn.Graph.RegenerateDeploymentAccessKey(posting)
	if err != nil {
		return a.afterFailure(ctx, conn, err)
	}
	awaited := a.cause == accesskey.CauseRead && a.Flights.Waiters(Regenerating) > 0
	return a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Answered, Key: key, Cause: a.cause, Awaited: awaited})
}

// mayBegin returns what an attempt begins with. The error is a [*health.ThrottledError] if
// Graph wants the engine to stay away.
func (a attempt) mayBegin(ctx context.Context) (conn *config.Connection, before accesskey.Record, err error) {
	if conn, err = a.Configs.Current(ctx); err != nil {
		return nil, before, err
	}
	if err := a.Health.Throttled(ctx); err != nil && !a.lastChance {
		return nil, before, err
	}
	before, err = a.Keys.Record(ctx)
	return conn, before, err
}

// prepare does what can fail before there is an intent. It returns the tenant's key, if it
// has asked for it: to compare with later, where the record has no key, or where the
// record's may not be the tenant's. An operator who wants every key so far to be dead must
// not be told so because of a key that was made elsewhere before.
func (a attempt) prepare(ctx context.Context, conn *config.Connection) (baseline string, err error) {
	rec, err := a.Keys.Record(ctx)
	if err != nil {
		return "", err
	}
	if rec.Key != "" && a.onlyIf == "" && a.cause != accesskey.CauseManual {
		return "", conn.Graph.SignIn(ctx)
	}
	key, err := conn.Graph.DeploymentAccessKey(ctx)
	if namesNoKey(err) {
		return "", nil // the first key of a tenant
	}
	if err != nil {
		return "", err
	}
	if rec.Key == "" || rec.Intent != nil || a.Now().Sub(rec.RegeneratedAt) < accesskey.CompareNotBefore {
		return key, nil
	}
	_, err = a.heed(ctx, key)
	return key, err
}

// namesNoKey reports whether Graph has answered that there is no key. What it answers for
// a tenant that has none is not documented.
func namesNoKey(err error) bool {
	remote, ok := errors.AsType[*graph.Error](err)
	return ok && remote.NamesNoKey()
}

// afterFailure deals with a regeneration that did not return a key. If Graph provably did
// not carry it out, the stored key is good again; otherwise the tenant's key may show what
// happened.
func (a attempt) afterFailure(ctx context.Context, conn *config.Connection, failure error) (accesskey.Record, error) {
	// An error that is not Graph's is that of a context that had ended before anything
	// was sent.
	if remote, ok := errors.AsType[*graph.Error](failure); !ok || !remote.MayHaveHappened() {
		rec, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Refused})
		if err != nil {
			return rec, err
		}
		return rec, failure
	}
	rec, err := a.settle(ctx, conn, failure)
	if err == nil && (rec.Intent != nil || rec.Cause != accesskey.CauseRecovered) {
		err = unsettled(rec, a.Now(), failure)
	}
	return rec, err
}

// settle finds out what became of the regeneration that an intent announced. It returns
// the record of the key that came of it, or, if it is known not to be carried out any
// longer and can be repeated, the record as it was. While that is unknown the error is an
// [*UnsettledError], for the reason given.
func (a attempt) settle(ctx context.Context, conn *config.Connection, reason error) (accesskey.Record, error) {
	before, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Lost})
	if err != nil {
		return before, err
	}
	key, err := conn.Graph.DeploymentAccessKey(ctx)
	if err != nil && !namesNoKey(err) {
		return before, unsettled(before, a.Now(), err)
	}
	rec, err := a.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Compared, Key: key})
	switch {
	case errors.Is(err, accesskey.ErrUndecided):
		return rec, unsettled(rec, a.Now(), reason)
	case err != nil || rec.Version == before.Version:
		return rec, err
	case rec.Cause == accesskey.CauseExternal:
		a.reportExternal(ctx, rec)
	default:
		hclog.FromContext(ctx).Warn("a regeneration whose outcome was not known has been found carried out", "key_version", rec.Version, "graph_request_id", graph.LastRequestID(ctx))
	}
	return rec, nil
}

// report records how an attempt went. It returns its error, which for unattended work
// says to those who joined it that they may fare better.
func (a attempt) report(ctx context.Context, before, rec accesskey.Record, err error) error {
	switch {
	case errors.Is(err, accesskey.ErrNotDue):
		return err
	case err != nil:
		a.reportFailure(ctx, before, err)
		if a.onlyIf != "" {
			return errors.Join(accesskey.ErrNotDue, err)
		}
		return err
	}
	hclog.FromContext(ctx).Info("deployment access key regenerated", "cause", rec.Cause, "key_version", rec.Version, "graph_request_id", graph.LastRequestID(ctx))
	logReport(ctx, a.Health.Succeeded(ctx))
	a.Events.SendOfKey(ctx, event.KeyRotate, rec.Version, event.Cause, rec.Cause)
	if before.Disclosed {
		a.Events.SendOfKey(ctx, event.KeyRetire, before.Version)
	}
	return nil
}

func (a attempt) reportFailure(ctx context.Context, before accesskey.Record, failure error) {
	hclog.FromContext(ctx).Warn("the deployment access key was not regenerated", graph.LogArgs(failure, "cause", a.cause)...)
	logReport(ctx, a.Health.Failed(ctx, a.cause, a.onlyIf != "", failure))
	metadata := []string{event.Cause, a.cause}
	if remote, ok := errors.AsType[*graph.Error](failure); ok {
		metadata = append(metadata, event.Code, remote.Code, event.RequestID, remote.RequestID)
	}
	a.Events.SendOfKey(ctx, event.KeyRotateFail, before.Version, metadata...)
}

// UnsettledError says that it cannot be told yet whether a regeneration has been carried
// out, so that no key can be handed out.
type UnsettledError struct {
	age    time.Duration
	until  time.Time // when the regeneration can be repeated; zero: it can be by now
	reason error     // may be nil
}

func unsettled(rec accesskey.Record, now time.Time, reason error) error {
	e := &UnsettledError{reason: reason}
	if rec.Intent != nil {
		e.age = max(0, now.Sub(rec.Intent.StartedAt))
		if rec.Intent.Deadline.After(now) {
			e.until = rec.Intent.Deadline
		}
	}
	return e
}

func (e *UnsettledError) Error() string {
	settled := "as soon as Graph answers"
	if !e.until.IsZero() {
		settled = "by " + e.until.UTC().Format(time.RFC3339) + " at the latest if Graph answers"
	}
	text := fmt.Sprintf("a regeneration began %s ago, and whether Graph has made a new key is not known yet, so none is handed out; try again: it is settled %s",
		e.age.Round(time.Second), settled)
	if e.reason != nil {
		text += ": " + graph.Explain(e.reason)
	}
	return text
}

func (e *UnsettledError) Unwrap() error { return e.reason }
