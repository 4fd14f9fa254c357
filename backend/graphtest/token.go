// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

const defaultScope = "/.default"

// issueToken is the token endpoint. It checks in the order in which Entra reports errors,
// one at a time.
func issueToken(x *exchange) answer {
	s, r := x.tenant()
	if r != nil {
		return x.entraError(*r)
	}
	form, r := x.form()
	if r != nil {
		return x.entraError(*r)
	}
	for _, check := range []func(settings, url.Values) *refusal{
		checkGrant, checkApp, x.checkCredential, checkScope, checkClaims,
	} {
		if r := check(s, form); r != nil {
			return x.entraError(*r)
		}
	}
	token := x.sim.newToken(s, grant{
		op: x.op, appID: s.clientID, principalID: s.principalID, claims: requestedClaims(form),
	})
	return answer{status: http.StatusOK, header: x.entraHeader(), body: map[string]any{
		"token_type":     "Bearer",
		"expires_in":     seconds(s.tokenLifetime),
		"ext_expires_in": seconds(s.tokenLifetime),
		"access_token":   token,
	}}
}

// form reads the parameters, which must be in the body of a POST.
func (x *exchange) form() (url.Values, *refusal) {
	const formType = "application/x-www-form-urlencoded"
	contentType, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";")
	if x.r.Method != http.MethodPost || !strings.EqualFold(strings.TrimSpace(contentType), formType) {
		return nil, &refusal{codeParameterMissing, "The endpoint takes a POST with a form in its body."}
	}
	form, err := url.ParseQuery(string(x.body))
	if err != nil {
		return nil, &refusal{codeBadRequest, "The form in the body cannot be read."}
	}
	return form, nil
}

func checkGrant(_ settings, form url.Values) *refusal {
	switch grant := form.Get("grant_type"); grant {
	case "client_credentials":
		return nil
	case "":
		return missing("grant_type")
	default:
		return &refusal{codeGrantType, fmt.Sprintf("The grant type '%s' is not supported.", grant)}
	}
}

func checkApp(s settings, form url.Values) *refusal {
	id := form.Get("client_id")
	if id == "" {
		return missing("client_id")
	}
	if strings.EqualFold(id, s.clientID) {
		return nil
	}
	return &refusal{codeAppNotFound, fmt.Sprintf("Application with identifier '%s' "+
		"was not found in the directory '%s'.", id, s.tenantID)}
}

// checkCredential finds out which kind of credential the request has.
func (x *exchange) checkCredential(s settings, form url.Values) *refusal {
	secret, assertion := form.Has("client_secret"), form.Has("client_assertion")
	switch {
	case secret && assertion:
		return &refusal{codeBadRequest, "There is more than one credential in the request."}
	case secret:
		return x.checkSecret(s, form)
	case assertion:
		return x.checkAssertion(s, form)
	default:
		return &refusal{codeNoCredential, "The grant type client_credentials needs a client_assertion or a client_secret."}
	}
}

// checkScope accepts the only resource that exists. It ignores the OpenID scopes, which
// MSAL always sends and which mean nothing for applications.
func checkScope(s settings, form url.Values) *refusal {
	scopes := slices.DeleteFunc(strings.Fields(form.Get("scope")), func(scope string) bool {
		return slices.Contains([]string{"openid", "profile", "offline_access"}, scope)
	})
	if len(scopes) == 0 {
		return missing("scope")
	}
	resource, ok := strings.CutSuffix(scopes[0], defaultScope)
	if !ok || len(scopes) > 1 {
		return &refusal{codeScopeInvalid, "Client credentials need one scope, a resource with the suffix /.default."}
	}
	if strings.TrimSuffix(resource, "/") != s.audience {
		return &refusal{codeResourceUnknown, fmt.Sprintf("The resource principal named %s "+
			"was not found in the tenant named %s.", resource, s.tenantID)}
	}
	return nil
}

// claimsRequest is the part of the claims parameter that matters here: the earliest issue
// time from a claims challenge, and the client's declared capabilities.
type claimsRequest struct {
	AccessToken struct {
		NotBefore struct {
			Value string `json:"value"`
		} `json:"nbf"`
		Capabilities struct {
			Values []string `json:"values"`
		} `json:"xms_cc"`
	} `json:"access_token"`
}

// checkClaims refuses a claims request that is not a JSON object. The typical mistake is
// to pass on a challenge without decoding it.
func checkClaims(_ settings, form url.Values) *refusal {
	claims := form.Get("claims")
	if claims == "" || json.Unmarshal([]byte(claims), new(claimsRequest)) == nil {
		return nil
	}
	return &refusal{codeBadRequest, "The claims parameter is not JSON."}
}

// requestedClaims decodes what checkClaims has accepted.
func requestedClaims(form url.Values) (request claimsRequest) {
	_ = json.Unmarshal([]byte(form.Get("claims")), &request) // or there are none
	return request
}

func missing(parameter string) *refusal {
	return &refusal{
		codeParameterMissing,
		fmt.Sprintf("The request body must contain the parameter '%s'.", parameter),
	}
}

// tokenClaims are the claims of an application's token for Graph, which has Entra's
// version 1.0 whichever endpoint issues it.
type tokenClaims struct {
	jwt.RegisteredClaims
	TenantID string   `json:"tid"`
	AppID    string   `json:"appid"`
	ObjectID string   `json:"oid,omitempty"` // of the service principal, not of the application
	IDType   string   `json:"idtyp"`
	Roles    []string `json:"roles,omitempty"`
	UniqueID string   `json:"uti"` // distinguishes two tokens of the same second
	Version  string   `json:"ver"`
	// Capabilities are what the client has declared.
	Capabilities []string `json:"xms_cc,omitempty"`
}

// issuer returns the issuer of version 1.0 tokens, the same in all clouds.
func issuer(tenantID string) string { return "https://sts.windows.net/" + tenantID + "/" }

// grant says whose token to issue, and what was requested.
type grant struct {
	op                 Operation
	appID, principalID string
	claims             claimsRequest
}

func (s *Simulator) newToken(t settings, g grant) string {
	now := t.clock()
	claims := tokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    issuer(t.tenantID),
			Audience:  jwt.ClaimStrings{t.audience},
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(t.tokenLifetime)),
		},
		TenantID:     t.tenantID,
		AppID:        g.appID,
		ObjectID:     g.principalID,
		IDType:       "app",
		Roles:        t.roles,
		UniqueID:     uuid.NewString(),
		Version:      "1.0",
		Capabilities: g.claims.AccessToken.Capabilities.Values,
	}
	token := s.signer.sign(claims)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerChallenge(claims, g.claims)
	s.issued.add(token)
	s.count(g.op, performed)
	return token
}
