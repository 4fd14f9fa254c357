// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// federation is a federated credential of the application. It trusts an issuer's tokens
// for a subject.
type federation struct {
	issuer, subject, audience string
	key                       *rsa.PublicKey
}

// checkFederated checks an assertion from another issuer. Entra compares all three names
// byte by byte. An assertion can be used until it expires, because clients read a
// workload's token file many times.
func checkFederated(s settings, token *jwt.Token, claims *jwt.RegisteredClaims) *refusal {
	matching := s.federations
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
		matching = slices.DeleteFunc(slices.Clone(matching), func(f federation) bool { return !property.matches(f) })
		if len(matching) == 0 {
			return &refusal{property.code, fmt.Sprintf("No matching federated identity record found for "+
				"presented assertion %s '%s'. Check your federated identity credential Subject, Audience and Issuer "+
				"against the presented assertion.", property.name, property.value)}
		}
	}
	bad := refusal{codeAssertionInvalid, "Assertion failed signature validation. " +
		"[Reason - The provided signature value did not match the expected signature value.]"}
	// A later federation replaces one with the same names.
	return verifyAssertion(s, token, matching[len(matching)-1].key, bad, "RS256")
}
