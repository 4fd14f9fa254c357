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
	"math/rand/v2"
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

	applications string // URL of the app registrations, always in v1.0
	app          string // URL of the client's own app registration

	http  *http.Client
	sleep func(context.Context, time.Duration) error
	// prove returns a proof of possession of the certificate that signs in, if one does.
	prove func(objectID string) (string, error)
	// managed is set for a managed identity. It has no app registration, so the advice
	// about a refusal differs.
	managed   bool
	newIssuer func() (issuer, error)
	session   atomic.Pointer[session]
}

// New returns a Client for cfg and sends nothing. Its error is a *ConfigError.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	extra, err := ParseCertificates(cfg.CACertificates)
	if len(extra) == 0 && err != nil { // earlier versions stored texts with a damaged block
		return nil, &ConfigError{"ca_certificate", err.Error()}
	}
	client := newHTTPClient(cfg.UserAgent, extra, false)
	root := cmp.Or(cfg.GraphEndpoint, cfg.Cloud.GraphRoot)
	applications := root + "/" + V1 + "/applications"
	certificate, _ := cfg.Credential.(ClientCertificate)
	c := &Client{
		sensors:      root + "/" + cfg.APIVersion + sensors,
		elsewhere:    root + "/" + map[string]string{Beta: V1, V1: Beta}[cfg.APIVersion] + sensors,
		applications: applications,
		app:          applications + "(appId='" + cfg.ClientID + "')",
		http:         client,
		sleep:        Sleep,
		prove:        func(objectID string) (string, error) { return proofOfPossession(certificate, objectID, time.Now()) },
		newIssuer:    func() (issuer, error) { return cfg.Credential.issuer(&cfg, client) },
	}
	_, c.managed = cfg.Credential.(ManagedIdentity)
	if err := c.renew(nil, ""); err != nil {
		return nil, err
	}
	return c, nil
}

// SignIn makes sure that there is an access token, so that the next call goes straight
// to Graph. The token may be from an earlier call.
func (c *Client) SignIn(ctx context.Context) error {
	_, _, err := c.token(ctx)
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

// call makes a Graph call and passes the body of the answer to parse, which returns a
// reason if it cannot use the body. It returns the header of the answer.
//
// The error is an *Error, or the context's own if the context had ended before Graph
// could do anything.
func (c *Client) call(ctx context.Context, op operation, parse func(body []byte) (reason string)) (header http.Header, err error) {
	for repeated := false; ; repeated = true {
		bearer, from, err := c.token(ctx)
		if err != nil {
			return nil, err
		}
		err = c.retry(ctx, op.name, op.idempotent, func() (err error) {
			header, err = c.attempt(ctx, bearer, op, parse)
			return err
		})
		// Entra may have revoked the token early, or Graph demands more claims. The call is
		// repeated once with a new token, if that is harmless.
		refusal, ok := errors.AsType[*Error](err)
		if repeated || !ok || refusal.Status != http.StatusUnauthorized ||
			!op.idempotent && (refusal.MayHaveHappened() || c.sleep(ctx, betweenPOSTs) != nil) {
			return header, err
		}
		_ = c.renew(from, challengedClaims(header)) // it has succeeded before
	}
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

// attempt sends the request once.
func (c *Client) attempt(ctx context.Context, bearer string, op operation, parse func([]byte) string) (http.Header, error) {
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
	resp, err := c.http.Do(newRequest(httptrace.WithClientTrace(ctx, trace), bearer, op))
	if err != nil && op.before != nil && op.before() != nil {
		return nil, op.before()
	}
	if err != nil {
		e := failure(ctx, err)
		e.unsent = !sent.Load()
		return nil, e
	}
	return resp.Header, op.answer(ctx, resp, parse)
}

func newRequest(ctx context.Context, bearer string, op operation) *http.Request {
	req, _ := http.NewRequestWithContext(ctx, op.method, op.url, bytes.NewReader(op.body)) // never fails: the parts of the URL are checked
	if op.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cache-Control", "no-cache, no-store") // an old key would be taken for the tenant's
	req.Header.Set(headerClientRequestID, uuid.NewString())
	return req
}

// answer reads what Graph sent and returns an error unless it is a usable success.
func (op operation) answer(ctx context.Context, resp *http.Response, parse func([]byte) string) error {
	body, err := io.ReadAll(resp.Body)
	// The body has been read to its end, or cannot be.
	_ = resp.Body.Close()
	e := &Error{Kind: Unreadable, Status: resp.StatusCode, RequestID: requestID(resp.Header), Signed: signed(resp, "")}
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299 || op.only200 && resp.StatusCode != http.StatusOK:
		e = graphError(resp, body) // the status decides, even if the body could not be read
	case err != nil:
		lost := failure(ctx, err)
		e.Kind, e.Reason = lost.Kind, lost.Reason
	default:
		if e.Reason = parse(body); e.Reason == "" {
			return nil
		}
	}
	return e
}

// Probe reports whether Graph answers in an orderly way. It sends a request without
// a token, which Graph must refuse: that costs neither a sign-in nor an entry in the
// tenant's audit log, so it can be repeated often during an outage. It does not
// promise that a call will succeed.
func (c *Client) Probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, c.sensors+OpGet, http.NoBody) // never fails, like newRequest
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // unread, since only the status matters
	return resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
}

const (
	// betweenPOSTs is the shortest time between two requests that change something.
	betweenPOSTs   = time.Second
	maxRepetitions = 2
	// maxWait is the longest wait before a repetition. If the other side asks for more,
	// the call fails at once instead of blocking its caller.
	maxWait = 5 * time.Second
	// codeConcurrency comes with a 409 if two requests changed the same directory object,
	// such as an app registration, at once: Graph has not carried out this one.
	codeConcurrency = "Directory_ConcurrencyViolation"
)

// retry runs attempt until it succeeds or must not be repeated, and returns its last error,
// even if the context ends during a wait: the attempt's error says more. Idempotent
// attempts are repeated after more kinds of failure. What they attempt, op, becomes that of
// the error.
func (c *Client) retry(ctx context.Context, op string, idempotent bool, attempt func() error) error {
	var answered error // by the attempt before
	for n := 0; ; n++ {
		err := attempt()
		e, ok := errors.AsType[*Error](err)
		if ok {
			e.Op, e.managed = op, c.managed
		}
		if idempotent && answered != nil && ctx.Err() != nil {
			return answered // which says more than that time is up
		}
		if !ok || !repeatable(e, n, idempotent) {
			return err
		}
		answered = err
		wait := e.RetryAfter
		if wait < betweenPOSTs {
			wait = Backoff(betweenPOSTs, maxWait, n)
		}
		end, ends := ctx.Deadline()
		if wait > maxWait || ends && time.Until(end) <= wait || c.sleep(ctx, wait) != nil {
			return err
		}
	}
}

// repeatable reports whether an attempt that failed with e, after n repetitions, may be
// repeated. It may if it is idempotent, or if it is proven that Graph has not carried it
// out, and if the failure may pass.
func repeatable(e *Error, n int, idempotent bool) bool {
	switch {
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable,
		e.Status == http.StatusConflict && e.Code == codeConcurrency:
		return n < maxRepetitions && (idempotent || !e.MayHaveHappened())
	case e.managed && e.Op == OpSignIn && (e.Status == http.StatusNotFound || e.Status != 0 && e.Kind == Unavailable):
		// Azure's metadata service is being updated, or overloaded.
		return n < maxRepetitions
	case e.Status == http.StatusInternalServerError, e.Status == http.StatusBadGateway,
		e.Status == http.StatusGatewayTimeout, e.Reason == reasonConnLost:
		return n == 0 && idempotent
	}
	return false
}

// Backoff returns how long to wait after so many failures in succession: first, then twice
// as long each time up to last, and up to a fifth more, so that not all who failed
// together come back together.
func Backoff(first, last time.Duration, failures int) time.Duration {
	wait := min(last, first<<min(failures, 16))
	return wait + rand.N(wait/5) //nolint:gosec // nothing depends on this being hard to guess
}

// Sleep waits for d, or returns the error of the context if that ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
