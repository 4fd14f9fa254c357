// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/golang-jwt/jwt/v5"
)

// ClientCertificate is a certificate of the app registration, and its private key.
type ClientCertificate struct {
	// PEM has, in any order, the certificate and one unencrypted RSA key as PKCS#1 or
	// PKCS#8. If Entra is to check subject and issuer, it also has the chain to the
	// root.
	PEM string
}

// Format implements fmt.Formatter.
func (ClientCertificate) Format(f fmt.State, _ rune) { redact(f) }

// String is for direct callers; package fmt uses Format.
func (ClientCertificate) String() string { return redacted }

// MarshalText keeps the key out of JSON, structured logs included.
func (ClientCertificate) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (c ClientCertificate) issuers(cfg *Config, client *http.Client) (func() (issuer, error), error) {
	bundle, err := parseBundle(c.PEM)
	if err != nil {
		return nil, err
	}
	cred, err := confidential.NewCredFromCert(bundle.chain, bundle.key)
	if err != nil {
		return nil, certificateError("is not accepted by the sign-in library")
	}
	return signIns(cfg, cred, client), nil
}

// newKeyBits is the key size that Microsoft's own tools choose for app registrations.
const newKeyBits = 2048

// clockSkew is how far Microsoft's clock may be behind this machine's.
const clockSkew = 5 * time.Minute

// NewCertificate makes a self-signed certificate with a new RSA key, for signing in. It is
// valid from a few minutes before now, since clocks differ, until validity after now.
func NewCertificate(cn string, validity time.Duration, now time.Time) (ClientCertificate, error) {
	if cn == "" || validity <= 0 {
		return ClientCertificate{}, errors.New("a certificate needs a name and a validity")
	}
	key, err := rsa.GenerateKey(rand.Reader, newKeyBits)
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("generating a key: %w", err)
	}
	template := &x509.Certificate{ // CreateCertificate chooses the serial number
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("signing the certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("encoding the key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: private})...)
	return ClientCertificate{PEM: string(text)}, nil
}

const (
	// proofAudience is the application id of Azure AD Graph, the same in all
	// clouds.
	proofAudience = "00000002-0000-0000-c000-000000000000"
	// proofValidity is the longest that Microsoft accepts.
	proofValidity = 10 * time.Minute
)

// proofOfPossession returns the JWT that addKey and removeKey require. It proves that
// the caller holds the key of cert, which must be a currently valid certificate of the
// app registration with that object id (not its client id). The JWT is a secret.
// https://learn.microsoft.com/graph/application-rollkey-prooftoken
func proofOfPossession(cert ClientCertificate, objectID string, now time.Time) (string, error) {
	bundle, err := parseBundle(cert.PEM)
	if err != nil {
		return "", err
	}
	proof := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"aud": proofAudience, // a string: jwt.RegisteredClaims would write a list
		"iss": objectID,
		"sub": objectID,
		"nbf": now.Unix(),
		"exp": now.Add(proofValidity).Unix(),
	})
	proof.Header["x5t"] = base64.RawURLEncoding.EncodeToString(bundle.thumbprint())
	signed, err := proof.SignedString(bundle.key)
	if err != nil {
		return "", certificateError("has a key that cannot sign")
	}
	return signed, nil
}
