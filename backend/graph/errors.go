// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"errors"
	"fmt"
	"net/http"
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
	text := joined(": ", e.Op, string(e.Kind), e.Reason)
	if details := e.details(); details != "" {
		text += " (" + details + ")"
	}
	return text
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
