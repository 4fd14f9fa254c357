// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // identifies a certificate, and is what Entra and its portal call the thumbprint
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// minKeyBits is the smallest RSA key that is considered safe (NIST SP 800-131A).
const minKeyBits = 2048

// Types of PEM blocks.
const (
	pemCertificate = "CERTIFICATE"
	pemPKCS1       = "RSA PRIVATE KEY"
	pemPKCS8       = "PRIVATE KEY"
	pemEncrypted   = "ENCRYPTED PRIVATE KEY" // PKCS#8
	pemEC          = "EC PRIVATE KEY"
)

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
