// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// A new credential works at some of Entra's hosts before it works at others, and can
// fail once more after it has worked.
const (
	rootProofs   = 3 // sign-ins in succession, each with a client of its own
	rootProofGap = 2 * time.Second
)

var (
	errRootKind = &fieldError{field: fieldCredentialType, problem: "only a " + credentialClientSecret + " or a " + credentialClientCertificate + " can be rotated; the others renew themselves"}

	// errRootReplaced is answered as it is. Clients repeat a 5xx, and a repetition would
	// rotate what somebody has just configured.
	errRootReplaced = logical.CodedError(http.StatusBadRequest, "the configuration has been changed meanwhile: the rotation of its credential has been given up")

	errRootUnproven = errors.New("the new credential has not worked everywhere yet; the old one is still in use, and the rotation goes on by itself: the status tells how it ends")
)

// rootUnknownError says that it cannot be told yet whether an interrupted rotation has
// added a secret, so that none can begin.
type rootUnknownError struct{ until time.Time }

func (e *rootUnknownError) Error() string {
	return "it is not known yet whether an interrupted rotation has added a client secret, since Microsoft Graph may list it late; the rotation is made by itself, from " +
		timestamp(e.until) + " on"
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
func (b *backend) rotateRootNow(ctx context.Context) error {
	conn, err := b.connections.get(ctx, b.storage)
	if err != nil {
		return err
	}
	if kind := conn.config.Credential.Type; kind != credentialClientSecret && kind != credentialClientCertificate {
		return errRootKind
	}
	if conn, err = b.settleOrWant(ctx, conn); err != nil {
		return err
	}
	if conn.config.Root.hopeless(b.now()) {
		conn, err = b.changeRoot(ctx, conn, func(r *rootState) { r.giveUp(b.now()) })
		if err != nil {
			return err
		}
	}
	isNew := conn.config.Root.Pending == nil
	if isNew {
		if conn.config.Credential.Type == credentialClientSecret {
			conn, err = b.addSecret(ctx, conn)
		} else {
			conn, err = b.addCertificate(ctx, conn)
		}
		if err != nil {
			return err
		}
	}
	if conn, err = b.registerCertificate(ctx, conn, isNew); err != nil {
		return err
	}
	return b.promoteRoot(ctx, conn)
}

// settleOrWant settles what an earlier rotation has left. As long as that cannot be, it
// is remembered that another rotation is wanted.
func (b *backend) settleOrWant(ctx context.Context, conn *connection) (*connection, error) {
	settled, err := b.settleRoot(ctx, conn)
	if _, unknown := errors.AsType[*rootUnknownError](err); unknown {
		if _, failure := b.changeRoot(ctx, conn, func(r *rootState) { r.Wanted = true }); failure != nil {
			return nil, failure
		}
	}
	return settled, err
}

// settleRoot removes a secret that an interrupted rotation has added and nobody knows.
// That none is listed proves something only after a while. That one was removed which
// is as young proves little, since the removal may have met a copy of the registration
// that does not have it yet: it is removed once more.
func (b *backend) settleRoot(ctx context.Context, conn *connection) (*connection, error) {
	root, now := conn.config.Root, b.now()
	if root.Intent == "" {
		return conn, nil
	}
	found, _, err := conn.graph.Passwords(ctx)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(p graph.PasswordCredential) bool { return p.DisplayName != root.Intent })
	if len(found) == 0 && root.doubtful(now) {
		return nil, &rootUnknownError{until: root.settleable()}
	}
	for _, p := range found {
		if err := conn.graph.RemovePassword(ctx, p.KeyID); err != nil {
			return nil, err
		}
	}
	return b.changeRoot(ctx, conn, func(r *rootState) {
		for _, p := range found {
			if root.doubtful(now) {
				r.retire(credentialID{Type: credentialClientSecret, KeyID: p.KeyID}, root.IntentAt.Add(rootListingLag))
			}
		}
		r.settled()
	})
}

// addSecret has Entra make a secret. Its name is stored first, since a secret whose
// value was lost with an answer can be found by nothing else.
func (b *backend) addSecret(ctx context.Context, conn *connection) (*connection, error) {
	name := "vault-plugin-secrets-mdi " + uuid.NewString()
	conn, err := b.changeRoot(ctx, conn, func(r *rootState) { r.intend(name, b.now()) })
	if err != nil {
		return nil, err
	}
	added, err := conn.graph.AddPassword(ctx, name, entrasNow().Add(conn.config.Root.lifetime()))
	if err != nil {
		return nil, b.secretNotAdded(ctx, conn, err)
	}
	return b.changeRootWith(ctx, conn, credentialClientSecret, added.KeyID, func(r *rootState) {
		r.settled()
		r.Wanted = false
		r.Pending = &madeCredential{
			Credential: credential{Type: credentialClientSecret, Secret: string(added.Secret)},
			KeyID:      added.KeyID, EndsAt: added.End, MadeAt: b.now(),
		}
	})
}

// secretNotAdded deals with a secret that could not be added, and returns the failure.
// Unless it may have been added all the same, there is nothing to settle. What has been
// refused is not tried again, though somebody wanted it.
func (b *backend) secretNotAdded(ctx context.Context, conn *connection, failure error) error {
	remote, ok := errors.AsType[*graph.Error](failure)
	if ok && remote.MayHaveHappened() {
		return failure
	}
	_, err := b.changeRoot(ctx, conn, func(r *rootState) {
		r.settled()
		r.Wanted = r.Wanted && (!ok || remote.Kind != graph.Refused)
	})
	if err != nil {
		return err
	}
	return failure
}

// promoteRoot makes the pending credential the current one, once it works.
func (b *backend) promoteRoot(ctx context.Context, conn *connection) error {
	pending := conn.config.Root.Pending
	id := pending.id()
	next := *conn.config
	next.Credential = pending.Credential
	proven, err := b.prove(ctx, &next)
	if err != nil {
		return err
	}
	_, err = b.flights.alone(ctx, func(ctx context.Context) (*logical.Response, error) {
		current, err := b.sameRoot(ctx, conn)
		if err != nil {
			return nil, err
		}
		next := *current
		next.Credential = pending.Credential
		next.Root = rootState{
			Period: current.Root.Period, Since: b.now(), EndsAt: pending.EndsAt,
			KeyID: id.KeyID, Thumbprint: id.Thumbprint, Retiring: current.Root.Retiring,
		}
		next.Root.retire(current.Root.own(current.Credential.Type), b.now().Add(rootGrace))
		return nil, b.connections.save(ctx, b.storage, &connection{config: &next, graph: proven})
	})
	if err == nil {
		b.tell(ctx, eventRootRotate, rotateRootPath)
		b.log(ctx).Info("the app's own credential has been rotated", "credential_type", id.Type, "key_id", id.KeyID, "thumbprint", id.Thumbprint)
	}
	return err
}

// prove signs in with a configuration's credential, several times in succession and
// each time with a client that knows of no other sign-in. It returns the last one.
func (b *backend) prove(ctx context.Context, cfg *config) (*graph.Client, error) {
	var last error
	for proofs := 0; ; {
		conn, err := b.connections.dial(cfg)
		if err != nil {
			return nil, err
		}
		proofs++
		if err := conn.graph.SignIn(ctx); err != nil {
			proofs, last = 0, err
		}
		if proofs == rootProofs {
			return conn.graph, nil
		}
		if b.pause(ctx, rootProofGap) != nil {
			return nil, errors.Join(errRootUnproven, last)
		}
	}
}

// changeRoot stores a change of the root state and returns the connection with it. The
// credential stays, so the client does, with its token.
func (b *backend) changeRoot(ctx context.Context, conn *connection, edit func(*rootState)) (*connection, error) {
	var changed *connection
	_, err := b.flights.alone(ctx, func(ctx context.Context) (*logical.Response, error) {
		current, err := b.sameRoot(ctx, conn)
		if err != nil {
			return nil, err
		}
		next := *current
		edit(&next.Root)
		changed = &connection{config: &next, graph: conn.graph}
		return nil, b.connections.save(ctx, b.storage, changed)
	})
	if err != nil {
		return nil, err // the change may still be under way
	}
	return changed, nil
}

// sameRoot returns the stored configuration, provided that nobody has configured
// another credential since conn was made. Who has, and has then configured the one
// before again, has ended the rotation as well: its pending credential is on its way out.
func (b *backend) sameRoot(ctx context.Context, conn *connection) (*config, error) {
	current, err := loadConfig(ctx, b.storage)
	if err != nil {
		return nil, err
	}
	if current == nil || !current.connectsLike(conn.config) || !current.Root.Pending.same(conn.config.Root.Pending) {
		return nil, errRootReplaced
	}
	return current, nil
}
