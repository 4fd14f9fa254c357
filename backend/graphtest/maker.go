// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// The defaults of an [AssertionRequest].
const (
	FederationIssuer   = "https://oidc.simulator.test"
	FederationSubject  = "system:serviceaccount:vault:vault"
	FederationAudience = "api://AzureADTokenExchange" // Entra's default
)

// federationKey signs the assertions of all simulators in a process, because making an
// RSA key is slow.
var federationKey = sync.OnceValues(func() (*rsa.PrivateKey, error) {
	return rsa.GenerateKey(rand.Reader, 2048)
})

// certificateKey is that of all certificates that simulators make in a process, for the
// same reason. Entra tells them apart by their thumbprints.
var certificateKey = sync.OnceValues(func() (*rsa.PrivateKey, error) {
	return rsa.GenerateKey(rand.Reader, 2048)
})

// AssertionRequest describes an assertion of the simulator's own issuer. An empty field
// has the value that the application trusts.
type AssertionRequest struct {
	Issuer, Subject, Audience string
	// Lifetime is an hour by default; a negative one makes an expired assertion.
	Lifetime time.Duration
	// Forged signs with a key that the application does not trust.
	Forged bool
}

// Assertion issues an assertion, as a Kubernetes cluster or Vault does for a workload. From
// the first call on, the application trusts [FederationIssuer] for [FederationSubject].
func (s *Simulator) Assertion(r AssertionRequest) (string, error) {
	key, err := federationKey()
	if err != nil {
		return "", err
	}
	if err := s.trustFederation(key); err != nil {
		return "", err
	}
	if r.Forged {
		key = s.signer.key
	}
	now := s.current().clock()
	expiry := now.Add(cmp.Or(r.Lifetime, time.Hour))
	start := now
	if expiry.Before(start) {
		start = expiry.Add(-time.Hour)
	}
	text, err := jwt.NewWithClaims(signingMethod, jwt.RegisteredClaims{
		Issuer:    cmp.Or(r.Issuer, FederationIssuer),
		Subject:   cmp.Or(r.Subject, FederationSubject),
		Audience:  jwt.ClaimStrings{cmp.Or(r.Audience, FederationAudience)},
		IssuedAt:  jwt.NewNumericDate(start),
		NotBefore: jwt.NewNumericDate(start),
		ExpiresAt: jwt.NewNumericDate(expiry),
		ID:        uuid.NewString(),
	}).SignedString(key)
	if err != nil {
		return "", err
	}
	s.note(text)
	return text, nil
}

// trustFederation registers the simulator's own issuer once.
func (s *Simulator) trustFederation(key *rsa.PrivateKey) error {
	for _, f := range s.current().federations {
		if f.issuer == FederationIssuer {
			return nil
		}
	}
	return s.update([]Option{WithFederation(FederationIssuer, FederationSubject, FederationAudience, &key.PublicKey)})
}

// CertificateRequest describes a certificate to make.
type CertificateRequest struct {
	// CommonName is "simulated application" by default.
	CommonName string
	// Validity is a year by default, beginning an hour ago; a negative one makes a
	// certificate that expired that long ago.
	Validity time.Duration
	// Unregistered leaves it to the test to register it, with [WithCertificate].
	Unregistered bool
}

// NewCertificate makes a self-signed certificate and registers it with the application. It
// returns PEM with the certificate and its private key. [Simulator.Issued] has the key line
// by line, as it would appear in a log.
func (s *Simulator) NewCertificate(r CertificateRequest) (bundle string, err error) {
	key, err := certificateKey()
	if err != nil {
		return "", err
	}
	template, err := certificateTemplate(cmp.Or(r.CommonName, "simulated application"))
	if err != nil {
		return "", err
	}
	now := s.current().clock()
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(cmp.Or(r.Validity, certificateLifetime))
	if template.NotAfter.Before(template.NotBefore) {
		template.NotBefore = template.NotAfter.Add(-time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	private, err := s.encodeKey(key)
	if err != nil || r.Unregistered {
		return public + private, err
	}
	return public + private, s.update([]Option{WithCertificate(public)})
}

// encodeKey encodes a private key and counts it as issued.
func (s *Simulator) encodeKey(key *rsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encoding the private key: %w", err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	// The lines around the body and its first line are the same for many keys, and the
	// last line is short.
	for _, line := range lines[2 : len(lines)-2] {
		s.note(line)
	}
	return text, nil
}
