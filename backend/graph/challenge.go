// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
)

// maxClaims limits the claims that are passed on to Entra, in bytes of JSON. Graph's
// challenges have about a hundred.
const maxClaims = 8 << 10

// unauthorized is a 401, the only refusal that a new token may cure. It never leaves
// the package.
type unauthorized struct {
	refusal *Error
	claims  string // that the new token must have, as JSON; "" if Graph named none
}

// Error and Unwrap make it usable as the *Error that it contains.
func (e *unauthorized) Error() string { return e.refusal.Error() }
func (e *unauthorized) Unwrap() error { return e.refusal }

// parameterPattern finds the parameters of a challenge, such as error="x"
// (RFC 9110, section 11.2).
var parameterPattern = regexp.MustCompile(`([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))`)

// challengedClaims returns the claims that Graph demands of a token, as JSON, or "" if
// there is no well-formed claims challenge.
// https://learn.microsoft.com/entra/identity-platform/claims-challenge#claims-challenge-header-format
func challengedClaims(h http.Header) string {
	for _, challenge := range h.Values("WWW-Authenticate") {
		parameters := map[string]string{}
		for _, found := range parameterPattern.FindAllStringSubmatch(challenge, -1) {
			parameters[strings.ToLower(found[1])] = found[2] + found[3]
		}
		if parameters["error"] == "insufficient_claims" {
			if claims := decodeClaims(parameters["claims"]); claims != "" {
				return claims
			}
		}
	}
	return ""
}

// decodeClaims accepts standard and URL-safe base64, padded or not.
func decodeClaims(encoded string) string {
	encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
	claims, err := base64.RawStdEncoding.DecodeString(encoded)
	var content struct {
		// MSAL adds the client's capabilities to this object.
		AccessToken map[string]any `json:"access_token"`
	}
	if err != nil || len(claims) > maxClaims || json.Unmarshal(claims, &content) != nil || content.AccessToken == nil {
		return ""
	}
	return string(claims)
}
