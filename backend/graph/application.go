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
	Thumbprint  string // as in CertificateInfo, or "" if Graph does not say
	Start       time.Time
	End         time.Time
}

// Passwords returns the client secrets of the app registration, without their
// values, and its object id. It needs the permission [ApplicationPermission].
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

// KeyCredentials returns the certificates of the app registration and its object
// id. It needs the permission [ApplicationPermission].
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

// application holds the selected properties of the app registration.
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

// thumbprintIn returns the SHA-1 thumbprint in a certificate's customKeyIdentifier,
// or "" if it holds none. Older tools wrote it in hexadecimal instead of base64.
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

// action returns a call that changes the credentials of the app registration.
func (c *Client) action(name string, parameters any) (operation, error) {
	body, err := json.Marshal(parameters)
	if err != nil {
		return operation{}, fmt.Errorf("encoding the parameters of %s: %w", name, err)
	}
	return operation{name: name, method: http.MethodPost, url: c.app + "/" + name, body: body}, nil
}

// remove calls an action that removes the credential with that id. If the credential
// is already gone, that is a success. Graph reports it as a 404, or as a 400 that has
// other causes too: then remove looks at the app registration. If the application may
// not read it, the error says so (see [Error.PerhapsGone]).
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
		return c.checkGone(ctx, keyID, e)
	default:
		return err
	}
}

// checkGone returns nil if the app registration has no credential with that id, and
// otherwise the refusal to remove it.
func (c *Client) checkGone(ctx context.Context, keyID string, refusal *Error) error {
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

const reasonInvisible = "there is probably no such certificate, but the application is not allowed to read its registration"

// PerhapsGone reports whether Graph accepted the proof but refused to remove the
// certificate, most likely because it is already gone, and the application may not read
// its registration to find out. Graph answers a bad proof differently.
func (e *Error) PerhapsGone() bool {
	return e.Op == OpRemoveKey && e.Reason == reasonInvisible
}
