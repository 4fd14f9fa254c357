// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// graphCall is a call of Graph: what Graph's gateway checks, and what the call does.
type graphCall struct {
	op     Operation
	method string
	name   string
	role   string
	do     func(*exchange, settings) answer
}

// graphCalls lists the calls. Reading the key requires the role that may write: there is
// no lesser one.
func graphCalls() []graphCall {
	return []graphCall{
		{Regenerate, http.MethodPost, "regenerateDeploymentAccessKey", RoleReadWrite, regenerate},
		{Get, http.MethodGet, "getDeploymentAccessKey", RoleReadWrite, getKey},
		{Package, http.MethodGet, "getDeploymentPackageUri", RoleRead, getPackage},
	}
}

// paths returns the call's paths below a version of Graph: with and without the namespace,
// which Microsoft's SDKs send, and a function with and without parentheses.
func (c graphCall) paths() []string {
	var all []string
	for _, name := range []string{c.name, "microsoft.graph.security." + c.name} {
		all = append(all, "/security/identities/sensors/"+name)
		if c.method == http.MethodGet {
			all = append(all, "/security/identities/sensors/"+name+"()")
		}
	}
	return all
}

// work does the gateway's checks before the call's work.
func (c graphCall) work(x *exchange) answer {
	s, claims, refused := x.authenticate()
	switch {
	case refused != nil:
		return *refused
	case x.r.Method != c.method:
		return x.graphError(http.StatusMethodNotAllowed, "", "The call is a "+c.method+".")
	case !slices.Contains(claims.Roles, c.role):
		return x.graphError(http.StatusForbidden, "",
			"The token has no valid permissions for this call. It needs one of: "+c.role+".")
	default:
		return c.do(x, s)
	}
}

// authenticate returns the bearer token's tenant and claims, or Graph's refusal.
func (x *exchange) authenticate() (settings, *tokenClaims, *answer) {
	s := x.sim.current()
	refuse := func(message string) (settings, *tokenClaims, *answer) {
		a := x.graphError(http.StatusUnauthorized, "", message)
		return s, nil, &a
	}
	token, ok := x.bearer()
	if !ok {
		return refuse("Access token is empty.")
	}
	claims, err := x.sim.signer.verify(token, s)
	switch {
	case err == nil:
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse("Lifetime validation failed, the token is expired.")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refuse("Access token validation failure. Invalid audience.")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse("CompactToken parsing failed.")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return refuse("Signature is invalid.")
	default:
		return refuse("Access token validation failure.")
	}
	if since, revoked := x.sim.revocation(claims.UniqueID); revoked {
		a := x.challengeAnswer(since)
		return s, nil, &a
	}
	s, _ = s.in(claims.TenantID)
	return s, claims, nil
}

func (x *exchange) bearer() (token string, ok bool) {
	scheme, token, _ := strings.Cut(x.r.Header.Get("Authorization"), " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

func (x *exchange) authenticateHeader() string {
	return fmt.Sprintf(`Bearer realm="", authorization_uri="https://%s/common/oauth2/authorize", `+
		`client_id="00000003-0000-0000-c000-000000000000"`, x.r.Host)
}

func regenerate(x *exchange, s settings) answer {
	if len(x.body) > 0 {
		return x.graphError(http.StatusBadRequest, "", "The action takes no parameters: send no body.")
	}
	old := x.sim.KeyOf(s.tenantID)
	if x.fault.Body == BodyOldKey && !x.fault.AfterWork {
		return x.keyAnswer(s.shape, old)
	}
	key := x.sim.performRegenerate(s.tenantID)
	if x.fault.Body == BodyOldKey {
		key = old
	}
	return x.keyAnswer(s.shape, key)
}

func getKey(x *exchange, s settings) answer {
	return x.keyAnswer(s.shape, x.sim.performGet(s.tenantID))
}

func (x *exchange) keyAnswer(shape Shape, key string) answer {
	fields := map[string]any{shape.keyField(): key}
	if x.fault.Body == BodyNoKey {
		delete(fields, shape.keyField())
	}
	return x.graphAnswer(shape, "deploymentAccessKeyType", fields)
}

func getPackage(x *exchange, s settings) answer {
	x.sim.perform(x.op)
	return x.graphAnswer(s.shape, "sensorDeploymentPackage", map[string]any{
		"downloadUrl": s.packageURL,
		"version":     s.packageVersion,
	})
}

func (x *exchange) graphAnswer(shape Shape, typeName string, fields map[string]any) answer {
	return answer{
		status: http.StatusOK,
		header: x.graphHeader(),
		body:   shape.wrap(x.graphRoot(), typeName, fields),
	}
}

// graphRoot returns the root of Graph that the request used, with the version.
func (x *exchange) graphRoot() string {
	version, _, _ := strings.Cut(strings.TrimPrefix(x.r.URL.Path, "/"), "/")
	return "https://" + x.r.Host + "/" + version
}

// graphError returns an error in Graph's form. An empty code is replaced by the one for
// the status.
func (x *exchange) graphError(status int, code, message string) answer {
	header := x.graphHeader()
	if status == http.StatusUnauthorized {
		code = cmp.Or(code, "InvalidAuthenticationToken")
		header.Set("WWW-Authenticate", x.authenticateHeader())
	}
	return answer{status: status, header: header, body: map[string]any{
		"error": map[string]any{
			"code":    cmp.Or(code, strings.ReplaceAll(http.StatusText(status), " ", ""), "UnknownError"),
			"message": message,
			"innerError": map[string]any{
				"date":              x.sim.current().clock().UTC().Format("2006-01-02T15:04:05"),
				"request-id":        x.requestID,
				"client-request-id": header.Get("client-request-id"),
			},
		},
	}}
}

// graphHeader returns the ids that Graph sends with every answer.
func (x *exchange) graphHeader() http.Header {
	header := http.Header{"Request-Id": {x.requestID}}
	header.Set("client-request-id", cmp.Or(x.r.Header.Get("client-request-id"), uuid.NewString()))
	return header
}
