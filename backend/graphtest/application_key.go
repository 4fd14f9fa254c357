// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

const (
	// proofAudience is the audience of a proof of possession: the directory.
	proofAudience = "00000002-0000-0000-c000-000000000000"
	// proofLifetime is the longest lifetime of a proof.
	proofLifetime = 10 * time.Minute
)

// addKey registers a new certificate for a caller that has a valid one.
func addKey(x *exchange, s settings) answer {
	var request struct {
		KeyCredential struct {
			DisplayName string `json:"displayName"`
			Type        string `json:"type"`
			Usage       string `json:"usage"`
			Key         string `json:"key"`
		} `json:"keyCredential"`
		// PasswordCredential belongs to a type of key that the simulator refuses.
		PasswordCredential json.RawMessage `json:"passwordCredential"`
		Proof              string          `json:"proof"`
	}
	if refused := x.read(&request); refused != nil {
		return *refused
	}
	if refused := x.checkProof(s, request.Proof); refused != nil {
		return *refused
	}
	requested := request.KeyCredential
	if requested.Type != "AsymmetricX509Cert" || requested.Usage != "Verify" {
		return *x.badRequest("The type must be AsymmetricX509Cert, and the usage Verify.")
	}
	der, err := base64.StdEncoding.DecodeString(requested.Key)
	if err != nil {
		return *x.badRequest("The key is not base64.")
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil || !s.clock().Before(parsed.NotAfter) {
		return *x.badRequest("The key is not a valid certificate.")
	}
	if refused := x.checkLifetime(s, parsed.NotBefore, parsed.NotAfter); refused != nil {
		return *refused
	}
	c := certificate{uuid.NewString(), parsed}
	if !x.sim.performAddKey(c) {
		return *x.badRequest("The key is not RSA, or is registered already.")
	}
	return x.object("microsoft.graph.keyCredential", c.json())
}

// performAddKey returns false if the certificate cannot be added.
func (s *Simulator) performAddKey(c certificate) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.settings
	if next.addCertificate(c) != nil || len(next.certificates) == len(s.settings.certificates) {
		return false
	}
	s.settings = next
	s.spread(c.keyID)
	s.count(AddKey, performed)
	return true
}

func removeKey(x *exchange, s settings) answer {
	var request struct {
		KeyID string `json:"keyId"`
		Proof string `json:"proof"`
	}
	if refused := x.read(&request); refused != nil {
		return *refused
	}
	if refused := x.checkProof(s, request.Proof); refused != nil {
		return *refused
	}
	if !x.sim.performRemove(RemoveKey, request.KeyID, (*Simulator).removeCertificate) {
		return *x.badRequest("No credentials found to be removed.")
	}
	return x.noContent()
}

// checkProof checks that the caller has the key of one of the application's valid
// certificates. Like Graph, it refuses a bad proof as if the access token were bad.
func (x *exchange) checkProof(s settings, proof string) *answer {
	x.sim.note(proof)
	claims := new(jwt.RegisteredClaims)
	_, err := jwt.ParseWithClaims(proof, claims,
		func(token *jwt.Token) (any, error) {
			// An unregistered certificate proves nothing here.
			s.subjectNames = nil
			signer, r := s.signerOf(token)
			if r != nil {
				return nil, jwt.ErrTokenUnverifiable
			}
			return signer.PublicKey, nil
		},
		jwt.WithValidMethods([]string{"RS256", "PS256"}),
		jwt.WithIssuer(s.objectID),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(s.clock),
		jwt.WithLeeway(leeway),
	)
	bounded := err == nil && claims.NotBefore != nil && claims.ExpiresAt.Sub(claims.NotBefore.Time) <= proofLifetime
	if !bounded || !slices.Equal(claims.Audience, []string{proofAudience}) {
		a := x.graphError(http.StatusUnauthorized, "Authentication_MissingOrMalformed", "Access Token missing or malformed.")
		return &a
	}
	return nil
}
