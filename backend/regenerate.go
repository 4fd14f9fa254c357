// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// postBudget is the share of a flight that Graph gets for regenerating, so that
// time is left to ask it for the outcome if no answer comes.
const postBudget = 30 * time.Second

// task says why the key is to be regenerated.
type task struct {
	cause cause
	// due, if set, is asked when the intent is about to be stored, with whether
	// a lease on the key is live; there is no regeneration if it says no.
	due func(rec *keyRecord, held bool) bool
	// lastChance ignores that Graph wants to be left alone: there is no later.
	lastChance bool
	// unattended work first asks Graph for the key: while Graph cannot even
	// answer that, there must not be an intent that keeps others from the key.
	unattended bool
}

// regenerate returns the work of a flight: one regeneration for t. The work returns
// the record of the key that came of it, or errNotDue.
func (b *backend) regenerate(t task) func(context.Context) (*keyRecord, error) {
	return func(ctx context.Context) (*keyRecord, error) {
		conn, err := b.connections.get(ctx, b.storage)
		if err != nil {
			return nil, err
		}
		return b.regenerateWith(ctx, conn, t)
	}
}

// regenerateWith is regenerate for those who are in a flight already.
func (b *backend) regenerateWith(ctx context.Context, conn *connection, t task) (*keyRecord, error) {
	if until := b.health.throttledUntil(ctx, b.storage); !until.IsZero() && !t.lastChance {
		return nil, &throttledError{until: until}
	}
	before, err := b.keeper.current(ctx, b.storage, conn.config.workspace())
	if err != nil {
		return nil, err
	}
	rec, err := b.criticalSection(ctx, conn, t)
	switch {
	case errors.Is(err, errNotDue):
		return nil, err
	case err != nil:
		b.reportFailure(ctx, before, t, err)
		if t.unattended {
			// Who joined meanwhile asked for something else, and may fare better.
			return nil, errors.Join(errNotDue, err)
		}
		return nil, err
	}
	b.reportSuccess(ctx, before, rec)
	return rec, nil
}

func (b *backend) reportFailure(ctx context.Context, before *keyRecord, t task, failure error) {
	b.log(ctx).Warn("the deployment access key was not regenerated", logFailure(failure, "cause", t.cause)...)
	b.logReport(ctx, b.health.failed(ctx, b.storage, t, failure))
	metadata := []string{metadataCause, string(t.cause)}
	if remote, ok := errors.AsType[*graph.Error](failure); ok {
		metadata = append(metadata, metadataCode, remote.Code, metadataRequestID, remote.RequestID)
	}
	b.tellOfKey(ctx, eventKeyRotateFail, before.Version, metadata...)
}

func (b *backend) reportSuccess(ctx context.Context, before, rec *keyRecord) {
	b.log(ctx).Info("deployment access key regenerated", "cause", rec.Cause, "key_version", rec.Version, logGraphRequestID, graph.LastRequestID(ctx))
	b.logReport(ctx, b.health.succeeded(ctx, b.storage))
	b.tellOfKey(ctx, eventKeyRotate, rec.Version, metadataCause, string(rec.Cause))
	if before.Disclosed {
		b.tellOfKey(ctx, eventKeyRetire, before.Version)
	}
}

// logReport says that a report could not be stored, which is no reason to fail.
func (b *backend) logReport(ctx context.Context, err error) {
	if err != nil {
		b.log(ctx).Warn("storing the report of the last attempt", logFailure(err)...)
	}
}

// criticalSection regenerates the key. Each step leaves a state from which the
// engine can go on by itself, whatever happens after it:
//
//  1. settle the intent of an earlier regeneration, if there is one;
//  2. sign in, and do all else that can fail without touching the key;
//  3. store the intent: from here on the stored key is not handed out;
//  4. ask Graph to regenerate the key;
//  5. store the new version, which clears the intent.
func (b *backend) criticalSection(ctx context.Context, conn *connection, t task) (*keyRecord, error) {
	ws := conn.config.workspace()
	rec, err := b.keeper.current(ctx, b.storage, ws)
	if err != nil {
		return nil, err
	}
	if rec.Intent != nil {
		// A key that is found has not been disclosed by this engine, which
		// serves all but an operator who wants every key so far to be dead.
		found, err := b.settle(ctx, conn, rec, nil)
		if err != nil || (found != nil && t.cause != causeManual) {
			return found, err
		}
	}
	baseline, err := b.prepare(ctx, conn, t)
	if err != nil {
		return nil, err
	}
	if err := b.keeper.intend(ctx, b.storage, ws, baseline, t.due); err != nil {
		return nil, err
	}
	key, err := regenerateAtGraph(ctx, conn.graph)
	if err != nil {
		return b.afterFailure(ctx, conn, err)
	}
	return b.keeper.adopt(ctx, b.storage, ws, key, t.cause, t.cause == causeRead && b.flights.awaited())
}

// prepare does what can fail before there is an intent. It returns the HMAC of the
// tenant's key, if it has asked for it: to compare with later, where the record has no
// key, or where it is not to be trusted that the record's is the tenant's. An operator
// who wants every key so far to be dead must not be told so because of a key that
// somebody else has made before.
func (b *backend) prepare(ctx context.Context, conn *connection, t task) (baseline []byte, err error) {
	rec, err := b.keeper.current(ctx, b.storage, conn.config.workspace())
	if err != nil {
		return nil, err
	}
	if rec.Key != "" && !t.unattended && t.cause != causeManual {
		return nil, conn.graph.SignIn(ctx)
	}
	key, err := conn.graph.DeploymentAccessKey(ctx)
	if namesNoKey(err) {
		return nil, nil // the first key of a tenant
	}
	if err != nil {
		return nil, err
	}
	if rec.Key == "" || rec.Intent != nil || b.now().Sub(rec.RegeneratedAt) < compareNotWithin {
		return rec.mac(key), nil
	}
	return rec.mac(key), b.heed(ctx, conn, rec, key)
}

// namesNoKey tells whether Graph has answered that there is no key. What it answers
// for a tenant that has none is not documented.
func namesNoKey(err error) bool {
	remote, ok := errors.AsType[*graph.Error](err)
	return ok && remote.NamesNoKey()
}

func regenerateAtGraph(ctx context.Context, client *graph.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, postBudget)
	defer cancel()
	return client.RegenerateDeploymentAccessKey(ctx)
}

// afterFailure deals with a regeneration that did not return a key. If Graph
// provably did not carry it out, the stored key is good again; otherwise the
// tenant's key may tell what happened.
func (b *backend) afterFailure(ctx context.Context, conn *connection, failure error) (*keyRecord, error) {
	// An error that is not Graph's is that of a context that had ended before
	// anything was sent.
	if remote, ok := errors.AsType[*graph.Error](failure); !ok || !remote.MayHaveHappened() {
		if err := b.keeper.withdraw(ctx, b.storage); err != nil {
			return nil, err
		}
		return nil, failure
	}
	rec, err := b.keeper.current(ctx, b.storage, conn.config.workspace())
	if err != nil {
		return nil, err
	}
	found, err := b.settle(ctx, conn, rec, failure)
	if err == nil && found == nil {
		return nil, unsettled(rec.Intent, b.now(), failure)
	}
	return found, err
}

// settle finds out what became of the regeneration that an intent announced. It
// returns the record of the key that came of it, or nil if the request is known
// not to be carried out any more and can be repeated. While that cannot be told
// it returns an *unsettledError, for the reason given.
func (b *backend) settle(ctx context.Context, conn *connection, rec *keyRecord, reason error) (*keyRecord, error) {
	if rec.Intent.StartedAt.After(b.now()) {
		// The node that wrote it had its clock ahead. Its deadline counts from now
		// on, not from when this clock has caught up.
		var err error
		if rec, err = b.keeper.redate(ctx, b.storage); err != nil {
			return nil, err
		}
	}
	key, err := conn.graph.DeploymentAccessKey(ctx)
	noKey := namesNoKey(err)
	if err != nil && !noKey {
		return nil, unsettled(rec.Intent, b.now(), err)
	}
	if !noKey && rec.compare(key) == keyUnknown {
		found, err := b.keeper.adopt(ctx, b.storage, conn.config.workspace(), key, causeRecovered, false)
		if err != nil {
			return nil, err
		}
		b.log(ctx).Warn("a regeneration whose outcome was not known has been found carried out", "key_version", found.Version, logGraphRequestID, graph.LastRequestID(ctx))
		return found, nil
	}
	// The same key proves nothing while the request may still be on its way.
	if b.now().Before(rec.Intent.Deadline) {
		return nil, unsettled(rec.Intent, b.now(), reason)
	}
	// Nothing was carried out, so the record would be good again, if it was so before.
	if !noKey && rec.foreign(key) {
		return nil, b.adoptForeign(ctx, conn, key)
	}
	return nil, nil
}
