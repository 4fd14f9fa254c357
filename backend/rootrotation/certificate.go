// SPDX-License-Identifier: MPL-2.0

package rootrotation

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// addCertificate makes a certificate, which is stored before Entra hears of it.
func (r *Rotator) addCertificate(ctx context.Context, conn *config.Connection) (*config.Connection, error) {
	made, err := graph.NewCertificate("vault-plugin-secrets-mdi", conn.Config.Root.Lifetime(), entrasNow())
	if err != nil {
		return nil, err
	}
	info, err := graph.ParseCertificate(made.PEM)
	if err != nil {
		return nil, err
	}
	return r.changeRoot(ctx, conn, func(l *credential.Life) {
		l.Pending = &credential.Made{Credential: credential.Credential{Type: credential.ClientCertificate, Certificate: made.PEM}, EndsAt: info.NotAfter, MadeAt: r.Now()}
	})
}

// registerCertificate adds a pending certificate to the app registration, unless an
// earlier attempt is known to have. One that has just been made was not sent before.
func (r *Rotator) registerCertificate(ctx context.Context, conn *config.Connection, isNew bool) (*config.Connection, error) {
	pending := conn.Config.Root.Pending
	if pending.Credential.Type != credential.ClientCertificate || pending.KeyID != "" {
		return conn, nil
	}
	seen, err := r.lookUp(ctx, conn, pending.ID())
	keyID := seen.keyID
	if err == nil && keyID == "" {
		keyID, err = r.addKey(ctx, conn, seen.objectID)
	}
	if err != nil {
		return r.keyNotAdded(ctx, conn, isNew, seen, err)
	}
	return r.changeRootWith(ctx, conn, credential.ClientCertificate, keyID, func(l *credential.Life) {
		made := *l.Pending
		made.KeyID = keyID
		l.Pending = &made
	})
}

// keyNotAdded deals with a certificate that could not be added. It is dropped if no
// attempt has added it. Else a refusal may just mean that it is there: then it works
// before long, and if it never does, rootPatience ends.
func (r *Rotator) keyNotAdded(ctx context.Context, conn *config.Connection, isNew bool, seen registration, failure error) (*config.Connection, error) {
	remote, ok := errors.AsType[*graph.Error](failure)
	adding := ok && remote.Op == graph.OpAddKey
	var drop func(*credential.Life)
	switch {
	case adding && remote.MayHaveHappened():
		return nil, failure
	case isNew:
		drop = func(l *credential.Life) { l.Pending = nil }
	case !adding || remote.Kind != graph.Refused:
		return nil, failure
	case !r.unregistered(conn, seen):
		return conn, nil
	default:
		drop = func(l *credential.Life) { l.GiveUp(r.Now()) } // and look for it once more
	}
	if _, err := r.changeRoot(ctx, conn, drop); err != nil {
		return nil, err
	}
	return nil, failure
}

// addKey sends the pending certificate, with a proof that is signed by the current one.
func (r *Rotator) addKey(ctx context.Context, conn *config.Connection, objectID string) (keyID string, err error) {
	proof, err := proofOfPossession(conn.Config, objectID)
	if err != nil {
		return "", err
	}
	return conn.Graph.AddKey(ctx, objectID, conn.Config.Root.Pending.Credential.Certificate, proof)
}

// proofOfPossession signs, with the certificate in use, that the app may change its keys.
func proofOfPossession(c *config.Config, objectID string) (string, error) {
	return graph.ProofOfPossession(graph.ClientCertificate{PEM: c.Credential.Certificate}, objectID, entrasNow())
}

// unregistered tells whether no attempt has added the pending certificate: Graph does
// not list it, and would by now.
func (r *Rotator) unregistered(conn *config.Connection, seen registration) bool {
	age := r.Now().Sub(conn.Config.Root.Pending.MadeAt)
	return seen.visible && seen.keyID == "" && age.Abs() >= credential.ListingLag
}

// registration is what the app sees of a certificate in its own registration.
type registration struct {
	keyID    string // "" if it is not listed, or cannot be seen
	objectID string // of the app registration
	visible  bool   // whether the app may look at all
}

// lookUp looks for a certificate by its thumbprint. An app may roll its certificate
// without any permission, but not look at its registration: then the configuration has
// to name the object id.
func (r *Rotator) lookUp(ctx context.Context, conn *config.Connection, id credential.ID) (registration, error) {
	found, objectID, err := conn.Graph.KeyCredentials(ctx)
	if err != nil {
		if forbidden(err) && conn.Config.ObjectID != "" {
			return registration{objectID: conn.Config.ObjectID}, nil
		}
		return registration{}, err
	}
	seen := registration{objectID: objectID, visible: true}
	if i := slices.IndexFunc(found, func(k graph.KeyCredential) bool { return k.Thumbprint == id.Thumbprint }); i >= 0 {
		seen.keyID = found[i].KeyID
	}
	return seen, nil
}

// forbidden tells whether an error means that the app may not look at its registration.
func forbidden(err error) bool {
	remote, ok := errors.AsType[*graph.Error](err)
	return ok && remote.Op == graph.OpApplication && remote.Status == http.StatusForbidden
}
