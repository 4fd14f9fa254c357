// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

var (
	// errUnconfigured is returned by whatever needs a configuration.
	errUnconfigured = errors.New("this mount is not configured: write tenant_id, client_id and a credential to its path config first, which is mdi/config for a mount at mdi")

	// errNotDue ends a regeneration whose reason has gone, or that was not made for
	// anybody who waits. It is never shown.
	errNotDue = errors.New("there is no need to regenerate the key")

	// errUnderWay is returned when work goes on that a request cannot wait for.
	errUnderWay = errors.New("Microsoft Graph has not answered in time; the work goes on, and repeating the request finds its result") //nolint:staticcheck // a name

	// errNotBegun is returned when other work has left a request no time.
	errNotBegun = errors.New("Microsoft Graph is slow, and other work with it came first: nothing has been changed, repeat the request") //nolint:staticcheck // a name

	// errConfigChanged is returned to a writer of the configuration whose fields make
	// something else of it by now than what was verified.
	errConfigChanged = errors.New("the configuration has been changed by other work meanwhile: nothing has been stored, repeat the request")

	errClosed = errors.New("this mount is being disabled or moved: its key is not handed out any more")

	errUnreadableRecord = errors.New("the stored key record cannot be decoded")
)

// fieldError is a request that somebody must change first.
type fieldError struct {
	field   string
	problem string // what is wrong and what is allowed, never the value
}

func (e *fieldError) Error() string { return e.field + ": " + e.problem }

// verificationError is a configuration that was refused because it does not work.
type verificationError struct{ err error }

func (e *verificationError) Error() string {
	return "nothing has been stored, because this configuration does not work (" +
		fieldVerifyConnection + "=false stores it nevertheless): " + explain(e.err) + e.whereToLook()
}

// whereToLook names the fields that decide where a request goes that nobody answered.
func (e *verificationError) whereToLook() string {
	remote, ok := errors.AsType[*graph.Error](e.err)
	if !ok || !remote.FoundNobody() {
		return ""
	}
	field := fieldGraphEndpoint
	if remote.Op == graph.OpSignIn {
		field = fieldAuthorityHost
	}
	return ": check " + field + ", " + fieldEnvironment + " and the proxy of the plugin's environment"
}

func (e *verificationError) Unwrap() error { return e.err }

// unsettledError says that it cannot be told yet whether a regeneration has been
// carried out, so that no key can be handed out.
type unsettledError struct {
	age    time.Duration
	until  time.Time // when the regeneration can be repeated; zero: it can be by now
	reason error     // may be nil
}

func unsettled(i *intent, now time.Time, reason error) *unsettledError {
	e := &unsettledError{age: max(0, now.Sub(i.StartedAt)), reason: reason}
	if i.Deadline.After(now) {
		e.until = i.Deadline
	}
	return e
}

func (e *unsettledError) Error() string {
	settled := "as soon as Graph answers"
	if !e.until.IsZero() {
		settled = "by " + timestamp(e.until) + " at the latest if Graph answers"
	}
	text := fmt.Sprintf("a regeneration began %s ago, and whether Graph has made a new key is not known yet, so none is handed out; try again: it is settled %s",
		e.age.Round(time.Second), settled)
	if e.reason != nil {
		text += ": " + explain(e.reason)
	}
	return text
}

func (e *unsettledError) Unwrap() error { return e.reason }

// throttledError says that Graph has asked to be left alone.
type throttledError struct{ until time.Time }

func (e *throttledError) Error() string {
	return "Microsoft Graph has asked to be left alone until " + timestamp(e.until) + ", and this request needs it"
}

// explain adds to an error of Entra or Graph what to do about it.
func explain(err error) string {
	var remote *graph.Error
	if errors.As(err, &remote) && remote.Hint() != "" {
		return err.Error() + ": " + remote.Hint()
	}
	return err.Error()
}

// refusal turns an error into the answer for the client. It is 400 where somebody
// must change something first; never 401 or 403, which clients of Vault take for
// their own token's; 502 or 503 where repeating is harmless. The errors are
// returned naked, since core looks at no wrapped one.
func refusal(err error) error {
	var (
		field   *fieldError
		pending *unsettledError
		later   *throttledError
		remote  *graph.Error
		refused *graph.ConfigError
	)
	switch {
	case errors.As(err, &field), errors.As(err, &refused), errors.Is(err, errUnconfigured):
		return logical.CodedError(http.StatusBadRequest, err.Error())
	case errors.As(err, &pending), errors.As(err, &later), errors.Is(err, errUnderWay), errors.Is(err, errNotBegun), errors.Is(err, errConfigChanged), errors.Is(err, errClosed), errors.Is(err, context.DeadlineExceeded):
		return logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case errors.As(err, &remote):
		return logical.CodedError(statusFor(remote), explainOnce(err))
	default:
		return err
	}
}

// explainOnce is explain with advice, for an error that may have explained itself.
func explainOnce(err error) string {
	var verification *verificationError
	if errors.As(err, &verification) {
		return err.Error()
	}
	return explain(err) + advice(err)
}

// advice says what a failure that passes means for the one who asked: nothing but to
// ask again. What may have been carried out is an *unsettledError, so a regeneration
// that failed in another way has left the key alone.
func advice(err error) string {
	remote, ok := errors.AsType[*graph.Error](err)
	switch {
	case !ok, statusFor(remote) == http.StatusBadRequest:
		return ""
	case remote.Op == graph.OpRegenerate:
		return ": the key has not been changed; try again"
	default:
		return ": try again"
	}
}

// statusFor returns the status for a failure of Entra or Graph.
func statusFor(e *graph.Error) int {
	switch {
	case e.Kind == graph.Refused:
		return http.StatusBadRequest
	case e.Kind == graph.Throttled, e.Kind == graph.Timeout, e.Status == 0, e.Status == http.StatusServiceUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadGateway
	}
}
