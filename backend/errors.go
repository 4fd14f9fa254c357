// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
)

// repeatable are errors that repeating the request may cure.
var repeatable = []error{
	flight.ErrUnderWay, flight.ErrNotBegun, config.ErrChanged, rotation.ErrUnconfirmed,
	accesskey.ErrClosed, accesskey.ErrTurning, accesskey.ErrInDoubt, context.DeadlineExceeded,
}

// refusal turns an error into the answer for the client. It is 400 for what the client has
// to change first; never 401 or 403, which clients of Vault take for their own token's;
// 502 or 503 where repeating is harmless. The errors are returned naked, since core looks
// at no wrapped one.
func refusal(err error) error {
	remote, isRemote := errors.AsType[*graph.Error](err)
	switch {
	case has[*field.Error](err), has[*graph.ConfigError](err), errors.Is(err, config.ErrUnconfigured):
		return logical.CodedError(http.StatusBadRequest, err.Error())
	case has[*rotation.UnsettledError](err), has[*health.ThrottledError](err), slices.ContainsFunc(repeatable, func(target error) bool { return errors.Is(err, target) }):
		return logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case !isRemote:
		return err
	case has[*health.HeldError](err) && remote.MayHaveHappened(): // the failure for which readers have to wait
		return logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case has[*health.HeldError](err), has[*config.VerificationError](err): // which have explained themselves
		return logical.CodedError(statusFor(remote), err.Error())
	default:
		return logical.CodedError(statusFor(remote), graph.Explain(err)+advice(remote))
	}
}

// has reports whether there is an E in the chain of err.
func has[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// advice says what a failure that passes means for the client: nothing but to try again.
// What may have been carried out is an UnsettledError, so a regeneration that failed in
// another way has left the key alone.
func advice(remote *graph.Error) string {
	switch {
	case statusFor(remote) == http.StatusBadRequest:
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
	case e.Kind == graph.Throttled, e.Kind == graph.Timeout, e.Status == 0, e.Status == http.StatusServiceUnavailable, e.Status == http.StatusGone:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadGateway
	}
}
