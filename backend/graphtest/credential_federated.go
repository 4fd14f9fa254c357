// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// federation is one federated credential of the application: it trusts the
// tokens of an issuer about a subject.
type federation struct {
	issuer, subject, audience string
	key                       *rsa.PublicKey
}

// checkFederated checks an assertion of another issuer. Entra compares all three
// names byte for byte. An assertion may be used until it expires: a file with a
// workload's token is read many times.
func checkFederated(s settings, token *jwt.Token, claims *jwt.RegisteredClaims) *refusal {
	left := s.federations
	for _, property := range []struct {
		code        int
		name, value string
		matches     func(federation) bool
	}{
		{codeFederationIssuer, "issuer", claims.Issuer, func(f federation) bool { return f.issuer == claims.Issuer }},
		{codeFederationSubject, "subject", claims.Subject, func(f federation) bool { return f.subject == claims.Subject }},
		{codeFederationAudience, "audience", fmt.Sprint(claims.Audience), func(f federation) bool {
			return slices.Equal([]string{f.audience}, claims.Audience)
		}},
	} {
		left = slices.DeleteFunc(slices.Clone(left), func(f federation) bool { return !property.matches(f) })
		if len(left) == 0 {
			return &refusal{property.code, fmt.Sprintf("No matching federated identity record found for "+
				"presented assertion %s '%s'. Check your federated identity credential Subject, Audience and Issuer "+
				"against the presented assertion.", property.name, property.value)}
		}
	}
	bad := refusal{codeAssertionInvalid, "Assertion failed signature validation. " +
		"[Reason - The provided signature value did not match the expected signature value.]"}
	// A later record replaces one of the same names.
	return verifyAssertion(s, token, left[len(left)-1].key, bad, "RS256")
}
