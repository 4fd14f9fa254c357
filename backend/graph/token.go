// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"
)

// signInTimeout limits a whole sign-in, repetitions included. It is long enough for
// discovery and a token through a slow proxy, and short enough to leave the caller time
// to report what went wrong.
const signInTimeout = 15 * time.Second

// token is an access token and the session that got it.
type token struct {
	bearer  string
	session *session
}

// issuer requests a token with one kind of credential, unless it has one that is still
// valid. If claims (JSON) is not empty, the token is a new one, requested with them. Its
// error is an *Error with OpSignIn. A session calls it from one goroutine at a time.
type issuer func(ctx context.Context, claims string) (bearer string, err error)

// session is the time between two tokens that Graph refused. Each session has its own
// issuer, so no cache keeps a refused token, and a sign-in that began earlier cannot
// bring one back. It has its own flights, too: a caller that has just dropped a token must
// not join one that is about to deliver the same token.
type session struct {
	flights singleflight.Group
	issuer  issuer
	// claims are requested with the first token. Only the session's flights touch them,
	// and there is one at a time.
	claims string
}

// tokenSource gets access tokens for Graph. Callers that need a token at the same time
// share one sign-in. MSAL does not do that: with a cold cache every caller requests its
// own token, and what they do share depends on the first caller's context. So callers
// join a flight that has a context of its own.
type tokenSource struct {
	newIssuer func() (issuer, error)
	sleep     sleeper
	// managed is set for a managed identity. It has no app registration, so the advice
	// about a refusal differs.
	managed bool
	session atomic.Pointer[session]
}

// newTokenSource returns an error only if newIssuer does.
func newTokenSource(newIssuer func() (issuer, error), managed bool) (*tokenSource, error) {
	s := &tokenSource{newIssuer: newIssuer, sleep: Sleep, managed: managed}
	return s, s.renew(nil, "")
}

// token returns a token that should be valid, without a sign-in if possible. Its error is
// an *Error with OpSignIn, or the context's own if that has ended before.
func (s *tokenSource) token(ctx context.Context) (token, error) {
	if err := ctx.Err(); err != nil {
		return token{}, err
	}
	current := s.session.Load()
	flight := current.flights.DoChan("", func() (any, error) { return s.signIn(ctx, current) })
	select {
	case <-ctx.Done():
		e := failure(ctx, OpSignIn, ctx.Err())
		e.managed = s.managed
		return token{}, e
	case result := <-flight:
		return token{result.Val.(string), current}, result.Err
	}
}

// signIn runs as a flight. It belongs to no caller: if one leaves early, the others still
// get their token. It uses the values of ctx only to log.
func (s *tokenSource) signIn(ctx context.Context, in *session) (bearer string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signInTimeout)
	defer cancel()
	// The claims are requested once, whatever the outcome: a token without them only
	// leads to the same challenge again, but claims that Entra does not grant would fail
	// every later sign-in.
	claims := in.claims
	in.claims = ""
	err = s.sleep.retry(ctx, true, func() error {
		bearer, err = in.issuer(ctx, claims)
		return err
	})
	return bearer, err
}

// renew replaces the session that got a token which Graph refused although it should be
// valid. The next token is a new one, requested with the claims that Graph demanded, if any.
// If Graph refused a token to many callers, the first one renews the session for all.
func (s *tokenSource) renew(old *session, claims string) error {
	next, err := s.newIssuer()
	if err == nil {
		s.session.CompareAndSwap(old, &session{issuer: next, claims: claims})
	}
	return err
}

// Roles returns the application permissions in the access token and signs in if there is
// no token. ok is false if the permissions are unknown: the sign-in failed, or the token,
// which only Graph must be able to read, is opaque.
//
// The result is a hint for an operator and proves nothing: the token's signature is not
// verified, and it lacks permissions that were granted after the token was issued.
func (c *Client) Roles(ctx context.Context) (roles []string, ok bool) {
	t, err := c.tokens.token(ctx)
	if err != nil {
		return nil, false
	}
	var claims struct {
		jwt.RegisteredClaims
		Roles []string `json:"roles"`
	}
	_, _, err = jwt.NewParser().ParseUnverified(t.bearer, &claims)
	if err != nil || claims.Issuer == "" {
		return nil, false
	}
	return claims.Roles, true
}
