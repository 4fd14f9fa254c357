// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// claimsChallenges is the client capability that declares that this client answers
// claims challenges. Graph sends them to no other client.
// https://learn.microsoft.com/entra/identity-platform/claims-challenge#client-capabilities
const claimsChallenges = "cp1"

// confidentialIssuer signs in through MSAL as an app registration.
type confidentialIssuer struct {
	client confidential.Client
	scopes []string
}

func newConfidentialSource(cfg *Config, cred confidential.Credential, client *http.Client) (tokenSource, error) {
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
	authority, clientID := cfg.authorityRoot()+"/"+cfg.TenantID, cfg.ClientID
	scopes := []string{cfg.Cloud.GraphRoot + "/.default"}
	return newSharedSource(func() (issuer, error) {
		app, err := confidential.New(authority, clientID, cred, options...)
		if err != nil {
			return nil, &ConfigError{"tenant_id", "and authority_host do not form an authority that the sign-in library accepts"}
		}
		return &confidentialIssuer{client: app, scopes: scopes}, nil
	})
}

func (i *confidentialIssuer) acquire(ctx context.Context, claims string) (string, error) {
	result, err := i.client.AcquireTokenByCredential(ctx, i.scopes, confidential.WithClaims(claims))
	if err != nil {
		return "", signInError(err)
	}
	return result.AccessToken, nil
}
