// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // identifies a certificate, and is what Entra and its portal call the thumbprint
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// minKeyBits is the smallest RSA key that is considered safe (NIST SP 800-131A), and
	// the one that Microsoft's own tools choose for app registrations.
	minKeyBits = 2048

	// clockSkew is how far Microsoft's clock may be behind this machine's.
	clockSkew = 5 * time.Minute

	// proofAudience is the application id of Azure AD Graph, the same in all
	// clouds.
	proofAudience = "00000002-0000-0000-c000-000000000000"
	// proofValidity is the longest that Microsoft accepts.
	proofValidity = 10 * time.Minute
)

// Types of PEM blocks.
const (
	pemCertificate = "CERTIFICATE"
	pemPKCS1       = "RSA PRIVATE KEY"
	pemPKCS8       = "PRIVATE KEY"
	pemEncrypted   = "ENCRYPTED PRIVATE KEY" // PKCS#8
	pemEC          = "EC PRIVATE KEY"
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

// NewCertificate makes a self-signed certificate with a new RSA key, for signing in. It is
// valid from a few minutes before now, since clocks differ, until validity after now.
func NewCertificate(cn string, validity time.Duration, now time.Time) (ClientCertificate, error) {
	if cn == "" || validity <= 0 {
		return ClientCertificate{}, errors.New("a certificate needs a name and a validity")
	}
	key, err := rsa.GenerateKey(rand.Reader, minKeyBits)
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

// CertificateInfo describes the certificate that signs in. Nothing in it is
// secret.
type CertificateInfo struct {
	Thumbprint string // SHA-1, in the upper-case hexadecimal of Entra's portal
	NotAfter   time.Time
}

// ParseCertificate checks the PEM of a [ClientCertificate]. Its error is a
// *ConfigError that quotes none of it. A certificate that has expired or is not valid
// yet is an error too, but its info is returned as well: [New] accepts it, since Entra
// decides, by Entra's clock.
func ParseCertificate(text string) (CertificateInfo, error) {
	bundle, err := parseBundle(text)
	if err != nil {
		return CertificateInfo{}, err
	}
	leaf := bundle.chain[0]
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		err = certificateError("has expired")
	case now.Before(leaf.NotBefore):
		err = certificateError("is not valid yet")
	}
	return CertificateInfo{Thumbprint: fmt.Sprintf("%X", bundle.thumbprint()), NotAfter: leaf.NotAfter}, err
}

// ParseCertificates returns the certificates of [Config.CACertificates], which is one or
// more PEM blocks of type CERTIFICATE, or "" for none. The error says what is allowed
// and quotes nothing.
func ParseCertificates(text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := []byte(strings.TrimSpace(text)); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != pemCertificate {
			return nil, errors.New("must be one or more PEM blocks of type CERTIFICATE")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("holds a PEM block that is not an X.509 certificate")
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// bundle is a parsed ClientCertificate.
type bundle struct {
	chain []*x509.Certificate // starts with the certificate of key
	key   *rsa.PrivateKey
}

func parseBundle(text string) (*bundle, error) {
	b := &bundle{}
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if err := b.add(block); err != nil {
			return nil, err
		}
	}
	switch {
	case len(b.chain) == 0:
		return nil, certificateError("contains no certificate in PEM form")
	case b.key == nil:
		return nil, certificateError("contains no private key in PEM form")
	case b.key.N.BitLen() < minKeyBits:
		return nil, certificateError(fmt.Sprintf("needs an RSA key of %d bits or more", minKeyBits))
	}
	return b, b.putFirst()
}

func (b *bundle) add(block *pem.Block) error {
	if block.Type == pemCertificate {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return certificateError("contains a certificate that cannot be parsed")
		}
		// Duplicates are harmless: people make bundles with cat.
		if !slices.ContainsFunc(b.chain, cert.Equal) {
			b.chain = append(b.chain, cert)
		}
		return nil
	}
	key, err := parseKeyBlock(block)
	switch {
	case err != nil:
		return err
	case b.key != nil:
		return certificateError("contains more than one private key")
	}
	b.key = key
	return nil
}

func parseKeyBlock(block *pem.Block) (*rsa.PrivateKey, error) {
	if _, encrypted := block.Headers["DEK-Info"]; encrypted || block.Type == pemEncrypted {
		return nil, certificateError("contains an encrypted private key: store it without encryption, Vault encrypts it")
	}
	var key any
	var err error
	switch block.Type {
	case pemPKCS1:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case pemPKCS8:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case pemEC: // is not RSA
	default:
		return nil, certificateError("contains something that is neither a certificate nor a private key")
	}
	if err != nil {
		return nil, certificateError("contains a private key that cannot be parsed")
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, certificateError("contains a private key that is not RSA, which Entra does not accept")
	}
	return private, nil
}

// putFirst moves the key's certificate to the front.
func (b *bundle) putFirst() error {
	isOurs := func(cert *x509.Certificate) bool { return b.key.PublicKey.Equal(cert.PublicKey) }
	at := slices.IndexFunc(b.chain, isOurs)
	if at < 0 {
		return certificateError("contains no certificate that belongs to its private key")
	}
	if slices.ContainsFunc(b.chain[at+1:], isOurs) {
		return certificateError("contains more than one certificate for its private key: keep the one that the app registration has")
	}
	b.chain[0], b.chain[at] = b.chain[at], b.chain[0]
	return nil
}

func (b *bundle) thumbprint() []byte {
	sum := sha1.Sum(b.chain[0].Raw) //nolint:gosec // see the import
	return sum[:]
}

func certificateError(problem string) *ConfigError {
	return &ConfigError{"client_certificate", problem}
}
