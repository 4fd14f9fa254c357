// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// signInTimeout bounds a sign-in as a whole, repetitions included: long enough
// for discovery and a token over a slow proxy, and short enough to leave the
// caller time to say what went wrong.
const signInTimeout = 15 * time.Second

// token is an access token and the generation of the session it came from.
type token struct {
	bearer     string
	generation int
}

// tokenSource gets access tokens for Graph. Errors are *Error with OpSignIn.
type tokenSource interface {
	// token returns a token that should be valid, from memory where possible.
	token(ctx context.Context) (token, error)
	// drop forgets a token that Graph refused although it should be valid, so
	// that the next one is a new one, and one that has the claims which Graph
	// asked for, if it did. Dropping a token twice does nothing.
	drop(t token, claims string)
}

// issuer asks for tokens in the way of one kind of credential, and remembers
// the one it got while that is valid. Its session calls it from one goroutine at
// a time.
type issuer interface {
	// acquire returns a token, a new one if claims says what the next one has to
	// satisfy (JSON; "" for nothing). Its error is an *Error with OpSignIn.
	acquire(ctx context.Context, claims string) (bearer string, err error)
}

// session is the time between two tokens that Graph refused. Each has an issuer
// of its own: that makes sure that no memory of a refused token is left, and
// that a sign-in which began before cannot bring one back.
type session struct {
	generation int
	issuer     issuer
	// claims are those that the first token must have. Only flights of the
	// session touch them, of which there is one at a time.
	claims string
}

// sharedSource lets all who need a token at the same time share one sign-in.
// MSAL does not: every caller with a cold cache asks for its own, and what they
// do share is tied to the context of the first. So callers meet in a flight
// whose context is nobody's.
type sharedSource struct {
	newIssuer func() (issuer, error)
	retry     retrier
	managed   bool // whether it asks the endpoint of a managed identity
	flights   singleflight.Group

	mu      sync.Mutex
	session *session
}

// newSharedSource returns an error only if newIssuer does.
func newSharedSource(newIssuer func() (issuer, error)) (*sharedSource, error) {
	first, err := newIssuer()
	if err != nil {
		return nil, err
	}
	return &sharedSource{newIssuer: newIssuer, retry: newRetrier(), session: &session{issuer: first}}, nil
}

func (s *sharedSource) token(ctx context.Context) (token, error) {
	current := s.current()
	// One flight per generation: who has just dropped a token must not join a
	// flight that is about to deliver that same token.
	flight := s.flights.DoChan(strconv.Itoa(current.generation), func() (any, error) {
		return s.signIn(ctx, current)
	})
	select {
	case <-ctx.Done():
		e := interrupted(ctx, OpSignIn)
		e.managed = s.managed
		return token{}, e
	case result := <-flight:
		if result.Err != nil {
			return token{}, result.Err
		}
		return token{result.Val.(string), current.generation}, nil
	}
}

// signIn runs as a flight. It belongs to no caller: whoever leaves early does
// not take the others' token along. What ctx has to say it says to the log alone.
func (s *sharedSource) signIn(ctx context.Context, in *session) (bearer string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signInTimeout)
	defer cancel()
	// Whatever comes of it, they are asked for once: a token without them leads
	// to the same challenge again, but claims that Entra does not grant would
	// end every later sign-in.
	claims := in.claims
	in.claims = ""
	err = s.retry.do(ctx, true, func(ctx context.Context) error {
		bearer, err = in.issuer.acquire(ctx, claims)
		return err
	})
	return bearer, err
}

func (s *sharedSource) current() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// drop begins a new session. Of many callers whose token was refused the first
// does it for all.
func (s *sharedSource) drop(t token, claims string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.generation != s.session.generation {
		return
	}
	// The same arguments made an issuer before, so there is no error to expect.
	if next, err := s.newIssuer(); err == nil {
		s.session = &session{generation: t.generation + 1, issuer: next, claims: claims}
	}
}
