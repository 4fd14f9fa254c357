// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// Credential proves the engine's identity to Entra: a [ClientSecret], a
// [ClientCertificate], a [ClientAssertion] or a [ManagedIdentity]. Each kind has its own
// file.
//
// Printing or encoding a credential never shows its secret.
type Credential interface {
	// issuers returns a function that makes issuers, which have not signed in yet. The
	// errors concern only the configuration and quote no secret.
	issuers(cfg *Config, client *http.Client) (newIssuer func() (issuer, error), err error)
}

// ClientSecret is a client secret's value (not its id).
type ClientSecret string

const redacted = "[redacted]"

// redact implements Format for secrets: package fmt prefers Format to every other way
// of printing a value, %#v included.
func redact(f fmt.State) {
	// Format cannot report an error.
	_, _ = io.WriteString(f, redacted)
}

// Format implements fmt.Formatter.
func (ClientSecret) Format(f fmt.State, _ rune) { redact(f) }

// String is for direct callers; package fmt uses Format.
func (ClientSecret) String() string { return redacted }

// MarshalText keeps the secret out of JSON, structured logs included.
func (ClientSecret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (s ClientSecret) issuers(cfg *Config, client *http.Client) (func() (issuer, error), error) {
	cred, err := confidential.NewCredFromSecret(string(s))
	if err != nil { // which takes any but an empty one
		return nil, &ConfigError{"client_secret", "is missing"}
	}
	return signIns(cfg, cred, client), nil
}

// claimsChallenges is the client capability that declares that this client answers
// claims challenges. Graph sends them to no other client.
// https://learn.microsoft.com/entra/identity-platform/claims-challenge#client-capabilities
const claimsChallenges = "cp1"

// signIns returns a function that makes issuers, which sign in through MSAL as an app
// registration.
func signIns(cfg *Config, cred confidential.Credential, client *http.Client) func() (issuer, error) {
	options := []confidential.Option{
		confidential.WithHTTPClient(client),
		confidential.WithClientCapabilities([]string{claimsChallenges}),
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
	authority, clientID := cmp.Or(cfg.AuthorityHost, cfg.Cloud.AuthorityHost)+"/"+cfg.TenantID, cfg.ClientID
	scopes := []string{cfg.Cloud.GraphRoot + "/.default"}
	return func() (issuer, error) {
		app, err := confidential.New(authority, clientID, cred, options...)
		if err != nil {
			return nil, &ConfigError{"tenant_id", "and authority_host do not form an authority that the sign-in library accepts"}
		}
		return func(ctx context.Context, claims string) (string, error) {
			result, err := app.AcquireTokenByCredential(ctx, scopes, confidential.WithClaims(claims))
			if err != nil {
				return "", signInError(ctx, err)
			}
			return result.AccessToken, nil
		}, nil
	}
}
