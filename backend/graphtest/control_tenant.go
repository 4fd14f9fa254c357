// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"net/http"
	"time"
)

// TenantChange is a change to a tenant. Fields that are not set change nothing.
type TenantChange struct {
	// Roles replaces the roles of future tokens; an empty list removes all.
	Roles []string `json:"roles,omitzero"`
	// TokenLifetime is a Go duration in whole seconds, such as "5s".
	TokenLifetime string `json:"token_lifetime,omitempty"`
	Shape         Shape  `json:"shape,omitempty"`
	// ClientSecret replaces the application's secret with a valid one.
	ClientSecret string `json:"client_secret,omitempty"`
	// ExpireSecret makes the secret expire.
	ExpireSecret bool `json:"expire_secret,omitempty"`
	StaleReads   int  `json:"stale_reads,omitempty"`
	// Audience is the Graph root of the cloud that the tenant belongs to.
	Audience string `json:"audience,omitempty"`
	// ServerNames replaces the server's additional names.
	ServerNames []string `json:"server_names,omitzero"`

	// Customers replaces the ids of the tenants of [WithCustomers].
	Customers []string `json:"customers,omitzero"`

	// Certificate registers a certificate, as PEM, with the application.
	Certificate string `json:"certificate,omitempty"`
	// ForeignSecret adds a client secret with this display name, as
	// [WithForeignPassword] does.
	ForeignSecret string `json:"foreign_secret,omitempty"`
	// Propagation is as in [WithPropagation]; an empty list means at once.
	Propagation []int `json:"propagation,omitzero"`
	// MaxCredentialLifetime is a Go duration; "0s" lifts the policy.
	MaxCredentialLifetime string `json:"max_credential_lifetime,omitempty"`
	// UserIdentities replaces the client ids of the user-assigned identities.
	UserIdentities []string `json:"user_identities,omitzero"`
}

func (s *Simulator) controlTenant(w http.ResponseWriter, r *http.Request) {
	var change TenantChange
	if !request(w, r, &change) {
		return
	}
	opts, err := change.options()
	if err == nil {
		err = s.update(opts)
	}
	done(w, err)
}

// options returns the options for a change, in an order that lets one change replace a
// secret and make the new one expire.
func (c TenantChange) options() ([]Option, error) {
	opts := []Option{WithApp("", c.ClientSecret)}
	if c.ExpireSecret {
		opts = append(opts, WithExpiredSecret())
	}
	if c.Roles != nil {
		opts = append(opts, WithRoles(c.Roles...))
	}
	if c.TokenLifetime != "" {
		lifetime, err := time.ParseDuration(c.TokenLifetime)
		if err != nil {
			return nil, err
		}
		opts = append(opts, WithTokenLifetime(lifetime))
	}
	if c.Shape != "" {
		opts = append(opts, WithBodyShape(c.Shape))
	}
	if c.StaleReads != 0 {
		opts = append(opts, WithStaleReads(c.StaleReads))
	}
	if c.Audience != "" {
		opts = append(opts, WithAudience(c.Audience))
	}
	if c.ServerNames != nil {
		opts = append(opts, WithServerNames(c.ServerNames...))
	}
	if c.Customers != nil {
		opts = append(opts, WithCustomers(c.Customers...))
	}
	credentials, err := c.credentialOptions()
	return append(opts, credentials...), err
}

func (c TenantChange) credentialOptions() ([]Option, error) {
	var opts []Option
	if c.Certificate != "" {
		opts = append(opts, WithCertificate(c.Certificate))
	}
	if c.ForeignSecret != "" {
		opts = append(opts, WithForeignPassword(c.ForeignSecret))
	}
	if c.Propagation != nil {
		opts = append(opts, WithPropagation(c.Propagation...))
	}
	if c.MaxCredentialLifetime != "" {
		lifetime, err := time.ParseDuration(c.MaxCredentialLifetime)
		if err != nil {
			return nil, err
		}
		opts = append(opts, WithMaxCredentialLifetime(lifetime))
	}
	if c.UserIdentities != nil {
		opts = append(opts, WithUserIdentities(c.UserIdentities...))
	}
	return opts, nil
}
