// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"time"
)

// AddPassword gives the app registration a further client secret, valid until
// end, and returns it: nobody can ask for it again. It takes up to half a minute
// until Entra accepts the secret everywhere.
//
// It needs the permission [ApplicationPermission], and that the application is
// an owner of itself. An error for which [Error.MayHaveHappened] is true leaves
// open whether there is a secret that nobody knows; displayName is how to find
// it among [Client.Passwords].
// https://learn.microsoft.com/graph/api/application-addpassword
func (c *Client) AddPassword(ctx context.Context, displayName string, end time.Time) (PasswordCredential, error) {
	type wanted struct {
		DisplayName string    `json:"displayName"`
		End         time.Time `json:"endDateTime"`
	}
	op, err := c.action(OpAddPassword, struct {
		Password wanted `json:"passwordCredential"`
	}{wanted{displayName, end.UTC().Truncate(time.Second)}})
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

// RemovePassword removes the client secret with that id, if it is there: a
// repetition does no harm. A secret that was added a moment ago may be
// overlooked, since Graph answers from copies that lag behind. It needs the
// permission [ApplicationPermission].
// https://learn.microsoft.com/graph/api/application-removepassword
func (c *Client) RemovePassword(ctx context.Context, keyID string) error {
	return c.remove(ctx, OpRemovePassword, keyID, struct {
		KeyID string `json:"keyId"`
	}{keyID})
}

// AddKey gives the app registration with that object id a further certificate
// and returns the credential's id. certificatePEM is the PEM of a
// [ClientCertificate], of which only the certificate that signs in is sent. The
// proof is a [ProofOfPossession] of a certificate that the app registration has
// already, and makes up for any permission.
//
// An error for which [Error.MayHaveHappened] is true leaves open whether the
// certificate was added; its thumbprint is how to find it among
// [Client.KeyCredentials].
// https://learn.microsoft.com/graph/api/application-addkey
func (c *Client) AddKey(ctx context.Context, objectID, certificatePEM, proof string) (keyID string, err error) {
	bundle, err := parseBundle(certificatePEM)
	if err != nil {
		return "", err
	}
	type wanted struct {
		Type  string `json:"type"`
		Usage string `json:"usage"`
		Key   string `json:"key"`
	}
	op, err := c.action(OpAddKey, struct {
		Key      wanted `json:"keyCredential"`
		Password any    `json:"passwordCredential"` // null: it is for other types of key
		Proof    string `json:"proof"`
	}{
		Key:   wanted{"AsymmetricX509Cert", "Verify", base64.StdEncoding.EncodeToString(bundle.chain[0].Raw)},
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

// RemoveKey removes the certificate with that id, if it is there, like
// [Client.RemovePassword]. The proof is a [ProofOfPossession] of a certificate
// that the app registration has, and which may be the same one.
// https://learn.microsoft.com/graph/api/application-removekey
func (c *Client) RemoveKey(ctx context.Context, keyID, proof string) error {
	return c.remove(ctx, OpRemoveKey, keyID, struct {
		KeyID string `json:"keyId"`
		Proof string `json:"proof"`
	}{keyID, proof})
}
