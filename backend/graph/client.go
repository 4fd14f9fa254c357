// SPDX-License-Identifier: MPL-2.0

// Package graph signs in to Entra ID as an application. It makes the Microsoft Graph
// calls for the Defender for Identity sensor deployment access key, and those that
// replace the application's own credential.
//
// A regeneration destroys the previous key, and Graph offers no way to repeat one
// safely. So the package's main concern is what is known after a failure: every
// [Error] says whether Graph may have carried out the request, and a regeneration is
// repeated only if Graph has provably not carried it out. The other concern is
// secrecy: answers, tokens and the errors of other libraries can contain secrets, so
// only statuses and checked codes and ids get into errors and log lines.
//
// MSAL signs in, behind a small interface, since the kinds of [Credential] sign in
// differently. With each kind, callers that need a token at the same time share one
// sign-in.
package graph

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Client calls Graph for one application in one tenant. It is safe for concurrent
// use. Reuse it: it caches its access token.
type Client struct {
	// sensors and elsewhere are the URLs of the sensors' calls at the configured version of
	// the API and at the other.
	sensors, elsewhere string

	http   *http.Client
	tokens *tokenSource
	retry  retrier
	// managed is set for a managed identity. It has no app registration, so the advice
	// about a refusal differs.
	managed     bool
	certificate ClientCertificate // that signs in, if one does

	applications string // URL of the app registrations, always in v1.0
	app          string // URL of the client's own app registration
}

// New returns a Client for cfg and sends nothing. Its error is a *ConfigError.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, err := newHTTPClient(&cfg)
	if err != nil {
		return nil, err
	}
	newIssuer, err := cfg.Credential.issuers(&cfg, client)
	if err != nil {
		return nil, err
	}
	_, managed := cfg.Credential.(ManagedIdentity)
	tokens, err := newTokenSource(newIssuer, managed)
	if err != nil {
		return nil, err
	}
	certificate, _ := cfg.Credential.(ClientCertificate)
	root := cmp.Or(cfg.GraphEndpoint, cfg.Cloud.GraphRoot)
	applications := root + "/" + V1 + "/applications"
	return &Client{
		sensors:      root + "/" + cfg.APIVersion + sensors,
		elsewhere:    root + "/" + map[string]string{Beta: V1, V1: Beta}[cfg.APIVersion] + sensors,
		http:         client,
		tokens:       tokens,
		retry:        retrier{Sleep},
		managed:      managed,
		certificate:  certificate,
		applications: applications,
		app:          applications + "(appId='" + cfg.ClientID + "')",
	}, nil
}

// SignIn makes sure that there is an access token, so that the next call goes straight
// to Graph. The token may be from an earlier call.
func (c *Client) SignIn(ctx context.Context) error {
	_, err := c.tokens.token(ctx)
	return err
}

// operation is a Graph call.
type operation struct {
	name       string
	method     string
	url        string
	body       []byte // JSON; nil for none
	idempotent bool   // whether repeating it is harmless
	only200    bool   // whether no other status is a success
	// before, if any, has to succeed before anything is sent. It can be called repeatedly,
	// and returns what the first call did.
	before func() error
}

// betweenPOSTs is the shortest time between two requests that change something.
const betweenPOSTs = time.Second

// call makes a Graph call and passes the body of the answer to parse, which returns a
// reason if it cannot use the body.
//
// The error is an *Error, or the context's own if the context had ended before Graph
// could do anything.
func (c *Client) call(ctx context.Context, op operation, parse func(body []byte) (reason string)) error {
	t, err := c.tokens.token(ctx)
	if err != nil {
		return err
	}
	err = c.callWith(ctx, t, op, parse)
	refused, ok := errors.AsType[*unauthorized](err)
	if !ok {
		return err
	}
	// Entra may have revoked the token early, or Graph demands more claims. The call is
	// repeated once with a new token, if that is harmless.
	if !op.idempotent && (refused.refusal.MayHaveHappened() || c.retry.sleep(ctx, betweenPOSTs) != nil) {
		return refused.refusal
	}
	c.tokens.drop(t, refused.claims)
	if t, err = c.tokens.token(ctx); err != nil {
		return err
	}
	err = c.callWith(ctx, t, op, parse)
	if refused, ok = errors.AsType[*unauthorized](err); ok {
		return refused.refusal
	}
	return err
}

// decode returns a function that reads the body of an answer as JSON. If the answer is not
// complete, missing says what it lacks.
func decode(answer any, missing string, complete func() bool) func(body []byte) (reason string) {
	return func(body []byte) string {
		switch {
		case json.Unmarshal(body, answer) != nil:
			return reasonUnreadable
		case !complete():
			return missing
		}
		return ""
	}
}

func (c *Client) callWith(ctx context.Context, t token, op operation, parse func([]byte) string) error {
	return c.retry.do(ctx, op.idempotent, func(ctx context.Context) error {
		return c.attempt(ctx, t, op, parse)
	})
}

// attempt sends the request once.
func (c *Client) attempt(ctx context.Context, t token, op operation, parse func([]byte) string) error {
	// The hook runs before the last bytes of the request are sent, so while sent is
	// false, Graph has not seen a complete request. When Do returns, either the hook
	// has run or the connection is closed.
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	if op.before != nil {
		go op.before() //nolint:errcheck // the calls below return the same
		trace.GotConn = func(got httptrace.GotConnInfo) {
			if op.before() != nil {
				_ = got.Conn.Close() // nothing can be sent any longer
			}
		}
	}
	resp, err := c.send(httptrace.WithClientTrace(ctx, trace), t, op)
	if err != nil && op.before != nil && op.before() != nil {
		return op.before()
	}
	if err != nil {
		e := failure(ctx, op.name, err)
		e.unsent, e.managed = !sent.Load(), c.managed
		return e
	}
	return c.answer(ctx, op, resp, parse)
}

func (c *Client) send(ctx context.Context, t token, op operation) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, op.method, op.url, bytes.NewReader(op.body))
	if err != nil {
		return nil, err
	}
	if op.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+t.bearer)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cache-Control", "no-cache, no-store") // an old key would be taken for the tenant's
	req.Header.Set(headerClientRequestID, uuid.NewString())
	return c.http.Do(req)
}

// answer reads what Graph sent and returns an error unless it is a usable success.
func (c *Client) answer(ctx context.Context, op operation, resp *http.Response, parse func([]byte) string) error {
	answered(ctx, requestID(resp.Header))
	body, err := io.ReadAll(resp.Body)
	// The body has been read to its end, or cannot be.
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 || op.only200 && resp.StatusCode != http.StatusOK {
		// The status decides, even if the body could not be read.
		e := graphError(op.name, resp, body)
		e.managed = c.managed
		if resp.StatusCode == http.StatusUnauthorized {
			return &unauthorized{e, challengedClaims(resp.Header)}
		}
		return e
	}
	var e *Error
	if err != nil {
		e = failure(ctx, op.name, err)
	} else if reason := parse(body); reason != "" {
		e = &Error{Op: op.name, Kind: Unreadable, Reason: reason}
	} else {
		return nil
	}
	e.Status, e.RequestID, e.managed, e.Signed = resp.StatusCode, requestID(resp.Header), c.managed, signed(resp, "")
	return e
}

// probeBudget is how long Graph has to answer a probe.
const probeBudget = 5 * time.Second

// Probe reports whether Graph answers in an orderly way. It sends a request without
// a token, which Graph must refuse: that costs neither a sign-in nor an entry in the
// tenant's audit log, so it can be repeated often during an outage. It does not
// promise that a call will succeed.
func (c *Client) Probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeBudget)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.sensors+OpGet, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // unread, since only the status matters
	return resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
}
