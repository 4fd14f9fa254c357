// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
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
}

// namePattern matches GUIDs and domain names. It keeps everything else out of the paths
// of sign-in URLs.
var namePattern = pattern(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)

// pattern returns a function that compiles a pattern for its first use, and so not while the
// plugin starts.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

func (cfg *Config) validate() error {
	_, managed := cfg.Credential.(ManagedIdentity)
	named := func(id string) bool { return namePattern().MatchString(id) || managed && id == "" }
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
	return cmp.Or(cfg.normalize("graph_endpoint", &cfg.GraphEndpoint), cfg.normalize("authority_host", &cfg.AuthorityHost))
}

// normalize replaces an endpoint by its parsed form. It refuses Microsoft's hosts in
// other clouds, which know neither the tenant nor its tokens.
func (cfg *Config) normalize(field string, endpoint *string) error {
	root, err := ParseEndpoint(*endpoint)
	if err != nil {
		return &ConfigError{field, err.Error()}
	}
	*endpoint = root
	u := url.URL{Host: strings.TrimPrefix(root, "https://")}
	if in := owners[strings.ToLower(u.Hostname())]; len(in) > 0 && !slices.Contains(in, cfg.Cloud.Name) {
		return &ConfigError{field, "is Microsoft's host for " + strings.Join(in, " and ") + ", and environment is " + cfg.Cloud.Name +
			": set the environment that the tenant lives in, and leave the field empty"}
	}
	return nil
}

// ParseEndpoint returns the root of an https endpoint, https://host or
// https://host:port, without surrounding white space and trailing slashes; "" stays "".
// A path, a query or a user would be dropped or leaked later on. The error says what is
// allowed and quotes nothing.
func ParseEndpoint(text string) (string, error) {
	root := strings.TrimRight(strings.TrimSpace(text), "/")
	if u, err := url.Parse(root); root != "" && (err != nil || u.Hostname() == "" || root != "https://"+u.Host) {
		return "", errors.New("must be the root of an https endpoint such as https://graph.example.com, without path, query or user")
	}
	return root, nil
}

// The Microsoft clouds that offer the sensors API, by the names that Azure's
// own tools use.
const (
	AzurePublicCloud          = "AzurePublicCloud"          // worldwide, GCC included
	AzureUSGovernmentCloud    = "AzureUSGovernmentCloud"    // GCC High (L4)
	AzureUSGovernmentDoDCloud = "AzureUSGovernmentDoDCloud" // DoD (L5)
)

// azureChinaCloud is known by its name and hosts only to explain why it is refused.
const azureChinaCloud = "AzureChinaCloud"

// Cloud is a Microsoft cloud with the addresses of its Graph and its sign-in.
type Cloud struct {
	Name          string
	GraphRoot     string // https URL without a path; with "/.default" also the scope of a token
	AuthorityHost string // https URL without a path
}

// clouds lists them as in
// https://learn.microsoft.com/graph/deployments#microsoft-graph-and-graph-explorer-service-root-endpoints.
var clouds = []Cloud{
	{AzurePublicCloud, "https://graph.microsoft.com", "https://login.microsoftonline.com"},
	{AzureUSGovernmentCloud, "https://graph.microsoft.us", "https://login.microsoftonline.us"},
	{AzureUSGovernmentDoDCloud, "https://dod-graph.microsoft.us", "https://login.microsoftonline.us"},
}

// CloudNames are the names that CloudNamed accepts, the default first.
var CloudNames = func() (names []string) {
	for _, c := range clouds {
		names = append(names, c.Name)
	}
	return names
}()

// CloudNamed returns the cloud with that name. Its error lists the valid names, or says
// why an existing cloud is not supported, and never repeats the name: it may be a secret.
func CloudNamed(name string) (Cloud, error) {
	if i := slices.IndexFunc(clouds, func(c Cloud) bool { return c.Name == name }); i >= 0 {
		return clouds[i], nil
	}
	if name == azureChinaCloud {
		return Cloud{}, errors.New(azureChinaCloud + ": Microsoft does not offer the Defender for Identity sensors API there")
	}
	return Cloud{}, errors.New("must be one of " + strings.Join(CloudNames, ", "))
}

// owners are the clouds to which Microsoft's hosts belong, by the names of the hosts: those
// of clouds, other names of Entra's sign-in, and those of the cloud that is not supported.
// https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
var owners = map[string][]string{
	"graph.microsoft.com":              {AzurePublicCloud},
	"graph.microsoft.us":               {AzureUSGovernmentCloud},
	"dod-graph.microsoft.us":           {AzureUSGovernmentDoDCloud},
	"login.microsoftonline.com":        {AzurePublicCloud},
	"login.microsoftonline.us":         {AzureUSGovernmentCloud, AzureUSGovernmentDoDCloud},
	"login.windows.net":                {AzurePublicCloud},
	"login.microsoft.com":              {AzurePublicCloud},
	"sts.windows.net":                  {AzurePublicCloud},
	"microsoftgraph.chinacloudapi.cn":  {azureChinaCloud},
	"login.chinacloudapi.cn":           {azureChinaCloud},
	"login.partner.microsoftonline.cn": {azureChinaCloud},
}
