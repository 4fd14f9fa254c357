// SPDX-License-Identifier: MPL-2.0

// Package rootrotation replaces the app's own credential.
//
// A new credential is added, proven to work and stored as the current one before the one
// before is removed, and only credentials that the engine made are ever removed. At each
// step the stored credential works, whatever happens after it.
package rootrotation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// Rotator replaces the app's own credential, one piece of work at a time and apart from
// requests, as the work with the key is.
type Rotator struct {
	Configs *config.Store
	Events  *event.Sender
	// Exclusive is the turn in which a configuration is changed.
	Exclusive interface {
		Alone(ctx context.Context, work func(context.Context) error) error
	}
	Now func() time.Time
	// Sleep waits, or returns an error if the context ends before.
	Sleep func(context.Context, time.Duration) error

	flights *flight.Group[struct{}]
}

// Start lets the rotator work until base ends.
func (r *Rotator) Start(base context.Context, detach func(base, request context.Context) context.Context) {
	r.flights = flight.New[struct{}](base, detach)
}

// Rotate replaces the credential now. It returns a warning, and no error, if the rotation
// goes on automatically: clients repeat a 503, and a repetition would be another rotation.
func (r *Rotator) Rotate(ctx context.Context) (warning string, err error) {
	err = r.workOnRoot(ctx, r.rotateRootNow)
	if unknown, ok := errors.AsType[*rootUnknownError](err); ok {
		return "The credential has not been replaced yet: " + unknown.Error() + ".", nil
	}
	if errors.Is(err, flight.ErrUnderWay) || errors.Is(err, errRootUnproven) {
		return "The new credential has not worked everywhere yet. The old one is still in use, and the rotation goes on by itself; the status tells how it ends.", nil
	}
	return "", err
}

// configured returns the connection that is configured, nil if there is none.
func (r *Rotator) configured(ctx context.Context) (*config.Connection, error) {
	conn, err := r.Configs.Current(ctx)
	if errors.Is(err, config.ErrUnconfigured) {
		return nil, nil
	}
	return conn, err
}

func logReport(ctx context.Context, err error) {
	if err != nil {
		hclog.FromContext(ctx).Warn("storing the report of the last attempt", graph.LogArgs(err)...)
	}
}

// reportBudget is what remembering the outcome of a piece of work may take.
const reportBudget = 5 * time.Second

// workOnRoot does work on the app's own credential, one piece at a time and apart from
// the request, as flights do for the key. What fails stands in the status.
func (r *Rotator) workOnRoot(ctx context.Context, work func(context.Context) error) error {
	return r.flights.Alone(ctx, func(ctx context.Context) error {
		err := work(ctx)
		r.reportRoot(ctx, err)
		return err
	})
}

// reportRoot remembers how work on the credential went, also of work whose time is up.
func (r *Rotator) reportRoot(ctx context.Context, failure error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	conn, err := r.Configs.Current(ctx)
	_, unknown := errors.AsType[*rootUnknownError](failure) // which is no failure of anything
	if err != nil || (failure == nil && conn.Config.Root.Failures == 0) || errors.Is(failure, errRootKind) || unknown {
		return
	}
	if failure != nil {
		hclog.FromContext(ctx).Warn("the app's own credential could not be rotated", graph.LogArgs(failure)...)
		r.Events.Send(ctx, event.RootRotateFail, event.PathRotateRoot)
	}
	now := r.Now()
	_, err = r.changeRoot(ctx, conn, func(l *credential.Life) {
		if failure == nil {
			l.Failures, l.NextAttempt = 0, time.Time{}
			return
		}
		l.LastError, l.LastErrorAt = graph.Explain(failure), now
		l.NextAttempt = now.Add(graph.Backoff(health.FirstRetry, health.LastRetry, l.Failures))
		l.Failures++
	})
	logReport(ctx, err)
}

// RunDue does what is due with the app's own credential. What fails has been reported.
func (r *Rotator) RunDue(ctx context.Context) error {
	conn, err := r.configured(ctx)
	if err != nil || conn == nil {
		return err
	}
	if conn.Config.Root.Due(r.Now()) {
		_ = r.workOnRoot(ctx, r.tendRoot) // what fails has been told
	}
	return nil
}

// tendRoot does what is due when its turn has come, which may be less than what was due
// before. It begins a rotation only if the schedule or somebody has asked for one: what an
// interrupted one has left is settled, so that nobody's credential is replaced unasked.
func (r *Rotator) tendRoot(ctx context.Context) error {
	conn, err := r.Configs.Current(ctx)
	if err != nil {
		return err
	}
	root, now := conn.Config.Root, r.Now()
	var rotation error
	switch {
	case !root.Due(now):
		return nil
	case root.Pending != nil && !root.Hopeless(now), root.RotationDue(now), root.Wanted:
		rotation = r.rotateRootNow(ctx)
	case root.Hopeless(now):
		_, rotation = r.changeRoot(ctx, conn, func(l *credential.Life) { l.GiveUp(now) })
	case root.Intent != "":
		_, rotation = r.settleRoot(ctx, conn)
	}
	// Whatever became of that: what has been replaced is not kept by it.
	if conn, err = r.Configs.Current(ctx); err != nil {
		return errors.Join(rotation, err)
	}
	return errors.Join(rotation, r.removeRetired(ctx, conn))
}

// WarnOfForgotten says which credentials of the engine's own stay with the app of a
// configuration that was replaced by next; nil: by none. It returns the warning, "" if
// there are none.
func (r *Rotator) WarnOfForgotten(ctx context.Context, old, next *config.Config) (warning string) {
	forgotten := old.Root.Names(old.Credential.Type)
	if next != nil {
		known := next.Root.Names(next.Credential.Type)
		forgotten = slices.DeleteFunc(forgotten, func(name string) bool { return slices.Contains(known, name) })
	}
	if len(forgotten) == 0 {
		return ""
	}
	hclog.FromContext(ctx).Warn("an app registration keeps credentials that the engine has made and does not look after any more: remove them in the Entra portal",
		"client_id", old.ClientID, "credentials", forgotten)
	return "The app registration " + old.ClientID + " keeps credentials that this engine has made and does not look after any more: " +
		strings.Join(forgotten, "; ") + ". Remove them in the Entra portal."
}

// WarnOnUnmount names in the log the credentials that stay with the app when the mount
// goes away. A mount that is disabled answers no request.
func (r *Rotator) WarnOnUnmount(ctx context.Context) {
	conn, err := r.configured(ctx)
	if err != nil {
		hclog.FromContext(ctx).Warn("the mount goes away, and which credentials the engine has made cannot be read: look for those named vault-plugin-secrets-mdi in the Entra portal", graph.LogArgs(err)...)
		return
	}
	if conn == nil {
		return
	}
	if own := conn.Config.Root.Names(conn.Config.Credential.Type); len(own) > 0 {
		hclog.FromContext(ctx).Warn("the mount goes away, and unless it is only moved nobody looks after the credentials that the engine has made: remove them in the Entra portal",
			"client_id", conn.Config.ClientID, "credentials", own)
	}
}

// changeRootWith is changeRoot for a change that tells of a credential which has just
// been added. If the configuration has been changed meanwhile, nobody would know of it,
// so it is removed with the connection that it was added with.
func (r *Rotator) changeRootWith(ctx context.Context, conn *config.Connection, kind, keyID string, edit func(*credential.Life)) (*config.Connection, error) {
	changed, err := r.changeRoot(ctx, conn, edit)
	if !errors.Is(err, ErrReplaced) {
		return changed, err // else the intent, or the thumbprint, is there to find it by
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	added := []any{"client_id", conn.Config.ClientID, "credential_type", kind, "key_id", keyID}
	if failure := r.removeCredential(ctx, conn, credential.ID{Type: kind, KeyID: keyID}); failure != nil {
		hclog.FromContext(ctx).Warn("a credential that was added while the configuration was changed could not be removed from the app: remove it in the Entra portal", graph.LogArgs(failure, added...)...)
	} else {
		hclog.FromContext(ctx).Info("a credential that was added while the configuration was changed has been removed from the app", added...)
	}
	return nil, err
}
