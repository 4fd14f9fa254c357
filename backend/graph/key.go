// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxKeyBytes is far above the 88 bytes in Microsoft's examples. Microsoft does not
// document a length.
const maxKeyBytes = 4096

// sensors is the path of the calls, below the version.
const sensors = "/security/identities/sensors/"

// RegenerateDeploymentAccessKey replaces the tenant's deployment access key and
// returns the new one. The old key no longer works for installations that have not used
// it yet.
//
// An error for which [Error.MayHaveHappened] is true leaves open whether the key was
// replaced. A context's own error means that nothing was sent.
// https://learn.microsoft.com/graph/api/security-sensor-regeneratedeploymentaccesskey
func (c *Client) RegenerateDeploymentAccessKey(ctx context.Context) (string, error) {
	return c.key(ctx, operation{name: OpRegenerate, method: http.MethodPost})
}

// DeploymentAccessKey returns the tenant's current deployment access key and changes
// nothing. It may lag behind a regeneration: Microsoft promises no consistency. Do not
// poll with it: each call probably writes to the tenant's audit log.
// https://learn.microsoft.com/graph/api/security-sensor-getdeploymentaccesskey
func (c *Client) DeploymentAccessKey(ctx context.Context) (string, error) {
	return c.key(ctx, operation{name: OpGet, method: http.MethodGet, idempotent: true})
}

func (c *Client) key(ctx context.Context, op operation) (string, error) {
	op.url = c.root + sensors + op.name
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
		return "", reasonDifferentKeys
	case len(found) == 0 || !usableKey(found[0]):
		return "", reasonNoKey
	}
	return found[0], ""
}

// usableKey rejects what cannot be a key, without assuming a format.
func usableKey(key string) bool {
	return len(key) <= maxKeyBytes &&
		strings.TrimSpace(key) != "" &&
		!strings.ContainsFunc(key, unicode.IsControl)
}
