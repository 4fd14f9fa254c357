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

var (
	// errNoProof is that only a certificate can prove that another one may be removed.
	// Earlier versions have left such a one on the list.
	errNoProof = errors.New("the app does not sign in with a certificate, which removing one takes")

	// errInvisible is that a certificate without a known id cannot be looked for.
	errInvisible = errors.New("the id of the certificate is not known, and the app may not look at its registration")
)

// removeRetired removes the credentials whose time has come. One that cannot be removed
// does not keep the others.
func (r *Rotator) removeRetired(ctx context.Context) error {
	conn, failures := r.Configs.Current(ctx)
	if failures != nil {
		return failures
	}
	for _, old := range conn.Config.Root.Next(r.Now(), true).Remove {
		if err := r.removeOrWarn(ctx, conn, old); err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		if _, err := r.apply(ctx, conn, credential.Event{Kind: credential.Removed, Of: old}); err != nil {
			return err
		}
		hclog.FromContext(ctx).Info("done with a credential of the app that has been replaced", "key_id", old.KeyID, "thumbprint", old.Thumbprint)
	}
	return failures
}

// removeOrWarn removes a credential. If that will never be possible, or never be known,
// the log asks the operator to, and there is nothing left to do.
func (r *Rotator) removeOrWarn(ctx context.Context, conn *config.Connection, old credential.Made) error {
	err := r.remove(ctx, conn, old)
	switch log := hclog.FromContext(ctx); {
	case errors.Is(err, errNoProof):
		log.Warn("a certificate of the app that has been replaced cannot be removed by an app that signs in otherwise: remove it in the portal", "key_id", old.KeyID)
	case errors.Is(err, errInvisible):
		log.Warn("a certificate of the app that has been replaced cannot be removed, since its id is not known and the app may not look at its registration: remove it in the portal", "thumbprint", old.Thumbprint)
	case graph.PerhapsGone(err):
		log.Warn("a certificate of the app that has been replaced seems to have been removed before, which the app may not look at: see in the portal whether it has gone", "key_id", old.KeyID)
	default:
		return err
	}
	return nil
}

// removeUnknown removes a credential that was added while the configuration was changed,
// with the connection that it was added with: no configuration knows it.
func (r *Rotator) removeUnknown(ctx context.Context, conn *config.Connection, answer credential.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	of := []any{"client_id", conn.Config.ClientID, "credential_type", answer.Of.Type, "key_id", answer.KeyID}
	if err := r.remove(ctx, conn, credential.Made{Type: answer.Of.Type, KeyID: answer.KeyID}); err != nil {
		hclog.FromContext(ctx).Warn("a credential that was added while the configuration was changed could not be removed from the app: remove it in the Entra portal", graph.LogArgs(err, of...)...)
	} else {
		hclog.FromContext(ctx).Info("a credential that was added while the configuration was changed has been removed from the app", of...)
	}
}

// remove removes a credential of the app. That it has gone already is a success.
func (r *Rotator) remove(ctx context.Context, conn *config.Connection, old credential.Made) error {
	switch {
	case old.Type == credential.ClientSecret:
		return conn.Graph.RemovePassword(ctx, old.KeyID)
	case conn.Config.Credential.Type != credential.ClientCertificate:
		return errNoProof
	}
	keyID, objectID := old.KeyID, conn.Config.ObjectID
	if keyID == "" || objectID == "" {
		app, err := conn.Graph.Application(ctx)
		switch {
		case keyID == "" && graph.Invisible(err):
			return errInvisible
		case err != nil:
			return err
		}
		keyID, objectID = cmp.Or(keyID, app.Certificate(old.Thumbprint)), app.ID
		if keyID == "" {
			return nil // that it is not listed proves enough, since it is old
		}
	}
	return conn.Graph.RemoveKey(ctx, objectID, keyID)
}
