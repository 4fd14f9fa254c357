// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// applicationCall is a call about the application itself.
type applicationCall struct {
	op     Operation
	method string
	// privileged calls require RoleOwnedBy, and that the application is one of its own
	// owners. The others require no permission but a proof that the caller has one of
	// the application's certificates.
	privileged bool
	do         func(*exchange, settings) answer
}

// applicationCalls returns the calls by the name of the action, which is empty for reading
// the application.
func applicationCalls() map[string]applicationCall {
	return map[string]applicationCall{
		"":               {Application, http.MethodGet, true, getApplication},
		"addPassword":    {AddPassword, http.MethodPost, true, addPassword},
		"removePassword": {RemovePassword, http.MethodPost, true, removePassword},
		"addKey":         {AddKey, http.MethodPost, false, addKey},
		"removeKey":      {RemoveKey, http.MethodPost, false, removeKey},
	}
}

// applications routes the calls, by either id of the application.
func (s *Simulator) applications(mux *http.ServeMux, root string) {
	handlers := map[string]http.Handler{}
	for action, call := range applicationCalls() {
		handlers[action] = s.call(call.op, call.work)
	}
	route := func(w http.ResponseWriter, r *http.Request) {
		handler, known := handlers[r.PathValue("action")]
		if !known || r.PathValue("id") == "" && appIDOf(r) == "" {
			s.unknown(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	}
	for _, pattern := range []string{"/{application}", "/applications/{id}"} {
		mux.HandleFunc(root+pattern, route)
		mux.HandleFunc(root+pattern+"/{action}", route)
	}
}

// appIDOf returns the client id in a path such as /applications(appId='...').
func appIDOf(r *http.Request) string {
	id, prefix := strings.CutPrefix(r.PathValue("application"), "applications(appId='")
	id, suffix := strings.CutSuffix(id, "')")
	if !prefix || !suffix {
		return ""
	}
	return id
}

// work checks the token and its permissions before the call does its work.
func (c applicationCall) work(x *exchange) answer {
	s, claims, refused := x.authenticate()
	known := !s.guest && (strings.EqualFold(appIDOf(x.r), s.clientID) || strings.EqualFold(x.r.PathValue("id"), s.objectID))
	switch {
	case refused != nil:
		return *refused
	case x.r.Method != c.method:
		return x.graphError(http.StatusMethodNotAllowed, "", "The call is a "+c.method+".")
	case c.privileged && !slices.Contains(claims.Roles, RoleOwnedBy):
		return x.insufficient()
	case !known:
		return x.graphError(http.StatusNotFound, "Request_ResourceNotFound", "The application does not exist.")
	case claims.AppID != s.clientID, c.privileged && !s.owned:
		return x.insufficient()
	default:
		return c.do(x, s)
	}
}

// insufficient does not say which permission is missing, because Graph does not.
func (x *exchange) insufficient() answer {
	return x.graphError(http.StatusForbidden, "Authorization_RequestDenied",
		"Insufficient privileges to complete the operation.")
}

// read decodes the body or returns Graph's refusal.
func (x *exchange) read(into any) *answer {
	decoder := json.NewDecoder(bytes.NewReader(x.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return x.badRequest("The body cannot be read.")
	}
	return nil
}

func (x *exchange) badRequest(message string) *answer {
	a := x.graphError(http.StatusBadRequest, "Request_BadRequest", message)
	return &a
}

// checkLifetime applies the tenant's policy.
func (x *exchange) checkLifetime(s settings, start, end time.Time) *answer {
	if s.maxCredentialLifetime == 0 || end.Sub(start) <= s.maxCredentialLifetime {
		return nil
	}
	a := x.graphError(http.StatusBadRequest, "CredentialInvalidLifetimeAsPerAppPolicy",
		"Credential lifetime exceeds the max value allowed as per assigned policy.")
	return &a
}

// object answers with a resource of the directory.
func (x *exchange) object(typeName string, fields map[string]any) answer {
	fields["@odata.context"] = x.graphRoot() + "/$metadata#" + typeName
	return answer{status: http.StatusOK, header: x.graphHeader(), body: fields}
}

func (x *exchange) noContent() answer {
	return answer{status: http.StatusNoContent, header: x.graphHeader()}
}

func getApplication(x *exchange, s settings) answer {
	fields := map[string]any{
		"id":          s.objectID,
		"appId":       s.clientID,
		"displayName": "simulated application",
	}
	passwords, keys := []any{}, []any{}
	for _, p := range s.passwords {
		if x.sim.listed(p.keyID) {
			passwords = append(passwords, p.json())
		}
	}
	for _, c := range s.certificates {
		if x.sim.listed(c.keyID) {
			keys = append(keys, c.json())
		}
	}
	fields["passwordCredentials"], fields["keyCredentials"] = passwords, keys

	selected := map[string]any{}
	for name := range strings.SplitSeq(x.r.URL.Query().Get("$select"), ",") {
		value, known := fields[name]
		switch {
		case known:
			selected[name] = value
		case name == "":
			selected = fields
		default:
			return *x.badRequest(fmt.Sprintf("Could not find a property named '%s'.", name))
		}
	}
	x.sim.perform(x.op)
	return x.object("applications/$entity", selected)
}

// json returns a secret as Graph shows it: without its value.
func (p password) json() map[string]any {
	return map[string]any{
		"customKeyIdentifier": nil,
		"displayName":         p.name,
		"endDateTime":         p.end.UTC(),
		"hint":                p.value[:min(3, len(p.value))],
		"keyId":               p.keyID,
		"secretText":          nil,
		"startDateTime":       p.start.UTC(),
	}
}

// json returns a certificate as Graph shows it.
func (c certificate) json() map[string]any {
	return map[string]any{
		"customKeyIdentifier": thumbprint(c.Certificate),
		"displayName":         "CN=" + c.Subject.CommonName,
		"endDateTime":         c.NotAfter.UTC(),
		"key":                 nil,
		"keyId":               c.keyID,
		"startDateTime":       c.NotBefore.UTC(),
		"type":                "AsymmetricX509Cert",
		"usage":               "Verify",
	}
}
