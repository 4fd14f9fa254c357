// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The values of Error.Op. Graph's calls keep Graph's names.
const (
	OpSignIn         = "sign-in"
	OpRegenerate     = "regenerateDeploymentAccessKey"
	OpGet            = "getDeploymentAccessKey"
	OpPackage        = "getDeploymentPackageUri"
	OpAddPassword    = "addPassword"
	OpRemovePassword = "removePassword"
	OpAddKey         = "addKey"
	OpRemoveKey      = "removeKey"
	OpApplication    = "application" // GET of the app registration
)

// Kind says what a failure means for the caller.
type Kind string

// The kinds of failure.
const (
	Refused     Kind = "refused"     // 4xx or a redirect: something must be changed first
	Throttled   Kind = "throttled"   // 429: too many requests, see RetryAfter
	Unavailable Kind = "unavailable" // 5xx, 408, 410 (of Azure: being updated), not reachable, or the connection was lost
	Timeout     Kind = "timeout"     // no answer within the time allowed
	Unreadable  Kind = "unreadable"  // an answer that could not be understood
)

// Error is a failed sign-in or Graph call. It wraps nothing and carries no text from the
// other side, since MSAL's errors and the bodies of answers can contain secrets. It
// holds a status, a checked code and id, and sentences of this package.
type Error struct {
	Op         string        // OpSignIn or a call of Graph
	Kind       Kind          // what the failure means
	Status     int           // HTTP status, 0 if no answer came
	Code       string        // Graph's error code or Entra's ("AADSTS7000215"), if it sent a plausible one
	RequestID  string        // what Microsoft's support asks for: Graph's request-id, Entra's correlation id
	RetryAfter time.Duration // how long the other side asked to wait; 0 if it did not; 24 h at most
	Reason     string        // a sentence of this package if the status does not say it all
	// Signed says that Graph itself has answered, and no proxy on the way: the answer has
	// a GUID as its request-id, and Graph's error code or the request's own
	// client-request-id.
	Signed bool

	// unsent is set only if it is proven that no complete request was sent, such as for lack
	// of a credential.
	unsent bool
	// managed is set if the client signs in as a managed identity.
	managed bool
	// keyless is set if both versions of Graph's API answer the call with a 404.
	keyless bool
}

// Error returns the fields as one line.
func (e *Error) Error() string {
	return joined(" ", joined(": ", e.Op, string(e.Kind), e.Reason), known("(%s)", e.details()))
}

func (e *Error) details() string {
	return joined(", ", known("HTTP %d", e.Status), known("code %s", e.Code), known("request-id %s", e.RequestID), known("retry after %s", e.RetryAfter))
}

// known formats a value, unless it is zero.
func known[V comparable](format string, value V) string {
	if value == *new(V) {
		return ""
	}
	return fmt.Sprintf(format, value)
}

// MayHaveHappened reports whether Graph may have carried out the request although the
// call failed. It is false only if the opposite is proven: no complete request was sent,
// or Graph itself has refused it (see Signed). A 503 is a refusal ("try again"); other 5xx
// can come from a gateway whose backend did the work, as can a 408. A 409 can come from a
// repetition, unless it says that the app registration was being changed.
func (e *Error) MayHaveHappened() bool {
	switch {
	case e.Op == OpSignIn, e.unsent:
		return false
	case !e.Signed, e.Status == http.StatusRequestTimeout:
		return true
	case e.Status == http.StatusConflict:
		return !e.replaces() || e.Code != codeConcurrency
	default:
		return (e.Status < 400 || e.Status >= 500) && e.Status != http.StatusServiceUnavailable
	}
}

// FoundNobody reports whether a request to Entra or Graph got no answer that could be
// theirs: it may have gone to the wrong address or through the wrong proxy. Requests for
// a managed identity's token do not count: they go to the machine itself. Nor do those
// whose reason says what to do.
func (e *Error) FoundNobody() bool {
	local := e.Op == OpSignIn && (e.managed || e.unsent)
	return e.Status == 0 && !local && !strings.Contains(e.Reason, ": ")
}

// NamesNoKey reports whether Graph itself answered that there is no key: with a 404 at both
// versions of its API, or with a well-formed answer that contains none.
func (e *Error) NamesNoKey() bool {
	return e.Op == OpGet && e.Signed && (e.keyless || e.Reason == reasonNoKey)
}

// foreign reports whether an answer is neither Entra's nor Graph's, but that of a proxy, or
// of another server.
func (e *Error) foreign() bool {
	return e.Status != 0 && !e.Signed && (e.Op != OpSignIn || e.Code == "") && (e.Kind == Refused || e.Reason == reasonUnreadable)
}

// kindOf classifies the status of a failed request.
func kindOf(status int) Kind {
	switch {
	case status == http.StatusTooManyRequests:
		return Throttled
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusGone:
		return Unavailable
	case status >= 300:
		return Refused
	}
	return Unreadable
}

// Application permissions of Microsoft Graph.
const (
	// Permission is what both calls for the key need. getDeploymentAccessKey has no
	// read-only one.
	Permission = "SecurityIdentitiesSensors.ReadWrite.All"
	// PackagePermission is what getDeploymentPackageUri needs.
	PackagePermission = "SecurityIdentitiesSensors.Read.All"
	// ApplicationPermission lets an application replace its own client secret if it is
	// also an owner of itself.
	ApplicationPermission = "Application.ReadWrite.OwnedBy"
)

const (
	hintForeign    = "this answer is not Microsoft's own: have the proxy, firewall or gateway on the way pass requests on unchanged, and check graph_endpoint and authority_host if they are set"
	hintOtherCloud = "the tenant lives in another cloud: check tenant_id, environment and authority_host, which belong together"
	hintFederation = "the app registration has no federated credential for the token that was presented: compare its issuer, subject and audience with the token's, letter by letter"

	// codeBadProof is Graph's documented answer to a bad proof for addKey. For calls
	// without a proof it means a bad access token.
	codeBadProof = "Authentication_MissingOrMalformed"
)

// codeHints are for people: nothing in this package branches on these codes. Entra's are
// those of the sign-in, Graph's those of calls that replace credentials.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
var codeHints = map[string]string{
	"AADSTS7000215": "the client secret is wrong: check that it is the secret's value and not its id, and that it belongs to this app registration",
	"AADSTS7000213": "the chain of the certificate is not valid: client_certificate has to hold the certificate and each of its issuers, up to the one that the app registration trusts",
	"AADSTS7000222": "the client secret has expired: add a new one to the app registration and configure it",
	"AADSTS700016":  "the tenant does not know this application: check client_id and tenant_id, and that an administrator has consented to the application",
	"AADSTS7000112": "the application is disabled: enable it under Enterprise applications, or find out why it was disabled",
	"AADSTS7000229": "the application has no service principal in the tenant: an administrator has to consent to it first",
	"AADSTS90002":   "the tenant was not found: check tenant_id, and that the environment is the cloud the tenant lives in",
	"AADSTS90038":   hintOtherCloud,
	"AADSTS900382":  hintOtherCloud,
	"AADSTS900439":  hintOtherCloud,
	"AADSTS500011":  "the tenant does not know Microsoft Graph under the name of this cloud: check that the environment is the cloud the tenant lives in",
	"AADSTS53003":   "a conditional access policy blocks the application: exclude it, or allow the address it comes from",

	"AADSTS700027": "the client assertion was not accepted: check that the certificate is registered with the application and has not expired",
	"AADSTS700024": "the client assertion is not valid at this time: check the clock of this machine, and that the token or certificate behind it has not expired",
	"AADSTS700021": "the client assertion is for another application: check client_id",
	"AADSTS700023": "the client assertion is for another audience: check that the environment and authority_host belong to the tenant's cloud",
	"AADSTS700030": "the certificate's subject or issuer is not one that the app registration trusts",
	"AADSTS50013":  "the signature of the client assertion could not be verified: check that its issuer publishes the key it signs with",

	"AADSTS70021":  hintFederation,
	"AADSTS700211": hintFederation,
	"AADSTS700212": hintFederation,
	"AADSTS700213": hintFederation,

	// Refusals by the tenant's app management policy.
	// https://learn.microsoft.com/graph/api/resources/applicationauthenticationmethodpolicy
	"CredentialInvalidLifetimeAsPerAppPolicy": "a policy of the tenant does not allow a credential to be valid for so long: shorten the validity, or exempt the application",
	"CredentialTypeNotAllowedAsPerAppPolicy":  "a policy of the tenant does not allow this kind of credential: use another, or exempt the application",
}

// Hint returns a sentence that tells the operator what to do about the failure, or "" if
// this package knows nothing better than the error itself.
func (e *Error) Hint() string {
	switch {
	case e.Op == OpSignIn && e.managed:
		return e.managedHint()
	case e.foreign():
		return hintForeign
	case e.Op == OpSignIn, e.replaces() && codeHints[e.Code] != "":
		return codeHints[e.Code]
	case e.keyless:
		return "Graph knows no key of this tenant: it may have no Defender for Identity workspace, or no key yet"
	case !e.replaces() && (e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest):
		// There are no parameters that could be wrong.
		return "Graph may not offer this call at the configured graph_api_version: try the other one, " + V1 + " or " + Beta
	case e.Status == http.StatusNotFound && e.Signed:
		// The tenant knows the application, since the sign-in went well.
		return "the tenant has no such app registration: that of a multi-tenant app lives in the app's home tenant alone, so replace its credential there and configure the new one here; otherwise check client_id and application_object_id"
	case (e.Op == OpAddKey || e.Op == OpRemoveKey) && (e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized && e.Code == codeBadProof):
		return "Graph did not accept the proof: check that the certificate that signed it is registered with the application and valid now, and check the clock of this machine"
	case e.Status == http.StatusUnauthorized && e.managed:
		return "Graph did not accept the access token: check that the environment and graph_endpoint belong to the same cloud"
	case e.Status == http.StatusUnauthorized:
		return "Graph did not accept the access token: check that the environment, graph_endpoint and authority_host belong to the same cloud"
	case e.Status == http.StatusForbidden:
		return e.forbiddenHint()
	}
	return ""
}

func (e *Error) managedHint() string {
	switch {
	case e.Kind == Unreadable, e.Kind == Refused && e.Reason != "": // which says it all
		return ""
	case e.Kind == Refused:
		return "the managed identity was refused: check that it is assigned to this machine or service, and that client_id is the client id of a user-assigned identity"
	case e.Status == 0:
		return "no managed identity endpoint can be reached: managed_identity works only on Azure, on a machine or service that has an identity"
	}
	return "the endpoint that issues the managed identity's tokens is being updated or overloaded, which can take 70 seconds"
}

func (e *Error) forbiddenHint() string {
	permission, more := Permission, ""
	switch {
	case e.Op == OpPackage:
		permission = PackagePermission
	case e.replaces():
		permission = ApplicationPermission
		more = ", and make the application an owner of itself; an app that is registered in another tenant can only be given a new credential there"
	}
	return "Graph denies the call, which needs a permission: " + grantHint(permission, e.managed) + more
}

// GrantHint says how to grant an application permission to the identity that the client
// signs in as.
func (c *Client) GrantHint(permission string) string { return grantHint(permission, c.managed) }

func grantHint(permission string, managed bool) string {
	if managed {
		return "assign the app role " + permission + " of Microsoft Graph to the managed identity's service principal, since there is no app registration; Azure can keep using an older token for up to a day"
	}
	return "give the app registration the application permission " + permission + " and grant admin consent for it; this can take minutes to take effect"
}

// replaces reports whether the call is about the application's own credentials.
func (e *Error) replaces() bool {
	return slices.Contains([]string{OpAddPassword, OpRemovePassword, OpAddKey, OpRemoveKey, OpApplication}, e.Op)
}

// Explain returns the text of err. If there is an [Error] in its chain, that begins with the
// cause and what to do about it; what Microsoft's support asks for is behind.
func Explain(err error) string {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Reason == "" && e.Hint() == "" {
		return err.Error()
	}
	cause := joined(": ", e.Reason, e.Hint())
	return strings.Replace(err.Error(), e.Error(), cause+" ("+joined(", ", e.Op+": "+string(e.Kind), e.details())+")", 1)
}

// joined joins the texts that are not empty.
func joined(separator string, texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), separator)
}

// ConfigError says why New cannot use a Config.
type ConfigError struct {
	Field   string // by its name in the engine's configuration: tenant_id, ca_certificate, ...
	Problem string // what is wrong with it, never its value
}

// Error names the field and the problem.
func (e *ConfigError) Error() string { return e.Field + " " + e.Problem }

// LogArgs returns the arguments of a log line about err: the error, more, and, if there
// is an [Error] in its chain, the code and the id by which Microsoft can find the
// request.
func LogArgs(err error, more ...any) []any {
	args := append([]any{"error", err}, more...)
	if e, ok := errors.AsType[*Error](err); ok {
		args = append(args, "code", e.Code, "graph_request_id", e.RequestID)
	}
	return args
}
