// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Application is the app registration as which the client signs in.
// https://learn.microsoft.com/graph/api/resources/application
type Application struct {
	ID        string               `json:"id"` // its object id
	Passwords []PasswordCredential `json:"passwordCredentials"`
	Keys      []KeyCredential      `json:"keyCredentials"`
}

// PasswordCredential is a client secret of the app registration.
// https://learn.microsoft.com/graph/api/resources/passwordcredential
type PasswordCredential struct {
	KeyID       string       `json:"keyId"`
	DisplayName string       `json:"displayName"`
	Secret      ClientSecret `json:"secretText"` // only in the answer to AddPassword
	End         time.Time    `json:"endDateTime"`
}

// KeyCredential is a certificate of the app registration.
// https://learn.microsoft.com/graph/api/resources/keycredential
type KeyCredential struct {
	KeyID      string `json:"keyId"`
	Identifier string `json:"customKeyIdentifier"` // usually the thumbprint
}

// Application returns the app registration, with its secrets but for their values. It
// needs the permission [ApplicationPermission]; see [Invisible].
// https://learn.microsoft.com/graph/api/application-get
func (c *Client) Application(ctx context.Context) (found Application, err error) {
	err = c.call(ctx, operation{
		name: OpApplication, method: http.MethodGet, idempotent: true,
		url: c.app + "?$select=id,passwordCredentials,keyCredentials",
	}, decode(&found, "the answer does not describe the application", func() bool { return found.ID != "" }))
	return found, err
}

// Invisible reports whether err means that the application may not look at its
// registration. A proxy's page does not.
func Invisible(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Signed && e.Op == OpApplication && e.Status == http.StatusForbidden
}

// Certificate returns the id of the certificate with that thumbprint, as in
// [CertificateInfo], or "" if the registration has none.
func (a Application) Certificate(thumbprint string) (keyID string) {
	for _, k := range a.Keys {
		if thumbprintIn(k.Identifier) == thumbprint {
			return k.KeyID
		}
	}
	return ""
}

// thumbprintIn returns the SHA-1 thumbprint in a certificate's customKeyIdentifier,
// or "" if it holds none. Older tools wrote it in hexadecimal instead of base64.
func thumbprintIn(identifier string) string {
	const size = 20
	sum, err := base64.StdEncoding.DecodeString(identifier)
	if err != nil || len(sum) != size {
		sum, err = hex.DecodeString(identifier)
	}
	if err != nil || len(sum) != size {
		return ""
	}
	return fmt.Sprintf("%X", sum)
}

// has reports whether the registration has a credential with that id.
func (a Application) has(keyID string) bool {
	return slices.ContainsFunc(a.Passwords, func(p PasswordCredential) bool { return strings.EqualFold(p.KeyID, keyID) }) ||
		slices.ContainsFunc(a.Keys, func(k KeyCredential) bool { return strings.EqualFold(k.KeyID, keyID) })
}

// AddPassword adds a client secret, valid until end, to the app registration and returns
// it. Graph never returns its value again. It can take half a minute until Entra accepts
// the secret everywhere.
//
// It needs the permission [ApplicationPermission], and the application must be an owner
// of itself. An error for which [Error.MayHaveHappened] is true leaves open whether there
// is a new secret, whose value is then lost. Find it by its displayName in
// [Client.Application].
// https://learn.microsoft.com/graph/api/application-addpassword
func (c *Client) AddPassword(ctx context.Context, displayName string, end time.Time) (added PasswordCredential, err error) {
	op := c.action(OpAddPassword, map[string]any{
		"passwordCredential": map[string]any{"displayName": displayName, "endDateTime": end.UTC().Truncate(time.Second)},
	})
	err = c.call(ctx, op, decode(&added, reasonNoCredential, func() bool { return added.KeyID != "" && added.Secret != "" }))
	return added, err
}

// RemovePassword removes the client secret with that id. It succeeds if there is none, so
// repeating it is harmless. It may miss a secret that was added a moment ago, since
// Graph's replicas lag behind. It needs the permission [ApplicationPermission].
// https://learn.microsoft.com/graph/api/application-removepassword
func (c *Client) RemovePassword(ctx context.Context, keyID string) error {
	return c.remove(ctx, keyID, c.action(OpRemovePassword, map[string]any{"keyId": keyID}))
}

// AddKey adds a certificate to the app registration with that object id and returns the
// credential's id. certificatePEM is the PEM of a [ClientCertificate], of which only the
// certificate that signs in is sent. The client's own certificate, which the app
// registration must have already, proves that the client may do this. That makes any
// permission unnecessary.
//
// An error for which [Error.MayHaveHappened] is true leaves open whether the certificate
// was added. Find it by its thumbprint in [Client.Application].
// https://learn.microsoft.com/graph/api/application-addkey
func (c *Client) AddKey(ctx context.Context, objectID, certificatePEM string) (keyID string, err error) {
	bundle, err := parseBundle(certificatePEM)
	if err != nil {
		return "", err
	}
	proof, err := proofOfPossession(c.certificate, objectID, time.Now())
	if err != nil {
		return "", err
	}
	op := c.action(OpAddKey, map[string]any{
		"keyCredential":      map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": bundle.chain[0].Raw},
		"passwordCredential": nil, // only other types of key have one
		"proof":              proof,
	})
	op.url = c.applications + "/" + url.PathEscape(objectID) + "/" + OpAddKey
	var added KeyCredential
	err = c.call(ctx, op, decode(&added, reasonNoCredential, func() bool { return added.KeyID != "" }))
	return added.KeyID, err
}

// RemoveKey removes the certificate with that id from the app registration with that
// object id. Like [Client.RemovePassword], it succeeds if there is none. It takes the same
// proof as [Client.AddKey], which may be that of the certificate to be removed.
// https://learn.microsoft.com/graph/api/application-removekey
func (c *Client) RemoveKey(ctx context.Context, objectID, keyID string) error {
	proof, err := proofOfPossession(c.certificate, objectID, time.Now())
	if err != nil {
		return err
	}
	return c.remove(ctx, keyID, c.action(OpRemoveKey, map[string]any{"keyId": keyID, "proof": proof}))
}

// action returns a call that changes the credentials of the app registration.
func (c *Client) action(name string, parameters map[string]any) operation {
	body, _ := json.Marshal(parameters) // never fails: they are texts, bytes and times
	return operation{name: name, method: http.MethodPost, url: c.app + "/" + name, body: body}
}

// remove calls an action that removes the credential with that id. If the credential
// is already gone, that is a success. Graph itself reports it as a 404, or as a 400 that
// has other causes too: then remove looks at the app registration. If the application may
// not read it, the error says so (see [PerhapsGone]).
func (c *Client) remove(ctx context.Context, keyID string, op operation) error {
	op.idempotent = true
	err := c.call(ctx, op, func([]byte) string { return "" })
	refusal, ok := errors.AsType[*Error](err)
	switch {
	case !ok || !refusal.Signed:
		return err
	case refusal.Status == http.StatusNotFound:
		return nil
	case refusal.Status != http.StatusBadRequest:
		return err
	}
	found, err := c.Application(ctx)
	if Invisible(err) {
		refusal.Reason = reasonInvisible
	}
	if err != nil || found.has(keyID) {
		return refusal
	}
	return nil
}

const reasonInvisible = "there is probably no such certificate, but the application is not allowed to read its registration"

// PerhapsGone reports whether err means that Graph accepted the proof but refused to remove
// the certificate, while the application may not read its registration. Most likely the
// certificate is already gone: Graph answers a bad proof differently.
func PerhapsGone(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Op == OpRemoveKey && e.Reason == reasonInvisible
}
