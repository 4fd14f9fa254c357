// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"net/http"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

// ManagedIdentity is the identity that Azure gave to the machine or service that runs
// the engine. Environment variables say where to get its tokens, as on App Service.
// Without them, tokens come from the metadata service of virtual machines, which has a
// fixed address.
//
// It needs neither Config.TenantID nor Config.ClientID. The tokens are for Config.Cloud
// like all others. A client cannot request claims in them, so Graph sends no claims
// challenges to this kind of credential.
type ManagedIdentity struct {
	ClientID string // of a user-assigned identity; "" for the system-assigned one
}

func (m ManagedIdentity) issuers(cfg *Config, _ *http.Client) (func() (issuer, error), error) {
	return m.issuersFor(cfg.Cloud.GraphRoot, newMetadataClient(cfg))
}

// issuersFor returns a function that makes issuers, which ask for tokens for resource
// through client.
func (m ManagedIdentity) issuersFor(resource string, client *http.Client) (func() (issuer, error), error) {
	source, _ := managedidentity.GetSource() // never fails
	id := managedidentity.SystemAssigned()
	if m.ClientID != "" {
		if !namePattern().MatchString(m.ClientID) {
			return nil, &ConfigError{"client_id", "must be the client id of a user-assigned managed identity"}
		}
		id = managedidentity.UserAssignedClientID(m.ClientID)
	}
	return func() (issuer, error) {
		// MSAL would also retry failed connections. Outside Azure, where there is no
		// such service, that takes too long.
		identity, err := managedidentity.New(id, managedidentity.WithHTTPClient(client), managedidentity.WithRetryPolicyDisabled())
		if err != nil {
			return nil, &ConfigError{"credential_type", "managed_identity does not support what the plugin's environment variables describe"}
		}
		return managedIssuer(identity, resource, m.ClientID != "" && source == managedidentity.AzureArc), nil
	}, nil
}

// freshness is how long a cached token must still be valid to be used, as in MSAL.
const freshness = 5 * time.Minute

// managedIssuer returns an issuer that caches the token itself. MSAL's cache for managed
// identities belongs to the process: a token could not be dropped from it, and a new
// configuration would keep using the token of the old one. onArc says that a user-assigned
// identity of Azure Arc is wanted: MSAL refuses the token of an agent that knows none.
func managedIssuer(identity managedidentity.Client, resource string, onArc bool) issuer {
	var bearer string
	var expires time.Time
	return func(ctx context.Context, _ string) (string, error) {
		if time.Until(expires) > freshness {
			return bearer, nil
		}
		// The claims are not sent: they only make MSAL skip its cache.
		result, err := identity.AcquireToken(ctx, resource, managedidentity.WithClaims("{}"))
		if err != nil {
			e := signInError(ctx, err)
			e.managed = true
			if onArc && (e.Kind == Unreadable || e.Kind == Refused && e.Reason == "") {
				e.Kind, e.Reason = Refused, "the Azure Arc agent issues no token for client_id: leave it empty to sign in as the machine itself; for most agents, user-assigned identities do not exist"
			}
			return "", e
		}
		if result.AccessToken == "" {
			return "", &Error{Op: OpSignIn, Kind: Unreadable, Reason: reasonNoToken, managed: true}
		}
		bearer, expires = result.AccessToken, result.ExpiresOn
		return bearer, nil
	}
}
