// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// Credentials that the engine has made are the engine's to remove. Where it loses sight
// of one, somebody else has to, and is told which.

// ownCredentials describes the credentials of the app that the engine has made, or may
// have, in words that a person finds in Entra's portal. Nothing in them is secret.
func (c *config) ownCredentials() []string {
	root := &c.Root
	own := []string{}
	if root.KeyID != "" || root.Thumbprint != "" {
		own = append(own, root.own(c.Credential.Type).describe())
	}
	if root.Pending != nil {
		own = append(own, root.Pending.id().describe())
	}
	for _, old := range root.Retiring {
		own = append(own, old.describe())
	}
	if root.Intent != "" {
		own = append(own, fmt.Sprintf("the client secret named %q, if there is one", root.Intent))
	}
	return own
}

// describe names a certificate whose id is not known by its thumbprint.
func (id credentialID) describe() string {
	switch {
	case id.KeyID == "":
		return "the certificate with the thumbprint " + id.Thumbprint + ", if it is registered"
	case id.Type == credentialClientSecret:
		return "the client secret with the id " + id.KeyID
	default:
		return "the certificate with the id " + id.KeyID
	}
}

// forgottenBy describes the credentials of the engine's own that next does not know of
// any more.
func (c *config) forgottenBy(next *config) []string {
	known := next.ownCredentials()
	return slices.DeleteFunc(c.ownCredentials(), func(own string) bool { return slices.Contains(known, own) })
}

// warnOfForgotten says which credentials of the engine's own stay with the app of a
// configuration that is in force no more.
func (b *backend) warnOfForgotten(ctx context.Context, old *config, forgotten []string, resp *logical.Response) {
	if len(forgotten) == 0 {
		return
	}
	resp.AddWarning("The app registration " + old.ClientID + " keeps credentials that this engine has made and does not look after any more: " +
		strings.Join(forgotten, "; ") + ". Remove them in the Entra portal.")
	b.log(ctx).Warn("an app registration keeps credentials that the engine has made and does not look after any more: remove them in the Entra portal",
		"client_id", old.ClientID, "credentials", forgotten)
}

// depart ends the engine's work when the mount goes away. A mount that is disabled
// answers nobody, so only the log can name the credentials that stay with the app.
func (b *backend) depart(ctx context.Context) {
	b.farewell(ctx)
	defer b.tellTheLast(ctx)
	conn, err := b.configured(ctx)
	if err != nil {
		b.log(ctx).Warn("the mount goes away, and which credentials the engine has made cannot be read: look for those named vault-plugin-secrets-mdi in the Entra portal", logFailure(err)...)
		return
	}
	if conn == nil {
		return
	}
	if own := conn.config.ownCredentials(); len(own) > 0 {
		b.log(ctx).Warn("the mount goes away, and unless it is only moved nobody looks after the credentials that the engine has made: remove them in the Entra portal",
			"client_id", conn.config.ClientID, "credentials", own)
	}
}

// changeRootWith is changeRoot for a change that tells of a credential which has just
// been added. If the configuration has been changed meanwhile, nobody would know of it,
// so it is removed with the connection that it was added with.
func (b *backend) changeRootWith(ctx context.Context, conn *connection, kind, keyID string, edit func(*rootState)) (*connection, error) {
	changed, err := b.changeRoot(ctx, conn, edit)
	if !errors.Is(err, errRootReplaced) {
		return changed, err // else the intent, or the thumbprint, is there to find it by
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	added := []any{"client_id", conn.config.ClientID, "credential_type", kind, "key_id", keyID}
	if failure := b.removeCredential(ctx, conn, credentialID{Type: kind, KeyID: keyID}); failure != nil {
		b.log(ctx).Warn("a credential that was added while the configuration was changed could not be removed from the app: remove it in the Entra portal", logFailure(failure, added...)...)
	} else {
		b.log(ctx).Info("a credential that was added while the configuration was changed has been removed from the app", added...)
	}
	return nil, err
}
