// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Package says where to download the sensor's installer. The installer has the endpoints
// of the tenant's cloud built in, so it must be used with the tenant's key.
type Package struct {
	DownloadURL string `json:"downloadUrl"` // as Graph sent it, not checked
	Version     string `json:"version"`
}

// PackageHosts are the hosts that Microsoft documents for the sensor, by their endings:
// what is downloaded there runs as SYSTEM on domain controllers.
// https://learn.microsoft.com/defender-for-identity/deploy/configure-proxy
var PackageHosts = []string{".mdi.securitycenter.microsoft.com", ".mdi.securitycenter.microsoft.us"}

// Documented reports whether the package is downloaded over https from one of PackageHosts.
func (p Package) Documented() bool {
	u, err := url.Parse(p.DownloadURL)
	if err != nil || u.Scheme != "https" || u.User != nil || (u.Port() != "" && u.Port() != "443") {
		return false
	}
	return slices.ContainsFunc(PackageHosts, func(ending string) bool {
		return len(u.Hostname()) > len(ending) && strings.HasSuffix(strings.ToLower(u.Hostname()), ending)
	})
}

// DeploymentPackage returns the sensor package of the tenant. It needs the
// permission [PackagePermission], which [Permission] does not include.
// https://learn.microsoft.com/graph/api/security-sensor-getdeploymentpackageuri
func (c *Client) DeploymentPackage(ctx context.Context) (Package, error) {
	op := operation{name: OpPackage, method: http.MethodGet, url: c.root + sensors + OpPackage, idempotent: true}
	var answer struct { // at the root or below "value", like a key
		Package
		Value Package `json:"value"`
	}
	err := c.call(ctx, op, decode(&answer, reasonNoPackage, func() bool {
		answer.Package = cmp.Or(answer.Package, answer.Value)
		return answer.DownloadURL != "" && answer.Version != ""
	}))
	if err != nil {
		return Package{}, err
	}
	return answer.Package, nil
}
