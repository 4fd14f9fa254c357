// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What an Error's Op can be. The names of the calls are Graph's own.
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

// Kind says what a failure means for whoever has to deal with it.
type Kind string

// The kinds of failure.
const (
	Refused     Kind = "refused"     // 4xx or a redirect: somebody must change something first
	Throttled   Kind = "throttled"   // 429: too many requests, see RetryAfter
	Unavailable Kind = "unavailable" // 5xx, not reachable, or the connection was lost
	Timeout     Kind = "timeout"     // no answer within the time allowed
	Unreadable  Kind = "unreadable"  // an answer that could not be understood
)

// Error is a failed sign-in or Graph call. It wraps nothing and carries no text
// of the other side, since both MSAL's errors and the bodies of answers can
// contain secrets: what it says is a status, a checked code and id, and
// sentences of this package.
type Error struct {
	Op         string        // OpSignIn or a call of Graph
	Kind       Kind          // what the failure means
	Status     int           // HTTP status, 0 if no answer came
	Code       string        // Graph's error code or Entra's ("AADSTS7000215"), if it sent a plausible one
	RequestID  string        // what Microsoft's support asks for: Graph's request-id, Entra's correlation id
	RetryAfter time.Duration // how long the other side asked to be left alone; 0: it did not; 24 h at most
	Reason     string        // a sentence of this package where the status does not say it all

	// unsent is set only where it is proven that no complete request left.
	unsent bool
	// managed is set where a managed identity signs in, or has signed in.
	managed bool
	// local is set where it failed before anything was sent: there was no
	// credential to send.
	local bool
}

// Error puts the fields into one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Op, e.Kind)
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	var details []string
	if e.Status != 0 {
		details = append(details, fmt.Sprintf("HTTP %d", e.Status))
	}
	if e.Code != "" {
		details = append(details, "code "+e.Code)
	}
	if e.RequestID != "" {
		details = append(details, "request-id "+e.RequestID)
	}
	if e.RetryAfter > 0 {
		details = append(details, fmt.Sprintf("retry after %s", e.RetryAfter))
	}
	if len(details) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(details, ", "))
	}
	return b.String()
}

// MayHaveHappened tells whether Graph may have carried out the request although
// the call failed. It is false only where the opposite is proven: no complete
// request was sent, or Graph declined it. A 503 is such a refusal ("try
// again"); the other 5xx can come from a gateway whose backend did the work.
func (e *Error) MayHaveHappened() bool {
	switch {
	case e.Op == OpSignIn, e.unsent:
		return false
	case e.Status >= 300 && e.Status < 500, e.Status == http.StatusServiceUnavailable:
		return false
	}
	return true
}

// FoundNobody tells whether a request that was sent to Entra or Graph has met nobody
// who answers as they do: then it may have been sent to the wrong place, or through
// the wrong proxy. A managed identity asks its own machine instead of Entra.
func (e *Error) FoundNobody() bool {
	ownMachine := e.managed && e.Op == OpSignIn
	return e.Status == 0 && !e.local && !ownMachine
}

// NamesNoKey tells whether Graph has answered that there is no key: by a 404, or by
// an orderly answer without one.
func (e *Error) NamesNoKey() bool {
	return e.Op == OpGet && (e.Status == http.StatusNotFound || e.Reason == reasonNoKey)
}

// kindOf classifies the status of an answer that is not a success.
func kindOf(status int) Kind {
	switch {
	case status == http.StatusTooManyRequests:
		return Throttled
	case status >= 500, status == http.StatusRequestTimeout:
		return Unavailable
	case status >= 300:
		return Refused
	}
	return Unreadable
}

// ConfigError is a Config that New cannot work with.
type ConfigError struct {
	Field   string // the field as an operator knows it: tenant_id, ca_certificate, ...
	Problem string // what is wrong with it, never its value
}

// Error names the field and the problem.
func (e *ConfigError) Error() string { return e.Field + " " + e.Problem }
