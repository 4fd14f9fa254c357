// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"

	"github.com/golang-jwt/jwt/v5"
)

// Roles returns the application permissions in the access token and signs in if there is
// no token. ok is false if the permissions are unknown: the sign-in failed, or the token,
// which only Graph must be able to read, is opaque.
//
// The result is a hint for an operator and proves nothing: the token's signature is not
// verified, and it lacks permissions that were granted after the token was issued.
func (c *Client) Roles(ctx context.Context) (roles []string, ok bool) {
	if ctx.Err() != nil {
		return nil, false
	}
	t, err := c.tokens.token(ctx)
	if err != nil {
		return nil, false
	}
	return rolesIn(t.bearer)
}

func rolesIn(bearer string) (roles []string, ok bool) {
	var claims struct {
		jwt.RegisteredClaims
		Roles []string `json:"roles"`
	}
	_, _, err := jwt.NewParser().ParseUnverified(bearer, &claims)
	if err != nil || claims.Issuer == "" {
		return nil, false
	}
	return claims.Roles, true
}
