// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"net/http"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

// ManagedIdentity is the identity that Azure has given to the machine or service
// which the engine runs on. Where to ask for its tokens is said by the
// environment's variables, as on App Service; where it says nothing, that is the
// metadata service of virtual machines, whose address is fixed.
//
// It needs neither Config.TenantID nor Config.ClientID. The tokens are for
// Config.Cloud like all others, but nobody can ask for the claims in them, hence
// Graph sends this kind of credential no claims challenge.
type ManagedIdentity struct {
	ClientID string // of a user-assigned identity; "" for the system-assigned one
}

func (m ManagedIdentity) tokenSource(cfg *Config, _ *http.Client) (tokenSource, error) {
	return m.sharedSource(cfg.Cloud.GraphRoot, newMetadataClient(cfg))
}

// sharedSource returns a source of tokens for resource that asks through client.
func (m ManagedIdentity) sharedSource(resource string, client *http.Client) (*sharedSource, error) {
	id := managedidentity.SystemAssigned()
	if m.ClientID != "" {
		if !namePattern.MatchString(m.ClientID) {
			return nil, &ConfigError{"client_id", "must be the client id of a user-assigned managed identity"}
		}
		id = managedidentity.UserAssignedClientID(m.ClientID)
	}
	source, err := newSharedSource(func() (issuer, error) {
		// Its own repetitions would also follow attempts to connect: where there
		// is no such service, as anywhere outside Azure, they take too long.
		identity, err := managedidentity.New(id, managedidentity.WithHTTPClient(client), managedidentity.WithRetryPolicyDisabled())
		if err != nil {
			return nil, &ConfigError{"credential_type", "managed_identity is not possible with what the plugin's environment describes"}
		}
		return &managedIssuer{client: identity, resource: resource}, nil
	})
	if err != nil {
		return nil, err
	}
	source.managed = true
	return source, nil
}

// freshness is how much longer a token must be valid to be used, as in MSAL.
const freshness = 5 * time.Minute

// managedIssuer remembers the token itself, since the memory that MSAL has for
// managed identities belongs to the process: nothing could be dropped from it,
// and a new configuration would go on with the token of the old one.
type managedIssuer struct {
	client   managedidentity.Client
	resource string

	bearer  string
	expires time.Time
}

func (i *managedIssuer) acquire(ctx context.Context, _ string) (string, error) {
	if time.Until(i.expires) > freshness {
		return i.bearer, nil
	}
	// Claims are no part of the request; all they do is to pass over MSAL's memory.
	result, err := i.client.AcquireToken(ctx, i.resource, managedidentity.WithClaims("{}"))
	if err != nil {
		e := signInError(err)
		e.managed = true
		return "", e
	}
	if result.AccessToken == "" {
		return "", &Error{Op: OpSignIn, Kind: Unreadable, Reason: reasonNoToken, managed: true}
	}
	i.bearer, i.expires = result.AccessToken, result.ExpiresOn
	return i.bearer, nil
}
