// SPDX-License-Identifier: MPL-2.0

package rootrotation

import (
	"cmp"
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// errInvisible is that a certificate without a known id cannot be looked for.
var errInvisible = errors.New("the id of the certificate is not known, and the app may not look at its registration")

// removeRetired removes the credentials whose time has come. One that cannot be
// removed does not keep the others.
func (r *Rotator) removeRetired(ctx context.Context, conn *config.Connection) error {
	var failures error
	for _, old := range conn.Config.Root.Removable(r.Now()) {
		if err := r.removeOrTell(ctx, conn, old.ID); err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		changed, err := r.changeRoot(ctx, conn, func(l *credential.Life) { l.Removed(old.ID) })
		if err != nil {
			return err
		}
		conn = changed
		hclog.FromContext(ctx).Info("done with a credential of the app that has been replaced", "key_id", old.KeyID, "thumbprint", old.Thumbprint)
	}
	return failures
}

// removeOrTell removes a credential. If that will never be possible, or never be known,
// the log asks somebody to look after it, and there is nothing left to do.
func (r *Rotator) removeOrTell(ctx context.Context, conn *config.Connection, id credential.ID) error {
	if id.Type == credential.ClientCertificate && conn.Config.Credential.Type != credential.ClientCertificate {
		// It takes a proof that is signed with a certificate. Earlier versions have
		// left such a one on the list.
		hclog.FromContext(ctx).Warn("a certificate of the app that has been replaced cannot be removed by an app that signs in otherwise: remove it in the portal", "key_id", id.KeyID)
		return nil
	}
	err := r.removeCredential(ctx, conn, id)
	if errors.Is(err, errInvisible) {
		hclog.FromContext(ctx).Warn("a certificate of the app that has been replaced cannot be removed, since its id is not known and the app may not look at its registration: remove it in the portal", "thumbprint", id.Thumbprint)
		return nil
	}
	if remote, ok := errors.AsType[*graph.Error](err); ok && remote.PerhapsGone() {
		hclog.FromContext(ctx).Warn("a certificate of the app that has been replaced seems to have been removed before, which the app may not look at: see in the portal whether it has gone", "key_id", id.KeyID)
		return nil
	}
	return err
}

// removeCredential removes a credential of the app; that it has gone already is a
// success.
func (r *Rotator) removeCredential(ctx context.Context, conn *config.Connection, id credential.ID) error {
	if id.Type == credential.ClientSecret {
		return conn.Graph.RemovePassword(ctx, id.KeyID)
	}
	keyID, objectID := id.KeyID, conn.Config.ObjectID
	if keyID == "" || objectID == "" {
		seen, err := r.lookUp(ctx, conn, id)
		switch {
		case keyID == "" && (forbidden(err) || err == nil && !seen.visible):
			return errInvisible
		case err != nil:
			return err
		case keyID == "" && seen.keyID == "":
			return nil // that it is not listed proves enough, since it is old
		}
		keyID, objectID = cmp.Or(keyID, seen.keyID), cmp.Or(objectID, seen.objectID)
	}
	proof, err := proofOfPossession(conn.Config, objectID)
	if err != nil {
		return err
	}
	return conn.Graph.RemoveKey(ctx, keyID, proof)
}
