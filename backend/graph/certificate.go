// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"bytes"
	"cmp"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // identifies a certificate, and is what Entra and its portal call the thumbprint
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// minKeyBits is the smallest RSA key that is considered safe (NIST SP 800-131A), and
	// the one that Microsoft's own tools choose for app registrations.
	minKeyBits = 2048

	// maxChecks bounds the time for finding the chain, with maxSignature, and maxKey that
	// for parsing a key. Both are in bytes, and more than RSA keys of 16384 bits need.
	maxChecks    = 100
	maxSignature = 2 << 10
	maxKey       = 16 << 10
	// maxBlocks is far beyond a chain and the bundle of an operating system, which people
	// extend by their proxy's authority; it bounds the work on a text.
	maxBlocks = 500
)

// ClientCertificate is a certificate of the app registration, and its private key.
type ClientCertificate struct {
	// PEM has, in any order, the certificate and one unencrypted RSA key as PKCS#1 or
	// PKCS#8. If Entra is to check subject and issuer, it also has the chain to the
	// root.
	PEM string
}

// Format implements fmt.Formatter.
func (ClientCertificate) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is for direct callers; package fmt uses Format.
func (ClientCertificate) String() string { return redacted }

// MarshalText keeps the key out of JSON, structured logs included.
func (ClientCertificate) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (c ClientCertificate) issuer(cfg *Config, client *http.Client) (issuer, error) {
	bundle, err := parseBundle(c.PEM)
	if err != nil {
		return nil, err
	}
	cred, _ := confidential.NewCredFromCert(bundle.chain, bundle.key) // never fails: the key is that of the first certificate
	return signIns(cfg, cred, client)
}

// NewCertificate makes a self-signed certificate with a new RSA key, for signing in. It is
// valid from a few minutes before now, since clocks differ, until validity after now.
func NewCertificate(cn string, validity time.Duration, now time.Time) (ClientCertificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, minKeyBits)
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("generating a key: %w", err)
	}
	template := &x509.Certificate{ // CreateCertificate chooses the serial number
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             now.Add(-5 * time.Minute), // Microsoft's clock may be so far behind
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return ClientCertificate{}, fmt.Errorf("signing the certificate: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})...)
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
		// The application id of Azure AD Graph, the same in all clouds. It is a string:
		// jwt.RegisteredClaims would write a list.
		"aud": "00000002-0000-0000-c000-000000000000",
		"iss": objectID,
		"sub": objectID,
		"nbf": now.Unix(),
		"exp": now.Add(10 * time.Minute).Unix(), // the longest that Microsoft accepts
	})
	thumbprint := bundle.thumbprint()
	proof.Header["x5t"] = base64.RawURLEncoding.EncodeToString(thumbprint[:])
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
	// Unsent are the subjects, in quotes, of certificates in the PEM that are not on the
	// way from this one to its root. Entra does not get them.
	Unsent []string
}

// ParseCertificate checks the PEM of a [ClientCertificate]. Its error is a
// *ConfigError that quotes none of it. A damaged block, and a certificate that has expired
// or is not valid yet, are errors too, but the info is returned as well: [New] accepts
// them, since a configuration has to outlive an upgrade, and since Entra decides by
// Entra's clock.
func ParseCertificate(text string) (CertificateInfo, error) {
	bundle, err := parseBundle(text)
	if err != nil {
		return CertificateInfo{}, err
	}
	leaf := bundle.chain[0]
	switch now := time.Now(); {
	case bundle.damage != nil:
		err = certificateError(bundle.damage.Error())
	case now.After(leaf.NotAfter):
		err = certificateError("has expired")
	case now.Before(leaf.NotBefore):
		err = certificateError("is not valid yet")
	}
	info := CertificateInfo{Thumbprint: fmt.Sprintf("%X", bundle.thumbprint()), NotAfter: leaf.NotAfter}
	for _, cert := range bundle.certs {
		if !slices.Contains(bundle.chain, cert) {
			info.Unsent = append(info.Unsent, fmt.Sprintf("%q", cert.Subject))
		}
	}
	return info, err
}

// bundle is a parsed ClientCertificate.
type bundle struct {
	certs  []*x509.Certificate // all of them
	chain  []*x509.Certificate // the certificate of key, and issuer by issuer from it
	key    *rsa.PrivateKey
	damage error // about the first block that cannot be used
	checks int   // of signatures
}

// parseBundle fails only if the text is of no use. It ignores damaged blocks, since
// earlier versions stored what has some; [ParseCertificate] does not.
func parseBundle(text string) (*bundle, error) {
	b := &bundle{}
	b.damage = eachBlock(text, b.add)
	others := func(cert *x509.Certificate) bool { return b.key == nil || !b.key.PublicKey.Equal(cert.PublicKey) }
	ours := slices.DeleteFunc(slices.Clone(b.certs), others)
	var problem error
	switch {
	case len(b.certs) == 0:
		problem = errors.New("contains no certificate in PEM form")
	case b.key == nil:
		problem = errors.New("contains no private key in PEM form")
	case b.key.N.BitLen() < minKeyBits:
		problem = fmt.Errorf("needs an RSA key of %d bits or more", minKeyBits)
	case len(ours) == 0:
		problem = errors.New("contains no certificate that belongs to its private key")
	case len(ours) > 1:
		problem = errors.New("contains more than one certificate for its private key: keep the one that the app registration has")
	default:
		b.chain = b.climb(ours[0], map[*x509.Certificate]bool{})
		return b, nil
	}
	return nil, certificateError(cmp.Or(b.damage, problem).Error())
}

// foreign says how to convert what PEM blocks of other formats contain.
var foreign = map[string]string{
	"OPENSSH PRIVATE KEY": "is a private key in OpenSSH's own format: convert it with ssh-keygen -p -m PEM",
	"TRUSTED CERTIFICATE": "is a certificate in OpenSSL's own format: convert it with openssl x509",
	"PKCS7":               "is a PKCS #7 container: convert it with openssl pkcs7 -print_certs",
}

func (b *bundle) add(block *pem.Block) (err error) {
	if block.Type == "CERTIFICATE" {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return errors.New("cannot be parsed as an X.509 certificate")
		}
		// Duplicates are harmless: people make bundles with cat.
		if !slices.ContainsFunc(b.certs, cert.Equal) {
			b.certs = append(b.certs, cert)
		}
		return nil
	}
	if how := foreign[block.Type]; how != "" {
		return errors.New(how)
	}
	var key any
	switch _, encrypted := block.Headers["DEK-Info"]; {
	case encrypted || block.Type == "ENCRYPTED PRIVATE KEY": // PKCS#8
		return errors.New("is an encrypted private key: store it without encryption, Vault encrypts it")
	case len(block.Bytes) > maxKey:
		err = errors.New("too long")
	case block.Type == "RSA PRIVATE KEY": // PKCS#1
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == "PRIVATE KEY": // PKCS#8
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type != "EC PRIVATE KEY" && block.Type != "DSA PRIVATE KEY":
		return errors.New("is neither a certificate nor a private key: remove it")
	}
	private, isRSA := key.(*rsa.PrivateKey)
	switch {
	case err != nil:
		return errors.New("is a private key that cannot be parsed")
	case !isRSA:
		return errors.New("is a private key that is not RSA, which Entra does not accept: make an RSA key and a certificate for it")
	case b.key != nil && !b.key.Equal(private):
		return errors.New("is a second private key: keep the one that belongs to the certificate")
	}
	b.key = private
	return nil
}

// climb returns the longest path from a certificate, issuer by issuer, that it finds in
// one walk of maxChecks: cross-signed authorities allow several.
func (b *bundle) climb(cert *x509.Certificate, seen map[*x509.Certificate]bool) []*x509.Certificate {
	var path []*x509.Certificate
	seen[cert] = true
	for _, issuer := range b.certs {
		if seen[issuer] || !bytes.Equal(issuer.RawSubject, cert.RawIssuer) {
			continue
		}
		if b.checks++; b.checks > maxChecks {
			b.damage = cmp.Or(b.damage, errors.New("contains too many certificates with the same subject: keep those of one chain"))
			break
		}
		if !issued(issuer, cert) {
			continue
		}
		if further := b.climb(issuer, seen); len(further) > len(path) {
			path = further
		}
	}
	return append([]*x509.Certificate{cert}, path...)
}

// issued reports whether the key of issuer has signed cert. This decides only what is
// sent. Entra verifies it, so an old signature with SHA-1 is no reason to refuse it.
func issued(issuer, cert *x509.Certificate) (yes bool) {
	fips140.WithoutEnforcement(func() {
		yes = len(cert.Signature) <= maxSignature &&
			issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
	})
	return yes
}

// thumbprint returns what Entra identifies the certificate by. Its SHA-1 is no security
// function, so it is computed in FIPS mode as well.
func (b *bundle) thumbprint() (sum [sha1.Size]byte) {
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(b.chain[0].Raw) }) //nolint:gosec // see the import
	return sum
}

func certificateError(problem string) *ConfigError {
	return &ConfigError{"client_certificate", problem}
}

// lineBreak also matches an escaped line break, and the indentation that YAML needs.
var lineBreak = pattern(`[ \t]*(?:\r\n?|\n|(?:\\r)?\\n)[ \t]*`)

// remains matches what shows, outside of all blocks, that the BEGIN line of one is damaged:
// its END line, or the first line of its content. One dash may be lost, and editors join two;
// remarks have fewer.
var remains = pattern(`(?m)(?:-{4}|[–—]{2})(?:BEGIN|END) [A-Z0-9 ]*(?:CERTIFICATE|KEY)|(?:BEGIN|END) [A-Z0-9 ]*(?:CERTIFICATE|KEY)(?:-{4}|[–—]{2})|^MI[A-Za-z0-9+/]{30}`)

// eachBlock calls use for the PEM blocks of a text, whatever stands around them, and
// returns the first error, with the number of its block. It goes on after an error. The
// error quotes nothing.
//
// Package pem skips what it cannot decode, so it gets one block at a time.
func eachBlock(text string, use func(*pem.Block) error) (first error) {
	const begin = "-----BEGIN "
	if err := plainText(text); err != nil && !strings.Contains(text, begin) {
		return err // in UTF-16, for example, nothing looks like a block
	}
	for n, part := range strings.Split(lineBreak().ReplaceAllString(text, "\n"), begin) {
		block, after := pem.Decode([]byte(begin + part))
		var err error
		switch {
		case n == 0: // what precedes the first block
			after = []byte(part)
		case block == nil:
			content, _, _ := strings.Cut(part, "-----END ")
			if err = plainText(content); err == nil {
				err = errors.New("is damaged: a BEGIN line, lines of base64 and an END line of the same type must follow each other, without anything else")
			}
		case !strings.HasSuffix(block.Type, " PARAMETERS"): // those of a key
			err = use(block)
		}
		if err == nil && remains().Match(after) {
			n, err = n+1, errors.New("has no intact BEGIN line")
		}
		if err == nil && n > maxBlocks {
			err = fmt.Errorf("is one too many: keep the certificates that are needed, %d blocks at most", maxBlocks)
		}
		if err != nil && first == nil {
			first = fmt.Errorf("PEM block %d %w", n, err)
		}
	}
	return first
}

// ParseCertificates returns the certificates of [Config.CACertificates], which is one or
// more PEM blocks of type CERTIFICATE, or "" for none. With an error, which quotes
// nothing, it returns those that it could read.
func ParseCertificates(text string) ([]*x509.Certificate, error) {
	var b bundle
	err := eachBlock(text, func(block *pem.Block) error {
		if block.Type != "CERTIFICATE" && (foreign[block.Type] == "" || strings.HasSuffix(block.Type, "KEY")) {
			return errors.New("is not of type CERTIFICATE: remove it")
		}
		return b.add(block)
	})
	if err == nil && len(b.certs) == 0 && strings.TrimSpace(text) != "" {
		err = errors.New("contains no certificate: it must be one or more PEM blocks of type CERTIFICATE")
	}
	return b.certs, err
}

// plainText returns what kind of character a text contains that PEM blocks, which are ASCII,
// do not. It quotes nothing else.
func plainText(text string) error {
	for _, r := range text {
		kind := "a character that is not ASCII"
		switch {
		case r < utf8.RuneSelf && (unicode.IsPrint(r) || unicode.IsSpace(r)):
			continue
		case 4*strings.Count(text, "\x00") > utf8.RuneCountInString(text):
			return errors.New("is UTF-16 text: save it as UTF-8")
		case r == 0:
			kind = "a NUL character"
		case !unicode.IsPrint(r):
			kind = "an invisible character"
		}
		return fmt.Errorf("contains %s (%U): remove it, or copy the text anew", kind, r)
	}
	return nil
}
