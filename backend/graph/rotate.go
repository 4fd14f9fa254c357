// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"time"
)

// AddPassword adds a client secret, valid until end, to the app registration and returns
// it. Graph never returns its value again. It can take half a minute until Entra accepts
// the secret everywhere.
//
// It needs the permission [ApplicationPermission], and the application must be an owner
// of itself. An error for which [Error.MayHaveHappened] is true leaves open whether there
// is a new secret, whose value is then lost. Find it by its displayName among
// [Client.Passwords].
// https://learn.microsoft.com/graph/api/application-addpassword
func (c *Client) AddPassword(ctx context.Context, displayName string, end time.Time) (PasswordCredential, error) {
	type requested struct {
		DisplayName string    `json:"displayName"`
		End         time.Time `json:"endDateTime"`
	}
	op, err := c.action(OpAddPassword, struct {
		Password requested `json:"passwordCredential"`
	}{requested{displayName, end.UTC().Truncate(time.Second)}})
	if err != nil {
		return PasswordCredential{}, err
	}
	var added passwordJSON
	err = c.call(ctx, op, func(body []byte) string {
		if json.Unmarshal(body, &added) != nil {
			return reasonUnreadable
		}
		if added.KeyID == "" || added.Secret == "" {
			return reasonNoCredential
		}
		return ""
	})
	if err != nil {
		return PasswordCredential{}, err
	}
	return added.credential(), nil
}

// RemovePassword removes the client secret with that id. It succeeds if there is none, so
// repeating it is harmless. It may miss a secret that was added a moment ago, since
// Graph's replicas lag behind. It needs the permission [ApplicationPermission].
// https://learn.microsoft.com/graph/api/application-removepassword
func (c *Client) RemovePassword(ctx context.Context, keyID string) error {
	return c.remove(ctx, OpRemovePassword, keyID, struct {
		KeyID string `json:"keyId"`
	}{keyID})
}

// AddKey adds a certificate to the app registration with that object id and returns the
// credential's id. certificatePEM is the PEM of a [ClientCertificate], of which only the
// certificate that signs in is sent. The proof is a [ProofOfPossession] of a certificate
// that the app registration already has. It makes any permission unnecessary.
//
// An error for which [Error.MayHaveHappened] is true leaves open whether the certificate
// was added. Find it by its thumbprint among [Client.KeyCredentials].
// https://learn.microsoft.com/graph/api/application-addkey
func (c *Client) AddKey(ctx context.Context, objectID, certificatePEM, proof string) (keyID string, err error) {
	bundle, err := parseBundle(certificatePEM)
	if err != nil {
		return "", err
	}
	type requested struct {
		Type  string `json:"type"`
		Usage string `json:"usage"`
		Key   string `json:"key"`
	}
	op, err := c.action(OpAddKey, struct {
		Key      requested `json:"keyCredential"`
		Password any       `json:"passwordCredential"` // null: only other types of key have one
		Proof    string    `json:"proof"`
	}{
		Key:   requested{"AsymmetricX509Cert", "Verify", base64.StdEncoding.EncodeToString(bundle.chain[0].Raw)},
		Proof: proof,
	})
	if err != nil {
		return "", err
	}
	op.url = c.applications + "/" + url.PathEscape(objectID) + "/" + OpAddKey
	var answer keyJSON
	err = c.call(ctx, op, func(body []byte) string {
		if json.Unmarshal(body, &answer) != nil {
			return reasonUnreadable
		}
		if answer.KeyID == "" {
			return reasonNoCredential
		}
		return ""
	})
	return answer.KeyID, err
}

// RemoveKey removes the certificate with that id. Like [Client.RemovePassword], it
// succeeds if there is none. The proof is a [ProofOfPossession] of a certificate that the
// app registration has, which may be the same one.
// https://learn.microsoft.com/graph/api/application-removekey
func (c *Client) RemoveKey(ctx context.Context, keyID, proof string) error {
	return c.remove(ctx, OpRemoveKey, keyID, struct {
		KeyID string `json:"keyId"`
		Proof string `json:"proof"`
	}{keyID, proof})
}
