// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// refusal is a sign-in error: the number of an AADSTS code and its sentence.
type refusal struct {
	code int
	text string
}

// The AADSTS codes that the simulator knows.
const (
	codeBadRequest       = 90023
	codeTenantNotFound   = 90002
	codeUnavailable      = 90033
	codeThrottled        = 90055
	codeInstanceUnknown  = 50049
	codeGrantType        = 70003
	codeAccessBlocked    = 53003
	codeResourceUnknown  = 500011
	codeAppNotFound      = 700016
	codeParameterMissing = 900144
	codeScopeInvalid     = 1002012
	codeSecretInvalid    = 7000215
	codeNoCredential     = 7000216
	codeSecretExpired    = 7000222

	codeAssertionInvalid   = 50013
	codeAssertionMalformed = 50027
	codeAssertionSubject   = 700021
	codeAssertionAudience  = 700023
	codeAssertionTime      = 700024
	codeAssertionSignature = 700027
	codeCertificateChain   = 7000213
	codeFederationIssuer   = 700211
	codeFederationAudience = 700212
	codeFederationSubject  = 700213
)

// refusals has the status and the OAuth error for each code.
var refusals = map[int]struct {
	status int
	name   string
}{
	codeBadRequest:       {http.StatusBadRequest, "invalid_request"},
	codeTenantNotFound:   {http.StatusBadRequest, "invalid_request"},
	codeUnavailable:      {http.StatusServiceUnavailable, "temporarily_unavailable"},
	codeInstanceUnknown:  {http.StatusBadRequest, "invalid_instance"},
	codeThrottled:        {http.StatusTooManyRequests, "temporarily_unavailable"},
	codeGrantType:        {http.StatusBadRequest, "unsupported_grant_type"},
	codeAccessBlocked:    {http.StatusBadRequest, "access_denied"},
	codeResourceUnknown:  {http.StatusBadRequest, "invalid_resource"},
	codeAppNotFound:      {http.StatusBadRequest, "unauthorized_client"},
	codeParameterMissing: {http.StatusBadRequest, "invalid_request"},
	codeScopeInvalid:     {http.StatusBadRequest, "invalid_scope"},
	codeSecretInvalid:    {http.StatusUnauthorized, "invalid_client"},
	codeNoCredential:     {http.StatusUnauthorized, "invalid_client"},
	codeSecretExpired:    {http.StatusUnauthorized, "invalid_client"},

	codeAssertionInvalid:   {http.StatusBadRequest, "invalid_grant"},
	codeAssertionMalformed: {http.StatusBadRequest, "invalid_request"},
	codeAssertionSubject:   {http.StatusUnauthorized, "invalid_client"},
	codeAssertionAudience:  {http.StatusUnauthorized, "invalid_client"},
	codeAssertionTime:      {http.StatusUnauthorized, "invalid_client"},
	codeAssertionSignature: {http.StatusUnauthorized, "invalid_client"},
	codeCertificateChain:   {http.StatusUnauthorized, "invalid_client"},
	codeFederationIssuer:   {http.StatusUnauthorized, "invalid_client"},
	codeFederationAudience: {http.StatusUnauthorized, "invalid_client"},
	codeFederationSubject:  {http.StatusUnauthorized, "invalid_client"},
}

// entraError returns Entra's answer to a request that it refuses.
func (x *exchange) entraError(r refusal) answer {
	kind := refusals[r.code]
	return x.entraAnswer(kind.status, kind.name, r)
}

// entraFailure returns the answer of an injected fault. An empty code is replaced by one
// that fits the status.
func (x *exchange) entraFailure(status int, code, text string) answer {
	number, err := strconv.Atoi(code)
	if err != nil {
		number = defaultRefusal(status)
	}
	name := cmp.Or(refusals[number].name, "invalid_client")
	return x.entraAnswer(status, name, refusal{code: number, text: text})
}

func defaultRefusal(status int) int {
	switch {
	case status == http.StatusUnauthorized:
		return codeSecretInvalid
	case status == http.StatusForbidden:
		return codeAccessBlocked
	case status == http.StatusTooManyRequests:
		return codeThrottled
	case status >= http.StatusInternalServerError:
		return codeUnavailable
	default:
		return codeBadRequest
	}
}

func (x *exchange) entraAnswer(status int, name string, r refusal) answer {
	correlation := cmp.Or(x.clientRequestID(), uuid.NewString())
	date := x.sim.current().clock().UTC().Format("2006-01-02 15:04:05Z")
	return answer{
		status: status,
		header: x.entraHeader(),
		body: map[string]any{
			"error": name,
			"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
				r.code, r.text, x.requestID, correlation, date),
			"error_codes":    []int{r.code},
			"timestamp":      date,
			"trace_id":       x.requestID,
			"correlation_id": correlation,
			"error_uri":      fmt.Sprintf("https://%s/error?code=%d", x.r.Host, r.code),
		},
	}
}

// entraHeader returns the headers of every answer of Entra. Microsoft's documentation asks
// clients to send client-request-id and to log both ids.
func (x *exchange) entraHeader() http.Header {
	header := http.Header{"X-Ms-Request-Id": {x.requestID}, "Cache-Control": {"no-store"}}
	if id := x.clientRequestID(); id != "" {
		header.Set("client-request-id", id)
	}
	return header
}

// clientRequestID returns the client's own id of the request, which MSAL for JavaScript
// sends in the query.
func (x *exchange) clientRequestID() string {
	return cmp.Or(x.r.Header.Get("client-request-id"), x.r.URL.Query().Get("client-request-id"))
}

// tenant returns the tenant in the path, or the refusal of an unknown one.
func (x *exchange) tenant() (settings, *refusal) {
	id := x.r.PathValue("tenant")
	s, found := x.sim.current().in(id)
	if found {
		return s, nil
	}
	return s, &refusal{codeTenantNotFound, fmt.Sprintf("Tenant '%s' not found. "+
		"Check that the tenant id is right and belongs to this cloud.", id)}
}

// discoverInstance says whether a host is Entra's: the one that was asked, or one that
// Entra has in the public cloud or that of the US government.
func discoverInstance(x *exchange) answer {
	asked, err := url.Parse(x.r.URL.Query().Get("authorization_endpoint"))
	switch {
	case err != nil, asked.Host == "":
		return x.entraError(*missing("authorization_endpoint"))
	case !slices.Contains([]string{x.r.Host, "login.microsoftonline.com", "login.microsoftonline.us"}, asked.Host):
		return x.entraError(refusal{codeInstanceUnknown, "Unknown or invalid instance."})
	}
	x.sim.perform(x.op)
	tenant, _, _ := strings.Cut(strings.TrimPrefix(asked.Path, "/"), "/")
	return answer{status: http.StatusOK, header: x.entraHeader(), body: map[string]any{
		"tenant_discovery_endpoint": "https://" + asked.Host + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []any{map[string]any{
			"preferred_network": asked.Host, "preferred_cache": asked.Host, "aliases": []string{asked.Host},
		}},
	}}
}

// discover returns the endpoints, on the host of the request, so that they are valid under
// any name of the simulator.
func discover(x *exchange) answer {
	s, r := x.tenant()
	if r != nil {
		return x.entraError(*r)
	}
	if x.r.Method != http.MethodGet {
		return x.entraAnswer(http.StatusMethodNotAllowed, "invalid_request",
			refusal{codeBadRequest, "Discovery is a GET."})
	}
	x.sim.perform(x.op)
	base := "https://" + x.r.Host + "/" + s.tenantID
	return answer{status: http.StatusOK, header: x.entraHeader(), body: map[string]any{
		"issuer":                                base + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{signingMethod.Alg()},
	}}
}

// keySet serves the public keys of the tokens. It is not counted: clients that only use
// tokens do not request it.
func (s *Simulator) keySet(w http.ResponseWriter, r *http.Request) {
	if _, found := s.current().in(r.PathValue("tenant")); !found {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error means that the client is gone.
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{s.signer.jwk()}})
}

// perform counts work that changes nothing in the tenant.
func (s *Simulator) perform(op Operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(op, performed)
}

// seconds returns a duration in the unit of OAuth and JWT.
func seconds(d time.Duration) int { return int(d / time.Second) }
