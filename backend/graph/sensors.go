// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// maxKeyBytes bounds what can be a key, of which no format is assumed. It is far above the 88 bytes in Microsoft's examples. Microsoft does not
// document a length.
const maxKeyBytes = 4096

// sensors is the path of the calls, below the version.
const sensors = "/security/identities/sensors/"

// RegenerateDeploymentAccessKey replaces the tenant's deployment access key and
// returns the new one. The old key no longer works for installations that have not used
// it yet.
//
// If before is not nil, it is called once, while the connection to Graph is being made.
// Nothing is sent unless it returns nil, and its error is returned. It has ended when this
// method returns, and has not been called if there is no access token.
//
// An error for which [Error.MayHaveHappened] is true leaves open whether the key was
// replaced. A context's own error means that it was not.
// https://learn.microsoft.com/graph/api/security-sensor-regeneratedeploymentaccesskey
func (c *Client) RegenerateDeploymentAccessKey(ctx context.Context, before func() error) (string, error) {
	op := operation{name: OpRegenerate, method: http.MethodPost, url: c.sensors + OpRegenerate}
	if before != nil {
		op.before = sync.OnceValue(before)
	}
	return c.key(ctx, op)
}

// DeploymentAccessKey returns the tenant's current deployment access key and changes
// nothing. It may lag behind a regeneration: Microsoft promises no consistency. Do not
// poll with it: each call probably writes to the tenant's audit log.
// https://learn.microsoft.com/graph/api/security-sensor-getdeploymentaccesskey
func (c *Client) DeploymentAccessKey(ctx context.Context) (string, error) {
	op := operation{name: OpGet, method: http.MethodGet, url: c.sensors + OpGet, idempotent: true, only200: true}
	key, err := c.key(ctx, op)
	if e, ok := errors.AsType[*Error](err); ok && e.Signed && e.Status == http.StatusNotFound {
		// Either there is no key, or Graph does not have this call at this version.
		op.url = c.elsewhere + OpGet
		_, err := c.key(ctx, op)
		other, ok := errors.AsType[*Error](err)
		e.keyless = ok && other.Signed && other.Status == http.StatusNotFound
	}
	return key, err
}

func (c *Client) key(ctx context.Context, op operation) (string, error) {
	var key string
	err := c.call(ctx, op, func(body []byte) (reason string) {
		key, reason = parseKey(body)
		return reason
	})
	return key, err
}

// keyFields are the names of the key: one in Microsoft's examples, the other in its
// schema and SDKs.
type keyFields struct {
	Schema  string `json:"deploymentAccessKey"`
	Example string `json:"sensorDeploymentAccessKey"`
}

// parseKey finds the key in the body of an answer, at the root or, as in Microsoft's
// examples, below "value". If it finds none, reason says why and quotes nothing.
func parseKey(body []byte) (key, reason string) {
	var content struct {
		keyFields
		Value keyFields `json:"value"`
	}
	// Package json would silently replace invalid UTF-8 and so change the key.
	if !utf8.Valid(body) || json.Unmarshal(body, &content) != nil {
		return "", reasonUnreadable
	}
	found := []string{content.Schema, content.Example, content.Value.Schema, content.Value.Example}
	found = slices.DeleteFunc(found, func(s string) bool { return s == "" })
	found = slices.Compact(found)
	switch {
	case len(found) > 1:
		return "", "the answer contains two different keys"
	case len(found) == 0:
		return "", reasonNoKey
	case len(found[0]) > maxKeyBytes, strings.TrimSpace(found[0]) == "", strings.ContainsFunc(found[0], unicode.IsControl):
		return "", "the answer contains a key that cannot be one"
	}
	return found[0], ""
}

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
	op := operation{name: OpPackage, method: http.MethodGet, url: c.sensors + OpPackage, idempotent: true}
	var answer struct { // at the root or below "value", like a key
		Package
		Value Package `json:"value"`
	}
	err := c.call(ctx, op, decode(&answer, "the answer contains no address and version of a package", func() bool {
		answer.Package = cmp.Or(answer.Package, answer.Value)
		return answer.DownloadURL != "" && answer.Version != ""
	}))
	if err != nil {
		return Package{}, err
	}
	return answer.Package, nil
}
