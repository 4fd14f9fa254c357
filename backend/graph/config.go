// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// The versions of the Graph API that have the sensors calls.
const (
	Beta = "beta"
	V1   = "v1.0"
)

// Config configures a Client. A field is required unless its comment says otherwise.
type Config struct {
	TenantID   string // the tenant's GUID or one of its domains; optional for a ManagedIdentity
	ClientID   string // the app registration's application id; optional for a ManagedIdentity
	Credential Credential
	Cloud      Cloud

	// GraphEndpoint is an https URL used instead of Cloud.GraphRoot, for a private
	// endpoint or a proxy in front of Graph; "" for none. Tokens are still issued for
	// Cloud.GraphRoot, since Graph checks them in the end.
	GraphEndpoint string
	// AuthorityHost is an https URL used instead of Cloud.AuthorityHost; "" for none.
	// MSAL does not ask Microsoft whether it knows this host.
	AuthorityHost string
	// APIVersion is Beta or V1.
	APIVersion string
	// CACertificates are trusted in addition to the system's, as PEM; may be "".
	CACertificates string
	// UserAgent is sent with every request; may be "".
	UserAgent string
	// Logger gets a debug line for each exchange: ids, status and duration,
	// never a secret; nil for none.
	Logger hclog.Logger
}

// namePattern matches GUIDs and domain names. It keeps everything else out of the paths
// of sign-in URLs.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)

func (cfg *Config) validate() error {
	_, managed := cfg.Credential.(ManagedIdentity)
	named := func(id string) bool { return namePattern.MatchString(id) || managed && id == "" }
	switch {
	case !named(cfg.TenantID):
		return &ConfigError{"tenant_id", "must be the tenant's GUID or one of its domain names"}
	case !named(cfg.ClientID):
		return &ConfigError{"client_id", "must be the application id of an app registration"}
	case cfg.Credential == nil:
		return &ConfigError{"credential", "is missing"}
	case cfg.Cloud == Cloud{}:
		return &ConfigError{"environment", "is missing"}
	case cfg.APIVersion != Beta && cfg.APIVersion != V1:
		return &ConfigError{"graph_api_version", "must be " + Beta + " or " + V1}
	}
	if err := cfg.checkRoot("graph_endpoint", cfg.graphRoot()); err != nil {
		return err
	}
	return cfg.checkRoot("authority_host", cfg.authorityRoot())
}

// checkRoot accepts https://host and https://host:port, unless the host is Microsoft's
// in another cloud, where neither the tenant nor its tokens are known. A path, a query
// or credentials in it would be dropped or leaked somewhere later on.
func (cfg *Config) checkRoot(field, root string) error {
	u, err := url.Parse(root)
	if err != nil || u.Hostname() == "" || root != "https://"+u.Host {
		return &ConfigError{field, "must be an https URL of a host and nothing more, such as https://graph.example.com"}
	}
	if in := owners(strings.ToLower(u.Hostname())); len(in) > 0 && !slices.Contains(in, cfg.Cloud.Name) {
		return &ConfigError{field, "is Microsoft's host for " + strings.Join(in, " and ") + ", and environment is " + cfg.Cloud.Name +
			": set the environment that the tenant lives in, and leave the field empty"}
	}
	return nil
}

func (cfg *Config) graphRoot() string {
	return strings.TrimSuffix(cmp.Or(cfg.GraphEndpoint, cfg.Cloud.GraphRoot), "/")
}

func (cfg *Config) authorityRoot() string {
	return strings.TrimSuffix(cmp.Or(cfg.AuthorityHost, cfg.Cloud.AuthorityHost), "/")
}
