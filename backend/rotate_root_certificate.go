// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// addCertificate makes a certificate, which is stored before Entra hears of it.
func (b *backend) addCertificate(ctx context.Context, conn *connection) (*connection, error) {
	made, err := graph.NewCertificate("vault-plugin-secrets-mdi", conn.config.Root.lifetime(), entrasNow())
	if err != nil {
		return nil, err
	}
	info, err := graph.ParseCertificate(made.PEM)
	if err != nil {
		return nil, err
	}
	return b.changeRoot(ctx, conn, func(r *rootState) {
		r.Pending = &madeCredential{Credential: credential{Type: credentialClientCertificate, Certificate: made.PEM}, EndsAt: info.NotAfter, MadeAt: b.now()}
	})
}

// registerCertificate adds a pending certificate to the app registration, unless an
// earlier attempt is known to have. One that has just been made was not sent before.
func (b *backend) registerCertificate(ctx context.Context, conn *connection, isNew bool) (*connection, error) {
	pending := conn.config.Root.Pending
	if pending.Credential.Type != credentialClientCertificate || pending.KeyID != "" {
		return conn, nil
	}
	seen, err := b.lookUp(ctx, conn, pending.id())
	keyID := seen.keyID
	if err == nil && keyID == "" {
		keyID, err = b.addKey(ctx, conn, seen.objectID)
	}
	if err != nil {
		return b.keyNotAdded(ctx, conn, isNew, seen, err)
	}
	return b.changeRootWith(ctx, conn, credentialClientCertificate, keyID, func(r *rootState) {
		made := *r.Pending
		made.KeyID = keyID
		r.Pending = &made
	})
}

// keyNotAdded deals with a certificate that could not be added. It is dropped if no
// attempt has added it. Else a refusal may just mean that it is there: then it works
// before long, and if it never does, rootPatience ends.
func (b *backend) keyNotAdded(ctx context.Context, conn *connection, isNew bool, seen registration, failure error) (*connection, error) {
	remote, ok := errors.AsType[*graph.Error](failure)
	adding := ok && remote.Op == graph.OpAddKey
	var drop func(*rootState)
	switch {
	case adding && remote.MayHaveHappened():
		return nil, failure
	case isNew:
		drop = func(r *rootState) { r.Pending = nil }
	case !adding || remote.Kind != graph.Refused:
		return nil, failure
	case !b.unregistered(conn, seen):
		return conn, nil
	default:
		drop = func(r *rootState) { r.giveUp(b.now()) } // and look for it once more
	}
	if _, err := b.changeRoot(ctx, conn, drop); err != nil {
		return nil, err
	}
	return nil, failure
}

// addKey sends the pending certificate, with a proof that is signed by the current one.
func (b *backend) addKey(ctx context.Context, conn *connection, objectID string) (keyID string, err error) {
	proof, err := conn.config.possession(objectID)
	if err != nil {
		return "", err
	}
	return conn.graph.AddKey(ctx, objectID, conn.config.Root.Pending.Credential.Certificate, proof)
}

// possession signs, with the certificate in use, that the app may change its keys.
func (c *config) possession(objectID string) (string, error) {
	return graph.ProofOfPossession(graph.ClientCertificate{PEM: c.Credential.Certificate}, objectID, entrasNow())
}

// unregistered tells whether no attempt has added the pending certificate: Graph does
// not list it, and would by now.
func (b *backend) unregistered(conn *connection, seen registration) bool {
	age := b.now().Sub(conn.config.Root.Pending.MadeAt)
	return seen.visible && seen.keyID == "" && age.Abs() >= rootListingLag
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
func (b *backend) lookUp(ctx context.Context, conn *connection, id credentialID) (registration, error) {
	found, objectID, err := conn.graph.KeyCredentials(ctx)
	if err != nil {
		if forbidden(err) && conn.config.ObjectID != "" {
			return registration{objectID: conn.config.ObjectID}, nil
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
