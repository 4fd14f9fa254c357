// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// assertionType is the only type of client assertion that Entra accepts.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// checkAssertion checks a client_assertion: a JWT that the application signed with a
// certificate, or one from another issuer.
func (x *exchange) checkAssertion(s settings, form url.Values) *refusal {
	switch kind := form.Get("client_assertion_type"); kind {
	case assertionType:
	case "":
		return missing("client_assertion_type")
	default:
		return &refusal{codeBadRequest, fmt.Sprintf("The client assertion type '%s' is not supported.", kind)}
	}
	text := form.Get("client_assertion")
	x.sim.note(text)
	claims := new(jwt.RegisteredClaims)
	token, _, err := jwt.NewParser().ParseUnverified(text, claims)
	if err != nil {
		return malformedAssertion()
	}
	if strings.EqualFold(claims.Issuer, s.clientID) {
		return x.checkCertificate(s, token, claims)
	}
	return checkFederated(s, token, claims)
}

// leeway is how far the clock of a client may be off. Without one, an assertion of MSAL for
// JavaScript, which rounds its times up, fails half the time.
const leeway = 5 * time.Minute

// verifyAssertion checks signature and times; bad is the answer to a wrong signature.
// Entra accepts only RSA.
func verifyAssertion(s settings, token *jwt.Token, key any, bad refusal, methods ...string) *refusal {
	_, err := jwt.ParseWithClaims(token.Raw, new(jwt.RegisteredClaims),
		func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.clock),
		jwt.WithLeeway(leeway))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return &bad
	case errors.Is(err, jwt.ErrTokenExpired), errors.Is(err, jwt.ErrTokenNotValidYet):
		return &refusal{codeAssertionTime, "Client assertion is not within its valid time range. " +
			"Check the clock of the machine that made it."}
	default:
		return malformedAssertion()
	}
}

func malformedAssertion() *refusal {
	return &refusal{codeAssertionMalformed, "JWT token is invalid or malformed."}
}
