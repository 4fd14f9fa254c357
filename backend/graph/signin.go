// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"
)

// issuer requests a token with one kind of credential, unless it has one that is still
// valid. If claims (JSON) is not empty, the token is a new one, requested with them. Its
// error is an *Error without Op. A session calls it from one goroutine at a time.
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

// token returns a token that should be valid, without a sign-in if possible, and the session
// that got it. Its error is an *Error with OpSignIn, or the context's own if that has ended
// before.
//
// Callers that need a token at the same time share one sign-in. MSAL does not do that: with
// a cold cache every caller requests its own token, and what they do share depends on the
// first caller's context. So callers join a flight that has a context of its own.
func (c *Client) token(ctx context.Context) (bearer string, in *session, err error) {
	if err := ctx.Err(); err != nil {
		return "", nil, err
	}
	current := c.session.Load()
	flight := current.flights.DoChan("", func() (any, error) { return c.signIn(ctx, current) })
	select {
	case <-ctx.Done():
		e := failure(ctx, ctx.Err())
		e.Op, e.managed = OpSignIn, c.managed
		return "", nil, e
	case result := <-flight:
		return result.Val.(string), current, result.Err
	}
}

// signIn runs as a flight. It belongs to no caller: if one leaves early, the others still
// get their token. It uses the values of ctx only to log.
func (c *Client) signIn(ctx context.Context, in *session) (bearer string, err error) {
	// Repetitions included. That is long enough for discovery and a token through a slow
	// proxy, and leaves the caller time to report what went wrong.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	// The claims are requested once, whatever the outcome: a token without them only
	// leads to the same challenge again, but claims that Entra does not grant would fail
	// every later sign-in.
	claims := in.claims
	in.claims = ""
	err = c.retry(ctx, OpSignIn, true, func() error {
		bearer, err = in.issuer(ctx, claims)
		return err
	})
	return bearer, err
}

// renew replaces the session that got a token which Graph refused although it should be
// valid. The next token is a new one, requested with the claims that Graph demanded, if any.
// If Graph refused a token to many callers, the first one renews the session for all.
func (c *Client) renew(old *session, claims string) error {
	next, err := c.newIssuer()
	if err == nil {
		c.session.CompareAndSwap(old, &session{issuer: next, claims: claims})
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
	bearer, _, _ := c.token(ctx) // if it fails, nothing can be parsed
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

// Credential proves the engine's identity to Entra: a [ClientSecret], a
// [ClientCertificate], a [ClientAssertion] or a [ManagedIdentity].
//
// Printing or encoding a credential never shows its secret.
type Credential interface {
	// issuer returns one that has not signed in yet. Its errors concern only the
	// configuration and quote no secret.
	issuer(cfg *Config, client *http.Client) (issuer, error)
}

// ClientSecret is a client secret's value (not its id).
type ClientSecret string

const redacted = "[redacted]"

// Format implements fmt.Formatter, which package fmt prefers to every other way of printing
// a value, %#v included. It cannot report an error.
func (ClientSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is for direct callers; package fmt uses Format.
func (ClientSecret) String() string { return redacted }

// MarshalText keeps the secret out of JSON, structured logs included.
func (ClientSecret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (s ClientSecret) issuer(cfg *Config, client *http.Client) (issuer, error) {
	cred, err := confidential.NewCredFromSecret(string(s))
	if err != nil { // which takes any but an empty one
		return nil, &ConfigError{"client_secret", "is missing"}
	}
	return signIns(cfg, cred, client)
}

// signIns returns an issuer that signs in through MSAL as an app registration.
func signIns(cfg *Config, cred confidential.Credential, client *http.Client) (issuer, error) {
	options := []confidential.Option{
		confidential.WithHTTPClient(client),
		// Declares that this client answers claims challenges. Graph sends them to no other.
		// https://learn.microsoft.com/entra/identity-platform/claims-challenge#client-capabilities
		confidential.WithClientCapabilities([]string{"cp1"}),
		// Affects certificates only: Entra can then check their subject and issuer
		// instead of the thumbprint.
		confidential.WithX5C(),
		// Otherwise an environment variable could send the sign-in elsewhere.
		confidential.WithAzureRegion("DisableMsalForceRegion"),
	}
	if cfg.AuthorityHost != "" {
		// Otherwise MSAL asks login.microsoftonline.com about a host that it does not know.
		options = append(options, confidential.WithInstanceDiscovery(false))
	}
	authority := cmp.Or(cfg.AuthorityHost, cfg.Cloud.AuthorityHost) + "/" + cfg.TenantID
	app, err := confidential.New(authority, cfg.ClientID, cred, options...)
	if err != nil {
		return nil, &ConfigError{"tenant_id", "and authority_host do not form an authority that the sign-in library accepts"}
	}
	scopes := []string{cfg.Cloud.GraphRoot + "/.default"}
	return func(ctx context.Context, claims string) (string, error) {
		result, err := app.AcquireTokenByCredential(ctx, scopes, confidential.WithClaims(claims))
		if err != nil {
			return "", signInError(ctx, err)
		}
		return result.AccessToken, nil
	}, nil
}

// ClientAssertion returns a JWT from an issuer for which the app registration has a
// federated credential: the content of a workload identity's token file, or an identity
// token of Vault. It is called for each request to Entra, possibly by several goroutines
// at once, and its context ends with the sign-in.
//
// Its errors are never shown, since they may quote the assertion, but for an [Error] in
// their chain.
type ClientAssertion func(ctx context.Context) (string, error)

// Format implements fmt.Formatter.
func (ClientAssertion) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is for direct callers; package fmt uses Format.
func (ClientAssertion) String() string { return redacted }

// MarshalText makes it encodable as JSON, which a func is not.
func (ClientAssertion) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (a ClientAssertion) issuer(cfg *Config, client *http.Client) (issuer, error) {
	return signIns(cfg, confidential.NewCredFromAssertionCallback(a.checked), client)
}

// checked returns an assertion or an *Error.
func (a ClientAssertion) checked(ctx context.Context, _ confidential.AssertionRequestOptions) (string, error) {
	assertion, err := a(ctx)
	switch {
	case err == nil && assertion != "":
		return assertion, nil
	case err == nil:
		err = &Error{Kind: Refused, Reason: "the client assertion is empty"}
	case ctx.Err() == nil && !caused[*Error](err):
		err = &Error{Kind: Refused, Reason: "no client assertion could be obtained"}
	}
	e := *failure(ctx, err) // a copy, since the source of assertions may return it again
	e.unsent = true
	return "", &e
}

// ManagedIdentity is the identity that Azure gave to the machine or service that runs
// the engine. Environment variables say where to get its tokens, as on App Service.
// Without them, tokens come from the metadata service of virtual machines, which has a
// fixed address.
//
// Config.ClientID is that of a user-assigned identity, or "" for the system-assigned one, and
// Config.TenantID is not needed. The tokens are for Config.Cloud like all others. A client
// cannot request claims in them, so Graph sends no claims challenges to this kind of credential.
type ManagedIdentity struct{}

func (m ManagedIdentity) issuer(cfg *Config, _ *http.Client) (issuer, error) {
	return m.issuerThrough(newHTTPClient(cfg.UserAgent, nil, true), cfg)
}

// freshness is how long a cached token must still be valid to be used, as in MSAL.
const freshness = 5 * time.Minute

// issuerThrough returns an issuer that asks for tokens through a local client and caches
// the token itself. MSAL's cache for managed identities belongs to the process: a token
// could not be dropped from it, and a new configuration would keep using the token of the
// old one.
func (ManagedIdentity) issuerThrough(client *http.Client, cfg *Config) (issuer, error) {
	id := managedidentity.SystemAssigned()
	if cfg.ClientID != "" {
		id = managedidentity.UserAssignedClientID(cfg.ClientID)
	}
	// MSAL would also retry failed connections. Outside Azure, where there is no such
	// service, that takes too long.
	identity, err := managedidentity.New(id, managedidentity.WithHTTPClient(client), managedidentity.WithRetryPolicyDisabled())
	if err != nil {
		return nil, &ConfigError{"credential_type", "managed_identity does not support what the plugin's environment variables describe"}
	}
	source, _ := managedidentity.GetSource() // never fails
	userOfArc := cfg.ClientID != "" && source == managedidentity.AzureArc
	var bearer string
	var expires time.Time
	return func(ctx context.Context, _ string) (string, error) {
		if time.Until(expires) > freshness {
			return bearer, nil
		}
		// The claims are not sent: they only make MSAL skip its cache.
		result, err := identity.AcquireToken(ctx, cfg.Cloud.GraphRoot, managedidentity.WithClaims("{}"))
		if err != nil {
			e := signInError(ctx, err)
			// MSAL refuses the token of an agent that knows no user-assigned identities.
			if userOfArc && (e.Kind == Unreadable || e.Kind == Refused && e.Reason == "") {
				e.Kind, e.Reason = Refused, "the Azure Arc agent issues no token for client_id: leave it empty to sign in as the machine itself; for most agents, user-assigned identities do not exist"
			}
			return "", e
		}
		if result.AccessToken == "" {
			return "", &Error{Kind: Unreadable, Reason: "the answer contains no token"}
		}
		bearer, expires = result.AccessToken, result.ExpiresOn
		return bearer, nil
	}, nil
}
