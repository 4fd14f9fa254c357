// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"golang.org/x/sync/singleflight"
)

// signInTimeout bounds a sign-in as a whole, repetitions included: long enough
// for discovery and a token over a slow proxy, and short enough to leave the
// caller time to say what went wrong.
const signInTimeout = 15 * time.Second

// token is an access token and the generation of the sign-in it came from.
type token struct {
	bearer     string
	generation int
}

// tokenSource gets access tokens for Graph. Errors are *Error with OpSignIn.
type tokenSource interface {
	// token returns a token that should be valid, from memory where possible.
	token(ctx context.Context) (token, error)
	// drop forgets a token that Graph refused although it should be valid, so
	// that the next one is a new one. Dropping it twice does nothing.
	drop(token)
}

// confidentialSource signs in through MSAL as a confidential client. MSAL
// remembers tokens but lets every caller with a cold cache ask for its own, and
// ties what they share to the context of the first. So callers meet in a flight
// whose context is nobody's.
type confidentialSource struct {
	newClient func() (confidential.Client, error)
	scopes    []string
	retry     retrier
	flights   singleflight.Group

	mu         sync.Mutex
	client     confidential.Client
	generation int // of client
}

func newConfidentialSource(cfg *Config, cred confidential.Credential, client *http.Client) (*confidentialSource, error) {
	options := []confidential.Option{
		confidential.WithHTTPClient(client),
		// Else an environment variable could send the sign-in elsewhere.
		confidential.WithAzureRegion("DisableMsalForceRegion"),
	}
	if cfg.AuthorityHost != "" {
		// Else MSAL asks login.microsoftonline.com about a host it does not know.
		options = append(options, confidential.WithInstanceDiscovery(false))
	}
	s := &confidentialSource{
		newClient: func() (confidential.Client, error) {
			return confidential.New(cfg.authorityRoot()+"/"+cfg.TenantID, cfg.ClientID, cred, options...)
		},
		scopes: []string{cfg.Cloud.GraphRoot + "/.default"},
		retry:  newRetrier(),
	}
	var err error
	if s.client, err = s.newClient(); err != nil {
		return nil, &ConfigError{"tenant_id", "and authority_host do not make an authority that the sign-in library accepts"}
	}
	return s, nil
}

func (s *confidentialSource) token(ctx context.Context) (token, error) {
	client, generation := s.current()
	// One flight per generation: who has just dropped a token must not join a
	// flight that is about to deliver that same token.
	flight := s.flights.DoChan(strconv.Itoa(generation), func() (any, error) {
		return s.signIn(client)
	})
	select {
	case <-ctx.Done():
		return token{}, interrupted(ctx, OpSignIn)
	case result := <-flight:
		if result.Err != nil {
			return token{}, result.Err
		}
		return token{result.Val.(string), generation}, nil
	}
}

// signIn runs as a flight. It belongs to no caller: whoever leaves early does
// not take the others' token along.
func (s *confidentialSource) signIn(client confidential.Client) (bearer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), signInTimeout)
	defer cancel()
	err = s.retry.do(ctx, true, func(ctx context.Context) error {
		result, err := client.AcquireTokenByCredential(ctx, s.scopes)
		if err != nil {
			return signInError(err)
		}
		bearer = result.AccessToken
		return nil
	})
	return bearer, err
}

func (s *confidentialSource) current() (confidential.Client, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client, s.generation
}

// drop replaces the MSAL client, which is the only way to make it forget a
// token. Of many callers whose token was refused the first does it for all.
func (s *confidentialSource) drop(t token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.generation != s.generation {
		return
	}
	// The same arguments made a client before, so there is no error to expect.
	if client, err := s.newClient(); err == nil {
		s.client = client
		s.generation++
	}
}
