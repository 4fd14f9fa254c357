// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxKeyBytes bounds what can be a key, of which no format is assumed. It is far above the
// 88 bytes in Microsoft's examples. Microsoft does not document a length.
const maxKeyBytes = 4096

// sensors is the path of the calls, below the version.
const sensors = "/security/identities/sensors/"

// RegenerateDeploymentAccessKey replaces the tenant's deployment access key and
// returns the new one, and the id that Graph gave the request. The old key no longer works
// for installations that have not used it yet.
//
// If before is not nil, it is called once, while the connection to Graph is being made.
// Nothing is sent unless it returns nil, and its error is returned. It has ended when this
// method returns, and has not been called if there is no access token.
//
// An error for which [Error.MayHaveHappened] is true leaves open whether the key was
// replaced. A context's own error means that it was not.
// https://learn.microsoft.com/graph/api/security-sensor-regeneratedeploymentaccesskey
func (c *Client) RegenerateDeploymentAccessKey(ctx context.Context, before func() error) (key, requestID string, err error) {
	op := operation{name: OpRegenerate, method: http.MethodPost, url: c.sensors + OpRegenerate}
	if before != nil {
		op.before = sync.OnceValue(before)
	}
	return c.key(ctx, op)
}

// DeploymentAccessKey returns the tenant's current deployment access key and changes
// nothing. It may lag behind a regeneration: Microsoft promises no consistency. Do not
// poll with it: each call probably writes to the tenant's audit log.
// https://learn.microsoft.com/graph/api/security-sensor-getdeploymentaccesskey
func (c *Client) DeploymentAccessKey(ctx context.Context) (key, requestID string, err error) {
	op := operation{name: OpGet, method: http.MethodGet, url: c.sensors + OpGet, idempotent: true, only200: true}
	key, requestID, err = c.key(ctx, op)
	if e, ok := errors.AsType[*Error](err); ok && e.Signed && e.Status == http.StatusNotFound {
		// Either there is no key, or Graph does not have this call at this version.
		op.url = c.elsewhere + OpGet
		_, _, err := c.key(ctx, op)
		other, ok := errors.AsType[*Error](err)
		e.keyless = ok && other.Signed && other.Status == http.StatusNotFound
	}
	return key, requestID, err
}

func (c *Client) key(ctx context.Context, op operation) (key, id string, err error) {
	header, err := c.call(ctx, op, func(body []byte) (reason string) {
		key, reason = parseKey(body)
		return reason
	})
	return key, requestID(header), err
}

// keyFields are the names of the key: one in Microsoft's examples, the other in its
// schema and SDKs.
type keyFields struct {
	Schema  string `json:"deploymentAccessKey"`
	Example string `json:"sensorDeploymentAccessKey"`
}

// parseKey finds the key in the body of an answer, at the root or, as in Microsoft's
// examples, below "value". If it finds none, reason says why and quotes nothing.
func parseKey(body []byte) (key, reason string) {
	var content struct {
		keyFields
		Value keyFields `json:"value"`
	}
	// Package json would silently replace invalid UTF-8 and so change the key.
	if !utf8.Valid(body) || json.Unmarshal(body, &content) != nil {
		return "", reasonUnreadable
	}
	found := []string{content.Schema, content.Example, content.Value.Schema, content.Value.Example}
	found = slices.DeleteFunc(found, func(s string) bool { return s == "" })
	found = slices.Compact(found)
	switch {
	case len(found) > 1:
		return "", "the answer contains two different keys"
	case len(found) == 0:
		return "", reasonNoKey
	case len(found[0]) > maxKeyBytes, strings.TrimSpace(found[0]) == "", strings.ContainsFunc(found[0], unicode.IsControl):
		return "", "the answer contains a key that cannot be one"
	}
	return found[0], ""
}

// Package says where to download the sensor's installer. The installer has the endpoints
// of the tenant's cloud built in, so it must be used with the tenant's key.
type Package struct {
	DownloadURL string `json:"downloadUrl"` // as Graph sent it, not checked
	Version     string `json:"version"`
}

// PackageHosts are the hosts that Microsoft documents for the sensor, by their endings:
// what is downloaded there runs as SYSTEM on domain controllers.
// https://learn.microsoft.com/defender-for-identity/deploy/configure-proxy
var PackageHosts = []string{".mdi.securitycenter.microsoft.com", ".mdi.securitycenter.microsoft.us"}

// Documented reports whether the package is downloaded over https from one of PackageHosts.
func (p Package) Documented() bool {
	u, err := url.Parse(p.DownloadURL)
	if err != nil || u.Scheme != "https" || u.User != nil || (u.Port() != "" && u.Port() != "443") {
		return false
	}
	return slices.ContainsFunc(PackageHosts, func(ending string) bool {
		return len(u.Hostname()) > len(ending) && strings.HasSuffix(strings.ToLower(u.Hostname()), ending)
	})
}

// DeploymentPackage returns the sensor package of the tenant. It needs the
// permission [PackagePermission], which [Permission] does not include.
// https://learn.microsoft.com/graph/api/security-sensor-getdeploymentpackageuri
func (c *Client) DeploymentPackage(ctx context.Context) (Package, error) {
	op := operation{name: OpPackage, method: http.MethodGet, url: c.sensors + OpPackage, idempotent: true}
	var answer struct { // at the root or below "value", like a key
		Package
		Value Package `json:"value"`
	}
	_, err := c.call(ctx, op, decode(&answer, "the answer contains no address and version of a package", func() bool {
		answer.Package = cmp.Or(answer.Package, answer.Value)
		return answer.DownloadURL != "" && answer.Version != ""
	}))
	if err != nil {
		return Package{}, err
	}
	return answer.Package, nil
}

// Application is the app registration as which the client signs in.
// https://learn.microsoft.com/graph/api/resources/application
type Application struct {
	ID        string               `json:"id"` // its object id
	Passwords []PasswordCredential `json:"passwordCredentials"`
	Keys      []keyCredential      `json:"keyCredentials"`
}

// PasswordCredential is a client secret of the app registration.
// https://learn.microsoft.com/graph/api/resources/passwordcredential
type PasswordCredential struct {
	KeyID       string       `json:"keyId"`
	DisplayName string       `json:"displayName"`
	Secret      ClientSecret `json:"secretText"` // only in the answer to AddPassword
	End         time.Time    `json:"endDateTime"`
}

// keyCredential is a certificate of the app registration.
// https://learn.microsoft.com/graph/api/resources/keycredential
type keyCredential struct {
	KeyID      string `json:"keyId"`
	Identifier string `json:"customKeyIdentifier"` // usually the thumbprint
}

// Application returns the app registration, with its secrets but for their values. It
// needs the permission [ApplicationPermission]; see [Invisible].
// https://learn.microsoft.com/graph/api/application-get
func (c *Client) Application(ctx context.Context) (found Application, err error) {
	_, err = c.call(ctx, operation{
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
	sum, _ := hex.DecodeString(thumbprint) // which this package has written
	for _, k := range a.Keys {
		// Older tools wrote it in hexadecimal instead of base64.
		if k.Identifier != "" && (k.Identifier == base64.StdEncoding.EncodeToString(sum) || strings.EqualFold(k.Identifier, thumbprint)) {
			return k.KeyID
		}
	}
	return ""
}

// has reports whether the registration has a credential with that id.
func (a Application) has(keyID string) bool {
	return slices.ContainsFunc(a.Passwords, func(p PasswordCredential) bool { return strings.EqualFold(p.KeyID, keyID) }) ||
		slices.ContainsFunc(a.Keys, func(k keyCredential) bool { return strings.EqualFold(k.KeyID, keyID) })
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
	_, err = c.call(ctx, op, decode(&added, reasonNoCredential, func() bool { return added.KeyID != "" && added.Secret != "" }))
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
	proof, err := c.prove(objectID)
	if err != nil {
		return "", err
	}
	op := c.action(OpAddKey, map[string]any{
		"keyCredential":      map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": bundle.chain[0].Raw},
		"passwordCredential": nil, // only other types of key have one
		"proof":              proof,
	})
	op.url = c.applications + "/" + url.PathEscape(objectID) + "/" + OpAddKey
	var added keyCredential
	_, err = c.call(ctx, op, decode(&added, reasonNoCredential, func() bool { return added.KeyID != "" }))
	return added.KeyID, err
}

// RemoveKey removes the certificate with that id from the app registration with that
// object id. Like [Client.RemovePassword], it succeeds if there is none. It takes the same
// proof as [Client.AddKey], which may be that of the certificate to be removed.
// https://learn.microsoft.com/graph/api/application-removekey
func (c *Client) RemoveKey(ctx context.Context, objectID, keyID string) error {
	proof, err := c.prove(objectID)
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
	_, err := c.call(ctx, op, func([]byte) string { return "" })
	refusal, ok := errors.AsType[*Error](err)
	if ok && refusal.Signed && refusal.Status == http.StatusNotFound {
		return nil
	}
	if !ok || !refusal.Signed || refusal.Status != http.StatusBadRequest {
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
