// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"fmt"
	"strings"
)

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

// CloudNamed returns the cloud with that name. Its error lists the valid names, or says
// why an existing cloud is not supported, and never repeats the name: it may be a secret.
func CloudNamed(name string) (Cloud, error) {
	for _, c := range clouds {
		if c.Name == name {
			return c, nil
		}
	}
	if name == azureChinaCloud {
		return Cloud{}, fmt.Errorf("%s: Microsoft does not offer the Defender for Identity sensors API there", azureChinaCloud)
	}
	return Cloud{}, fmt.Errorf("must be one of %s", strings.Join(CloudNames(), ", "))
}

// otherHosts are Microsoft's hosts that clouds does not list: other names of Entra's
// sign-in, and the cloud that is not supported.
// https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
var otherHosts = map[string]string{
	"login.windows.net":                AzurePublicCloud,
	"login.microsoft.com":              AzurePublicCloud,
	"sts.windows.net":                  AzurePublicCloud,
	"microsoftgraph.chinacloudapi.cn":  azureChinaCloud,
	"login.chinacloudapi.cn":           azureChinaCloud,
	"login.partner.microsoftonline.cn": azureChinaCloud,
}

// owners returns the names of the clouds to which one of Microsoft's hosts belongs, or
// nil if this package does not know the host.
func owners(host string) []string {
	if name, ok := otherHosts[host]; ok {
		return []string{name}
	}
	var names []string
	for _, c := range clouds {
		if root := "https://" + host; root == c.GraphRoot || root == c.AuthorityHost {
			names = append(names, c.Name)
		}
	}
	return names
}

// CloudNames returns the names that CloudNamed accepts, the default first.
func CloudNames() []string {
	names := make([]string, 0, len(clouds))
	for _, c := range clouds {
		names = append(names, c.Name)
	}
	return names
}
