// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// PasswordCredential is a client secret of the app registration.
type PasswordCredential struct {
	KeyID       string
	DisplayName string
	Hint        string       // the secret's first characters, as the portal shows them
	Secret      ClientSecret // only in the answer to AddPassword
	End         time.Time
}

// KeyCredential is a certificate of the app registration.
type KeyCredential struct {
	KeyID       string
	DisplayName string
	Thumbprint  string // as in CertificateInfo, or "" if Graph does not tell
	Start       time.Time
	End         time.Time
}

// Passwords returns the client secrets that the app registration has, without
// their values, and the object id of the app registration. It needs the
// permission [ApplicationPermission].
// https://learn.microsoft.com/graph/api/application-get
func (c *Client) Passwords(ctx context.Context) (credentials []PasswordCredential, objectID string, err error) {
	found, err := c.application(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, p := range found.Passwords {
		credentials = append(credentials, p.credential())
	}
	return credentials, found.ID, nil
}

// KeyCredentials returns the certificates that the app registration has, and its
// object id. It needs the permission [ApplicationPermission].
// https://learn.microsoft.com/graph/api/application-get
func (c *Client) KeyCredentials(ctx context.Context) (credentials []KeyCredential, objectID string, err error) {
	found, err := c.application(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, k := range found.Keys {
		credentials = append(credentials, k.credential())
	}
	return credentials, found.ID, nil
}

// application is the app registration, with what was selected of it.
type application struct {
	ID        string         `json:"id"`
	Passwords []passwordJSON `json:"passwordCredentials"`
	Keys      []keyJSON      `json:"keyCredentials"`
}

// passwordJSON is https://learn.microsoft.com/graph/api/resources/passwordcredential.
type passwordJSON struct {
	KeyID       string    `json:"keyId"`
	DisplayName string    `json:"displayName"`
	Hint        string    `json:"hint"`
	Secret      string    `json:"secretText"`
	End         time.Time `json:"endDateTime"`
}

func (p passwordJSON) credential() PasswordCredential {
	return PasswordCredential{p.KeyID, p.DisplayName, p.Hint, ClientSecret(p.Secret), p.End}
}

// keyJSON is https://learn.microsoft.com/graph/api/resources/keycredential.
type keyJSON struct {
	KeyID       string    `json:"keyId"`
	DisplayName string    `json:"displayName"`
	Identifier  string    `json:"customKeyIdentifier"`
	Start       time.Time `json:"startDateTime"`
	End         time.Time `json:"endDateTime"`
}

func (k keyJSON) credential() KeyCredential {
	return KeyCredential{k.KeyID, k.DisplayName, thumbprintIn(k.Identifier), k.Start, k.End}
}

// thumbprintIn reads a key's identifier, which for certificates is the SHA-1
// thumbprint, in base64 or, as of older tools, in hexadecimal.
func thumbprintIn(identifier string) string {
	const hexDigits = 40
	if sum, err := base64.StdEncoding.DecodeString(identifier); err == nil && 2*len(sum) == hexDigits {
		return fmt.Sprintf("%X", sum)
	}
	upper := strings.ToUpper(identifier)
	if len(upper) == hexDigits && strings.Trim(upper, "0123456789ABCDEF") == "" {
		return upper
	}
	return ""
}

func (c *Client) application(ctx context.Context) (application, error) {
	op := operation{
		name: OpApplication, method: http.MethodGet, idempotent: true,
		url: c.app + "?$select=id,passwordCredentials,keyCredentials",
	}
	var found application
	err := c.call(ctx, op, func(body []byte) string {
		if json.Unmarshal(body, &found) != nil {
			return reasonUnreadable
		}
		if found.ID == "" {
			return reasonNoApplication
		}
		return ""
	})
	return found, err
}

// action is a call that changes the credentials of the app registration.
func (c *Client) action(name string, parameters any) (operation, error) {
	body, err := json.Marshal(parameters)
	if err != nil {
		return operation{}, fmt.Errorf("encoding the parameters of %s: %w", name, err)
	}
	return operation{name: name, method: http.MethodPost, url: c.app + "/" + name, body: body}, nil
}

// remove calls an action that removes the credential with that id. That it is
// not there any more is a success. Graph says so by 404, or by a 400 that it also
// uses for other purposes, so in case of a 400 the app registration decides. Where
// it may not be read, the error says so (see [Error.PerhapsGone]).
func (c *Client) remove(ctx context.Context, name, keyID string, parameters any) error {
	op, err := c.action(name, parameters)
	if err != nil {
		return err
	}
	op.idempotent = true
	err = c.call(ctx, op, func([]byte) string { return "" })
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch e.Status {
	case http.StatusNotFound:
		return nil
	case http.StatusBadRequest:
		return c.judge(ctx, keyID, e)
	default:
		return err
	}
}

// judge returns nil if the app registration has no credential with that id, or else why
// its removal was refused.
func (c *Client) judge(ctx context.Context, keyID string, refusal *Error) error {
	found, err := c.application(ctx)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusForbidden {
		refusal.Reason = reasonInvisible
	}
	if err != nil ||
		slices.ContainsFunc(found.Passwords, func(p passwordJSON) bool { return strings.EqualFold(p.KeyID, keyID) }) ||
		slices.ContainsFunc(found.Keys, func(k keyJSON) bool { return strings.EqualFold(k.KeyID, keyID) }) {
		return refusal
	}
	return nil
}

const reasonInvisible = "there is probably no such certificate, but the app may not look at its registration"

// PerhapsGone tells whether Graph has accepted the proof for the removal of a certificate
// and refused the removal itself, most likely because there is no such certificate, and
// the app may not look. What is wrong with a proof is answered otherwise.
func (e *Error) PerhapsGone() bool {
	return e.Op == OpRemoveKey && e.Reason == reasonInvisible
}
