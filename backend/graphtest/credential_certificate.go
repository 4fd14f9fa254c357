// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // the thumbprint of the header x5t is a SHA-1
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// certificate is a certificate registered with the application.
type certificate struct {
	keyID string
	*x509.Certificate
}

// subjectName trusts every certificate that an authority issued for this common name, so
// renewed certificates need no registration.
type subjectName struct {
	root       *x509.Certificate
	commonName string
}

// thumbprint returns what the portal shows: the SHA-1 in upper-case hexadecimal.
func thumbprint(c *x509.Certificate) string {
	return strings.ToUpper(hex.EncodeToString(shortSum(c)))
}

// shortSum returns a certificate's SHA-1, which only identifies it.
func shortSum(c *x509.Certificate) []byte {
	var sum [sha1.Size]byte
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(c.Raw) }) //nolint:gosec // see the import
	return sum[:]
}

// checkCertificate checks an assertion that the application signed.
func (x *exchange) checkCertificate(s settings, token *jwt.Token, claims *jwt.RegisteredClaims) *refusal {
	signer, r := s.signerOf(token)
	if r != nil {
		return r
	}
	bad := badSignature("The provided signature value did not match the expected signature value.", token)
	if r := verifyAssertion(s, token, signer.PublicKey, *bad, "RS256", "PS256"); r != nil {
		return r
	}
	base := "https://" + x.r.Host + "/" + s.tenantID
	switch {
	case claims.Subject != claims.Issuer:
		return &refusal{codeAssertionSubject, "Client assertion application identifier doesn't match 'client_id' parameter."}
	case len(claims.Audience) != 1, !slices.Contains([]string{base + "/oauth2/v2.0/token", base + "/v2.0"}, claims.Audience[0]):
		return &refusal{codeAssertionAudience, "Client assertion audience claim does not match Realm issuer."}
	case claims.ID == "": // one used before will do: MSAL for JavaScript signs a new one only when it expires
		return &refusal{codeAssertionInvalid, "Assertion failed: its jti is missing."}
	case !x.sim.propagated(signer.keyID):
		return badSignature("The key was not found.", token)
	default:
		return nil
	}
}

// signerOf finds the certificate that a JWT claims to be signed with.
func (s settings) signerOf(token *jwt.Token) (certificate, *refusal) {
	i := slices.IndexFunc(s.certificates, func(c certificate) bool { return names(token, c.Certificate) })
	found := certificate{}
	if i >= 0 {
		found = s.certificates[i]
	} else if leaf := s.bySubjectName(token); leaf != nil {
		found.Certificate = leaf
	}
	now := s.clock()
	switch {
	case !inOrder(chainOf(token)):
		return found, &refusal{codeCertificateChain, "The certificate chain of the client assertion is invalid: " +
			"each certificate must be followed by the one that certifies it."}
	case found.Certificate == nil:
		return found, badSignature("The key was not found.", token)
	case now.Before(found.NotBefore):
		return found, badSignature("The key used is not yet valid.", token)
	case now.After(found.NotAfter):
		return found, badSignature("The key used is expired.", token)
	default:
		return found, nil
	}
}

func badSignature(reason string, token *jwt.Token) *refusal {
	return &refusal{codeAssertionSignature, fmt.Sprintf("Client assertion contains an invalid signature. "+
		"[Reason - %s, Thumbprint of key used by client: '%X']", reason, thumbprintOf(token))}
}

// names reports whether a JWT's header names this certificate: by its thumbprint and, if
// the header has a chain, as the chain's first one.
func names(token *jwt.Token, c *x509.Certificate) bool {
	long, given := sha256.Sum256(c.Raw), thumbprintOf(token)
	if !bytes.Equal(given, long[:]) && !bytes.Equal(given, shortSum(c)) {
		return false
	}
	chain := chainOf(token)
	return len(chain) == 0 || chain[0].Equal(c)
}

// thumbprintOf returns the thumbprint in a JWT's header, or nil. It accepts standard and
// URL-safe base64, padded or not, since MSAL does not follow RFC 7515.
func thumbprintOf(token *jwt.Token) []byte {
	for name, size := range map[string]int{"x5t#S256": sha256.Size, "x5t": sha1.Size} {
		text, _ := token.Header[name].(string)
		text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
		if sum, err := base64.RawURLEncoding.DecodeString(text); err == nil && len(sum) == size {
			return sum
		}
	}
	return nil
}

// chainOf returns the header x5c, or nil if any part of it is not a certificate.
func chainOf(token *jwt.Token) []*x509.Certificate {
	list, _ := token.Header["x5c"].([]any)
	var chain []*x509.Certificate
	for _, entry := range list {
		text, _ := entry.(string)
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil
		}
		chain = append(chain, c)
	}
	return chain
}

// inOrder reports whether each certificate is followed by that of its issuer, as RFC 7515,
// 4.1.6, wants it.
func inOrder(chain []*x509.Certificate) bool {
	for i := range max(len(chain)-1, 0) {
		if chain[i].CheckSignatureFrom(chain[i+1]) != nil {
			return false
		}
	}
	return true
}

// bySubjectName returns the certificate in a JWT's header if its name and its authority
// are trusted.
func (s settings) bySubjectName(token *jwt.Token) *x509.Certificate {
	chain := chainOf(token)
	if len(chain) == 0 || !names(token, chain[0]) {
		return nil
	}
	leaf, intermediates := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	for _, trusted := range s.subjectNames {
		roots := x509.NewCertPool()
		roots.AddCert(trusted.root)
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: s.clock(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err == nil && leaf.Subject.CommonName == trusted.commonName {
			return leaf
		}
	}
	return nil
}
