// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// RoleOwnedBy lets an application manage the credentials of the applications that it owns,
// itself included. Tokens have it only if [WithRoles] sets it.
const RoleOwnedBy = "Application.ReadWrite.OwnedBy"

// WithCertificate registers more certificates with the application. Each text must have
// exactly one certificate with an RSA key; everything else in it, such as the private key,
// is ignored.
func WithCertificate(pems ...string) Option {
	return func(s *settings) error {
		for _, text := range pems {
			c, err := parseCertificate(text)
			if err != nil {
				return err
			}
			if err := s.addCertificate(certificate{uuid.NewString(), c}); err != nil {
				return err
			}
		}
		return nil
	}
}

// WithSubjectName trusts the certificates that an authority, given as PEM, has issued for
// this common name, if the client sends their chain.
func WithSubjectName(authority, commonName string) Option {
	return func(s *settings) error {
		root, err := parseCertificate(authority)
		if err != nil {
			return err
		}
		s.subjectNames = append(slices.Clone(s.subjectNames), subjectName{root, commonName})
		return nil
	}
}

// WithForeignPassword adds a client secret that belongs to another client: it is in
// [Simulator.Issued] and can sign in, but it is not that of [Simulator.App], and [WithApp]
// does not replace it.
func WithForeignPassword(displayName string) Option {
	return func(s *settings) error {
		p := newPassword(displayName, newClientSecret())
		p.foreign = true
		s.passwords = append(slices.Clone(s.passwords), p)
		return nil
	}
}

// WithPropagation delays when secrets and certificates that Graph adds from now on reach
// all of Entra: failures[0] sign-ins fail, one succeeds, failures[1] fail, and so on. After
// the last number all succeed. So (2, 1) means: refused twice, accepted, refused, accepted
// from then on. Without a number, the default, they work at once.
func WithPropagation(failures ...int) Option {
	return func(s *settings) error {
		var outcomes []bool
		for i, n := range failures {
			if n < 0 {
				return fmt.Errorf("the number of failures is negative: %d", n)
			}
			if i > 0 {
				outcomes = append(outcomes, true)
			}
			outcomes = append(outcomes, make([]bool, n)...)
		}
		s.propagation = outcomes
		return nil
	}
}

// WithListingLag hides each secret and certificate that Graph adds from now on from the
// next n reads of the application, like a replica that lags behind. They can be used and
// removed nevertheless. The default is 0.
func WithListingLag(n int) Option {
	return func(s *settings) error {
		if n < 0 {
			return fmt.Errorf("the number of reads is negative: %d", n)
		}
		s.listingLag = n
		return nil
	}
}

// WithMaxCredentialLifetime sets a policy that refuses longer-lived secrets and
// certificates with CredentialInvalidLifetimeAsPerAppPolicy. The default is 0: no policy.
func WithMaxCredentialLifetime(d time.Duration) Option {
	return func(s *settings) error {
		if d < 0 {
			return fmt.Errorf("the lifetime is negative: %v", d)
		}
		s.maxCredentialLifetime = d
		return nil
	}
}

// WithOwner sets whether the application is one of its own owners, as [RoleOwnedBy]
// requires. By default it is.
func WithOwner(owned bool) Option {
	return func(s *settings) error {
		s.owned = owned
		return nil
	}
}

// WithFederation lets the application sign in with another issuer's assertions for this
// subject, signed with RS256 and this RSA key. See also [Simulator.Assertion].
func WithFederation(issuer, subject, audience string, key crypto.PublicKey) Option {
	return func(s *settings) error {
		public, ok := key.(*rsa.PublicKey)
		if !ok || issuer == "" || subject == "" || audience == "" {
			return errors.New("a federation needs an issuer, a subject, an audience and an RSA key")
		}
		s.federations = append(slices.Clone(s.federations), federation{issuer, subject, audience, public})
		return nil
	}
}

// WithSystemIdentity sets whether the machine has a system-assigned managed identity. By
// default it has one.
func WithSystemIdentity(assigned bool) Option {
	return func(s *settings) error {
		s.systemIdentity = ""
		if assigned {
			s.systemIdentity = uuid.NewString()
		}
		return nil
	}
}

// WithUserIdentities sets the client ids of the machine's user-assigned managed identities.
// By default there are none.
func WithUserIdentities(clientIDs ...string) Option {
	clientIDs = slices.Clone(clientIDs)
	return func(s *settings) error {
		if slices.Contains(clientIDs, "") {
			return errors.New("the client id of an identity is empty")
		}
		s.userIdentities = clientIDs
		return nil
	}
}

// parseCertificate returns the only certificate in a text.
func parseCertificate(text string) (*x509.Certificate, error) {
	var found *x509.Certificate
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading a certificate: %w", err)
		}
		if found != nil {
			return nil, errors.New("there must be only one certificate")
		}
		found = c
	}
	if found == nil {
		return nil, errors.New("there is no certificate in PEM form")
	}
	return found, nil
}

// addCertificate registers a certificate unless it is registered already.
func (s *settings) addCertificate(c certificate) error {
	if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
		return errors.New("the key of a certificate must be RSA")
	}
	if !slices.ContainsFunc(s.certificates, func(other certificate) bool { return other.Equal(c.Certificate) }) {
		s.certificates = append(slices.Clone(s.certificates), c)
	}
	return nil
}
