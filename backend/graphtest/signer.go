// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// signingMethod is the one that Entra uses.
var signingMethod = jwt.SigningMethodRS256

// signer signs and verifies access tokens.
type signer struct {
	key *rsa.PrivateKey
	id  string
}

// tokenSigner is shared by all simulators in a process, as all tenants share Entra's
// signing keys: another tenant's token fails because of its claims, not because of its
// signature. Sharing also saves making an RSA key per test.
var tokenSigner = sync.OnceValues(func() (*signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	return &signer{key: key, id: base64.RawURLEncoding.EncodeToString(sum[:20])}, nil
})

func (s *signer) sign(claims tokenClaims) string {
	token := jwt.NewWithClaims(signingMethod, claims)
	token.Header["kid"] = s.id
	signed, err := token.SignedString(s.key)
	if err != nil {
		panic(err) // signing these claims with this key never fails
	}
	return signed
}

// verify checks what does not depend on the call: a token's signature, issuer, audience,
// lifetime, and that its tenant is one that the application is in.
func (s *signer) verify(token string, t settings) (*tokenClaims, error) {
	claims := new(tokenClaims)
	_, err := jwt.ParseWithClaims(token, claims, s.publicKey,
		jwt.WithValidMethods([]string{signingMethod.Alg()}),
		jwt.WithAudience(t.audience),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(t.clock),
	)
	if err != nil {
		return nil, err
	}
	if of, known := t.in(claims.TenantID); !known || claims.Issuer != issuer(of.tenantID) {
		return nil, jwt.ErrTokenInvalidClaims
	}
	return claims, nil
}

func (s *signer) publicKey(token *jwt.Token) (any, error) {
	if token.Header["kid"] != s.id {
		return nil, errors.New("unknown key id")
	}
	return &s.key.PublicKey, nil
}

// jwk returns the public key in the form of RFC 7517.
func (s *signer) jwk() map[string]string {
	exponent := big.NewInt(int64(s.key.E))
	return map[string]string{
		"kty": "RSA",
		"use": "sig",
		"alg": signingMethod.Alg(),
		"kid": s.id,
		"n":   base64.RawURLEncoding.EncodeToString(s.key.N.Bytes()),
		"e":   base64.RawURLEncoding.EncodeToString(exponent.Bytes()),
	}
}
