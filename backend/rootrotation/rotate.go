// SPDX-License-Identifier: MPL-2.0

package rootrotation

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// A new credential works at some of Entra's hosts before it works at others, and can
// fail once more after it has worked.
const (
	Proofs       = 3 // sign-ins in succession, each with a client of its own
	rootProofGap = 2 * time.Second
)

var (
	errRootKind = &field.Error{Field: credential.FieldType, Problem: "only a " + credential.ClientSecret + " or a " + credential.ClientCertificate + " can be rotated; the others renew themselves"}

	// ErrReplaced is answered as it is. Clients repeat a 5xx, and a repetition would
	// rotate what somebody has just configured.
	ErrReplaced = logical.CodedError(http.StatusBadRequest, "the configuration has been changed meanwhile: the rotation of its credential has been given up")

	errRootUnproven = errors.New("the new credential has not worked everywhere yet; the old one is still in use, and the rotation goes on by itself: the status tells how it ends")
)

// rootUnknownError says that it cannot be told yet whether an interrupted rotation has
// added a secret, so that none can begin.
type rootUnknownError struct{ until time.Time }

func (e *rootUnknownError) Error() string {
	return "it is not known yet whether an interrupted rotation has added a client secret, since Microsoft Graph may list it late; the rotation is made by itself, from " +
		e.until.UTC().Format(time.RFC3339) + " on"
}

// entrasNow is the time by which Entra judges how long something is valid, which is
// not under a test's control as the engine's own clock is.
func entrasNow() time.Time { return time.Now() }

// rotateRootNow replaces the app's own credential. Each step leaves a state from which
// the next attempt goes on, and at each the stored credential works:
//
//  1. settle what an earlier rotation has left;
//  2. store the intent, or the new certificate, before Entra hears of it;
//  3. add the new credential, and store it as pending;
//  4. sign in with it, several times and with fresh clients;
//  5. store it as the current one, and the old one, if it was the engine's own, as
//     retiring;
//  6. remove that one, and no other, after the grace period (see removeRetired).
func (r *Rotator) rotateRootNow(ctx context.Context) error {
	conn, err := r.Configs.Current(ctx)
	if err != nil {
		return err
	}
	if kind := conn.Config.Credential.Type; kind != credential.ClientSecret && kind != credential.ClientCertificate {
		return errRootKind
	}
	if conn, err = r.settleOrWant(ctx, conn); err != nil {
		return err
	}
	if conn.Config.Root.Hopeless(r.Now()) {
		conn, err = r.changeRoot(ctx, conn, func(l *credential.Life) { l.GiveUp(r.Now()) })
		if err != nil {
			return err
		}
	}
	isNew := conn.Config.Root.Pending == nil
	if isNew {
		if conn.Config.Credential.Type == credential.ClientSecret {
			conn, err = r.addSecret(ctx, conn)
		} else {
			conn, err = r.addCertificate(ctx, conn)
		}
		if err != nil {
			return err
		}
	}
	if conn, err = r.registerCertificate(ctx, conn, isNew); err != nil {
		return err
	}
	return r.promoteRoot(ctx, conn)
}

// settleOrWant settles what an earlier rotation has left. As long as that cannot be, it
// is remembered that another rotation is wanted.
func (r *Rotator) settleOrWant(ctx context.Context, conn *config.Connection) (*config.Connection, error) {
	settled, err := r.settleRoot(ctx, conn)
	if _, unknown := errors.AsType[*rootUnknownError](err); unknown {
		if _, failure := r.changeRoot(ctx, conn, func(l *credential.Life) { l.Wanted = true }); failure != nil {
			return nil, failure
		}
	}
	return settled, err
}

// settleRoot removes a secret that an interrupted rotation has added and nobody knows.
// That none is listed proves something only after a while. That one was removed which
// is as young proves little, since the removal may have met a copy of the registration
// that does not have it yet: it is removed once more.
func (r *Rotator) settleRoot(ctx context.Context, conn *config.Connection) (*config.Connection, error) {
	root, now := conn.Config.Root, r.Now()
	if root.Intent == "" {
		return conn, nil
	}
	found, _, err := conn.Graph.Passwords(ctx)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(p graph.PasswordCredential) bool { return p.DisplayName != root.Intent })
	if len(found) == 0 && root.Doubtful(now) {
		return nil, &rootUnknownError{until: root.Settleable()}
	}
	for _, p := range found {
		if err := conn.Graph.RemovePassword(ctx, p.KeyID); err != nil {
			return nil, err
		}
	}
	return r.changeRoot(ctx, conn, func(l *credential.Life) {
		for _, p := range found {
			if root.Doubtful(now) {
				l.Retire(credential.ID{Type: credential.ClientSecret, KeyID: p.KeyID}, root.IntentAt.Add(credential.ListingLag))
			}
		}
		l.Settled()
	})
}

// addSecret has Entra make a secret. Its name is stored first, since a secret whose
// value was lost with an answer can be found by nothing else.
func (r *Rotator) addSecret(ctx context.Context, conn *config.Connection) (*config.Connection, error) {
	name := "vault-plugin-secrets-mdi " + uuid.NewString()
	conn, err := r.changeRoot(ctx, conn, func(l *credential.Life) { l.Intend(name, r.Now()) })
	if err != nil {
		return nil, err
	}
	added, err := conn.Graph.AddPassword(ctx, name, entrasNow().Add(conn.Config.Root.Lifetime()))
	if err != nil {
		return nil, r.secretNotAdded(ctx, conn, err)
	}
	return r.changeRootWith(ctx, conn, credential.ClientSecret, added.KeyID, func(l *credential.Life) {
		l.Settled()
		l.Wanted = false
		l.Pending = &credential.Made{
			Credential: credential.Credential{Type: credential.ClientSecret, Secret: string(added.Secret)},
			KeyID:      added.KeyID, EndsAt: added.End, MadeAt: r.Now(),
		}
	})
}

// secretNotAdded deals with a secret that could not be added, and returns the failure.
// Unless it may have been added all the same, there is nothing to settle. What has been
// refused is not tried again, though somebody wanted it.
func (r *Rotator) secretNotAdded(ctx context.Context, conn *config.Connection, failure error) error {
	remote, ok := errors.AsType[*graph.Error](failure)
	if ok && remote.MayHaveHappened() {
		return failure
	}
	_, err := r.changeRoot(ctx, conn, func(l *credential.Life) {
		l.Settled()
		l.Wanted = l.Wanted && (!ok || remote.Kind != graph.Refused)
	})
	if err != nil {
		return err
	}
	return failure
}

// promoteRoot makes the pending credential the current one, once it works.
func (r *Rotator) promoteRoot(ctx context.Context, conn *config.Connection) error {
	pending := conn.Config.Root.Pending
	id := pending.ID()
	next := *conn.Config
	next.Credential = pending.Credential
	proven, err := r.prove(ctx, &next)
	if err != nil {
		return err
	}
	err = r.Exclusive.Alone(ctx, func(ctx context.Context) error {
		current, err := r.sameRoot(ctx, conn)
		if err != nil {
			return err
		}
		next := *current
		next.Credential = pending.Credential
		next.Root = credential.Life{
			Period: current.Root.Period, Since: r.Now(), EndsAt: pending.EndsAt,
			KeyID: id.KeyID, Thumbprint: id.Thumbprint, Retiring: current.Root.Retiring,
		}
		next.Root.Retire(current.Root.Own(current.Credential.Type), r.Now().Add(credential.Grace))
		return r.Configs.Save(ctx, &config.Connection{Config: &next, Graph: proven})
	})
	if err == nil {
		r.Events.Send(ctx, event.RootRotate, event.PathRotateRoot)
		hclog.FromContext(ctx).Info("the app's own credential has been rotated", "credential_type", id.Type, "key_id", id.KeyID, "thumbprint", id.Thumbprint)
	}
	return err
}

// prove signs in with a configuration's credential, several times in succession and
// each time with a client that knows of no other sign-in. It returns the last one.
func (r *Rotator) prove(ctx context.Context, cfg *config.Config) (*graph.Client, error) {
	var last error
	for proofs := 0; ; {
		conn, err := r.Configs.Connect(cfg)
		if err != nil {
			return nil, err
		}
		proofs++
		if err := conn.Graph.SignIn(ctx); err != nil {
			proofs, last = 0, err
		}
		if proofs == Proofs {
			return conn.Graph, nil
		}
		if r.Sleep(ctx, rootProofGap) != nil {
			return nil, errors.Join(errRootUnproven, last)
		}
	}
}

// changeRoot stores a change of the root state and returns the connection with it. The
// credential stays, so the client does, with its token.
func (r *Rotator) changeRoot(ctx context.Context, conn *config.Connection, edit func(*credential.Life)) (*config.Connection, error) {
	var changed *config.Connection
	err := r.Exclusive.Alone(ctx, func(ctx context.Context) error {
		current, err := r.sameRoot(ctx, conn)
		if err != nil {
			return err
		}
		next := *current
		edit(&next.Root)
		changed = &config.Connection{Config: &next, Graph: conn.Graph}
		return r.Configs.Save(ctx, changed)
	})
	if err != nil {
		return nil, err // the change may still be under way
	}
	return changed, nil
}

// sameRoot returns the stored configuration, provided that nobody has configured
// another credential since conn was made. Who has, and has then configured the one
// before again, has ended the rotation as well: its pending credential is on its way out.
func (r *Rotator) sameRoot(ctx context.Context, conn *config.Connection) (*config.Config, error) {
	current, err := r.Configs.Stored(ctx)
	if err != nil {
		return nil, err
	}
	if current == nil || !current.SameConnection(conn.Config) || !current.Root.Pending.Same(conn.Config.Root.Pending) {
		return nil, ErrReplaced
	}
	return current, nil
}
