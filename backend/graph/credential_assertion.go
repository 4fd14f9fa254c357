// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// ClientAssertion returns a JWT from an issuer for which the app registration has a
// federated credential: the content of a workload identity's token file, or an identity
// token of Vault. It is called for each request to Entra, possibly by several goroutines
// at once, and its context ends with the sign-in.
//
// Its errors are never shown, since they may quote the assertion. Wrap an
// [AssertionError] to say what went wrong.
type ClientAssertion func(ctx context.Context) (string, error)

// AssertionError is an error of a [ClientAssertion] that may be shown.
type AssertionError struct {
	Kind   Kind   // what it means for the sign-in; Refused if empty
	Reason string // a sentence without secrets
}

// Error returns the reason.
func (e *AssertionError) Error() string { return e.Reason }

// Format implements fmt.Formatter.
func (ClientAssertion) Format(f fmt.State, _ rune) { redact(f) }

// String is for direct callers; package fmt uses Format.
func (ClientAssertion) String() string { return redacted }

// MarshalText makes it encodable as JSON, which a func is not.
func (ClientAssertion) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (a ClientAssertion) issuers(cfg *Config, client *http.Client) (func() (issuer, error), error) {
	if a == nil {
		return nil, &ConfigError{"credential_type", "needs a source of client assertions"}
	}
	cred := confidential.NewCredFromAssertionCallback(
		func(ctx context.Context, _ confidential.AssertionRequestOptions) (string, error) {
			return a.checked(ctx)
		})
	return signIns(cfg, cred, client), nil
}

// checked returns an assertion or an *Error.
func (a ClientAssertion) checked(ctx context.Context) (string, error) {
	assertion, err := a(ctx)
	e := &Error{Op: OpSignIn, Kind: Refused, Reason: reasonNoAssertion}
	said, ok := errors.AsType[*AssertionError](err)
	switch {
	case err == nil && assertion != "":
		return assertion, nil
	case err == nil:
		e.Reason = reasonEmptyAssertion
	case ok:
		e.Kind, e.Reason = cmp.Or(said.Kind, Refused), said.Reason
	case ctx.Err() != nil:
		e = interrupted(ctx, OpSignIn)
	}
	e.local = true
	return "", e
}
