// SPDX-License-Identifier: MPL-2.0

// Package rootrotation replaces the app's own credential. It does what [credential.Life]
// decides, and stores what comes of it.
//
// A new credential is added, proven to work and stored as the current one before the one
// before is removed, and only credentials that the engine made are ever removed. At each
// step the stored credential works, whatever happens after it.
package rootrotation

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// reportBudget bounds what has to be done even if the time for the work is up.
const reportBudget = 5 * time.Second

var (
	errKind = &field.Error{Field: credential.FieldType, Problem: "only a " + credential.ClientSecret + " or a " + credential.ClientCertificate + " can be rotated; the others renew themselves"}

	// ErrReplaced is not a 5xx: clients would repeat it, and the repetition would rotate
	// what has just been configured.
	ErrReplaced = logical.CodedError(http.StatusBadRequest, "the configuration has been changed meanwhile: the rotation of its credential has been abandoned")

	errUnproven = errors.New("the new credential does not work everywhere yet; the old one is still in use, and the rotation goes on automatically: see mdi/status")

	// errUnlisted is that no secret can be added yet, which is no failure.
	errUnlisted = errors.New("it is not known yet whether an interrupted rotation has added a client secret, since Microsoft Graph may list it late; the rotation is made automatically")
)

// Rotator replaces the app's own credential, one piece of work at a time and apart from
// requests.
type Rotator struct {
	Configs *config.Store
	Events  *event.Sender
	Flights *flight.Group
	Changes *flight.Group // those of the configuration take their turn in it
	Now     func() time.Time
	// Sleep waits, or returns an error if the context ends first.
	Sleep func(context.Context, time.Duration) error
}

// Rotate replaces the credential now. It returns a warning, and no error, if the rotation
// goes on automatically: clients repeat a 503, and a repetition would be another rotation.
func (r *Rotator) Rotate(ctx context.Context) (warning string, err error) {
	err = r.work(ctx, true)
	switch {
	case errors.Is(err, errUnlisted):
		return "The credential has not been replaced yet: " + err.Error() + ".", nil
	case errors.Is(err, flight.ErrUnderWay), errors.Is(err, errUnproven):
		return "The new credential does not work everywhere yet. The old one is still in use, and the rotation goes on automatically: see mdi/status.", nil
	}
	return "", err
}

// RunDue does what is due. Failures are reported in mdi/status.
func (r *Rotator) RunDue(ctx context.Context) error {
	cfg, err := r.Configs.Stored(ctx)
	if err != nil || cfg == nil || !cfg.Root.Next(r.Now(), false).Due() {
		return err
	}
	_ = r.work(ctx, false)
	return nil
}

// work replaces the credential if that is asked for, or does what is due, when its turn
// comes. It reports how that went.
func (r *Rotator) work(ctx context.Context, asked bool) error {
	return r.Flights.Alone(ctx, flight.Schedule, func(ctx context.Context) error {
		conn, err := r.Configs.Current(ctx)
		switch {
		case err != nil:
			r.report(ctx, err) // if the configuration can be read by now
			return err
		case asked && conn.Config.Credential.Ambient():
			return errKind
		case !asked && !conn.Config.Root.Next(r.Now(), false).Due(): // other work came first
			return nil
		}
		if err = r.advance(ctx, conn, asked); !asked {
			err = errors.Join(err, r.removeRetired(ctx))
		}
		r.report(ctx, err)
		return err
	})
}

func (r *Rotator) report(ctx context.Context, failure error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	conn, err := r.Configs.Current(ctx)
	if err != nil || failure == nil && conn.Config.Root.Failures == 0 || errors.Is(failure, errUnlisted) {
		return
	}
	e := credential.Event{Kind: credential.Reported}
	if failure != nil {
		hclog.FromContext(ctx).Warn("the app's own credential could not be rotated", graph.LogArgs(failure)...)
		r.Events.Send(ctx, event.RootRotateFail, event.PathRotateRoot)
		e.Problem, e.Wait = graph.Explain(failure), graph.Backoff(health.FirstRetry, health.LastRetry, conn.Config.Root.Failures)
	}
	if _, err := r.apply(ctx, conn, e); err != nil {
		hclog.FromContext(ctx).Warn("storing the report of the last attempt", graph.LogArgs(err)...)
	}
}

// apply stores an event and returns the connection with it. The error is ErrReplaced if
// conn is no longer configured, or if the event is about what a configuration has ended,
// even if conn is configured again.
func (r *Rotator) apply(ctx context.Context, conn *config.Connection, e credential.Event) (*config.Connection, error) {
	if e.At.IsZero() {
		e.At = r.Now()
	}
	next := config.Config{}
	err := r.Changes.Alone(ctx, flight.Configuration, func(ctx context.Context) error {
		stored, err := r.Configs.Stored(ctx)
		if err != nil {
			return err
		}
		fits := false
		if stored.SameConnection(conn.Config) {
			next = *stored
			next.Root, fits = stored.Root.Apply(e)
		}
		if !fits {
			return ErrReplaced
		}
		if e.Kind == credential.Proven {
			next.Credential = e.Of.Credential
		}
		return r.Configs.Save(ctx, &config.Connection{Config: &next, Graph: conn.Graph})
	})
	if err != nil {
		return nil, err // and next may still be written
	}
	return &config.Connection{Config: &next, Graph: conn.Graph}, nil
}

// WarnOfForgotten names the engine's own credentials that stay with the app of a
// configuration that was replaced by next, nil if it was deleted. It returns "" if there
// are none.
func (r *Rotator) WarnOfForgotten(ctx context.Context, old, next *config.Config) (warning string) {
	forgotten := old.Root.Names()
	if next != nil {
		known := next.Root.Names()
		forgotten = slices.DeleteFunc(forgotten, func(name string) bool { return slices.Contains(known, name) })
	}
	if len(forgotten) == 0 {
		return ""
	}
	hclog.FromContext(ctx).Warn("an app registration keeps credentials that the engine has made and no longer looks after: remove them in the Entra portal",
		"client_id", old.ClientID, "credentials", forgotten)
	return "The app registration " + old.ClientID + " keeps credentials that this engine has made and no longer looks after: " +
		strings.Join(forgotten, "; ") + ". Remove them in the Entra portal."
}

// WarnOnUnmount names in the log the credentials that stay with the app when the mount
// goes away. A mount that is disabled answers no request.
func (r *Rotator) WarnOnUnmount(ctx context.Context) {
	cfg, err := r.Configs.Stored(ctx)
	if err != nil {
		hclog.FromContext(ctx).Warn("the mount is disabled or moved, or its namespace sealed, and which credentials the engine has made cannot be read: unless the mount starts again, look for those named vault-plugin-secrets-mdi in the Entra portal", graph.LogArgs(err)...)
	} else if cfg != nil && len(cfg.Root.Made) > 0 {
		hclog.FromContext(ctx).Warn("the mount is disabled or moved, or its namespace sealed, and the engine no longer looks after the credentials that it has made: remove them in the Entra portal, unless the mount starts again, as after a move or an unseal",
			"client_id", cfg.ClientID, "credentials", cfg.Root.Names())
	}
}
