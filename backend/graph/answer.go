// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
)

const (
	headerClientRequestID = "client-request-id"
	maxRetryAfter         = 24 * time.Hour
)

// idPattern matches the codes and ids that Microsoft sends. Anything else may come
// from a proxy, or hold a secret, and is not repeated.
var idPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`) })

func plausible(id string) string {
	if idPattern().MatchString(id) {
		return id
	}
	return ""
}

// requestID returns the id that the service gave the request. Graph and Entra name
// the header differently.
func requestID(h http.Header) string {
	return cmp.Or(plausible(h.Get("request-id")), plausible(h.Get("x-ms-request-id")))
}

// retryAfter reads the header Retry-After, a number of seconds or a date (RFC 9110,
// section 10.2.3). It returns 0 if the header is missing or malformed.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After") // net/http has trimmed it
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		// If the number is out of range, ParseInt returns the nearest one.
		limit := int64(maxRetryAfter / time.Second)
		return time.Duration(min(max(seconds, 0), limit)) * time.Second
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// answerError returns what the status and the headers say about a failed request.
func answerError(op string, resp *http.Response) *Error {
	e := &Error{
		Op:         op,
		Kind:       kindOf(resp.StatusCode),
		Status:     resp.StatusCode,
		RequestID:  requestID(resp.Header),
		RetryAfter: retryAfter(resp.Header, time.Now()),
	}
	switch {
	case e.Status >= 300 && e.Status < 400:
		e.Reason = reasonRedirect
	case e.Kind == Unreadable:
		e.Reason = reasonUnexpectedCode
	}
	return e
}

// graphError describes a failed request to Graph. The body is JSON only if Graph
// wrote it; if a proxy did, only the status counts.
func graphError(op string, resp *http.Response, body []byte) *Error {
	type inner struct {
		RequestID string `json:"request-id"`
		Inner     *inner `json:"innerError"` // also spelled innererror; package json ignores case
	}
	var content struct {
		Error struct {
			Code  string `json:"code"`
			Inner *inner `json:"innerError"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &content) // of a page, nothing is read
	e := answerError(op, resp)
	e.Code = plausible(content.Error.Code)
	e.Signed = signed(resp, e.Code)
	for in := content.Error.Inner; in != nil && e.RequestID == ""; in = in.Inner {
		e.RequestID = plausible(in.RequestID)
	}
	return e
}

// signed reports whether Graph itself has sent an answer with an error code or "".
func signed(resp *http.Response, code string) bool {
	id := resp.Header.Get("request-id")
	if uuid.Validate(id) != nil || len(id) != len(uuid.Nil.String()) { // package uuid takes other forms as well
		return false
	}
	sent := resp.Request.Header.Get(headerClientRequestID)
	return code != "" || sent != "" && resp.Header.Get(headerClientRequestID) == sent
}

// signInError turns an error of MSAL into one that is safe to show. MSAL's errors
// can contain the access token (in an answer that it could not parse) and refer to
// the client secret (in the request). So only status, code and id are kept.
func signInError(ctx context.Context, err error) *Error {
	call, ok := errors.AsType[msal.CallErr](err)
	if !ok || call.Resp == nil {
		return failure(ctx, OpSignIn, err)
	}
	// MSAL has already read the body, through this package's transport and its
	// limit. What is left is a copy in memory, which cannot fail.
	body, _ := io.ReadAll(call.Resp.Body)
	return entraError(call.Resp, body)
}

// aadstsPattern finds the code at the start of an error description.
var aadstsPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^AADSTS[0-9]{1,10}\b`) })

// entraError describes a failed request to Entra.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes#handling-error-codes-in-your-application
func entraError(resp *http.Response, body []byte) *Error {
	var content struct {
		Error         string `json:"error"`
		Description   string `json:"error_description"`
		Codes         []int  `json:"error_codes"`
		CorrelationID string `json:"correlation_id"`
		TraceID       string `json:"trace_id"`
	}
	e := answerError(OpSignIn, resp)
	if json.Unmarshal(body, &content) != nil {
		return e
	}
	e.Code = cmp.Or(aadstsPattern().FindString(content.Description), plausible(content.Error))
	if len(content.Codes) > 0 {
		e.Code = "AADSTS" + strconv.Itoa(content.Codes[0])
	}
	e.RequestID = cmp.Or(plausible(content.CorrelationID), plausible(content.TraceID), e.RequestID)
	return e
}

// maxClaims limits the claims that are passed on to Entra, in bytes of JSON. Graph's
// challenges have about a hundred.
const maxClaims = 8 << 10

// parameterPattern finds the parameters of a challenge, such as error="x"
// (RFC 9110, section 11.2).
var parameterPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))`)
})

// challengedClaims returns the claims that Graph demands of a token, as JSON, or "" if
// there is no well-formed claims challenge.
// https://learn.microsoft.com/entra/identity-platform/claims-challenge#claims-challenge-header-format
func challengedClaims(h http.Header) string {
	for _, challenge := range h.Values("WWW-Authenticate") {
		parameters := map[string]string{}
		for _, found := range parameterPattern().FindAllStringSubmatch(challenge, -1) {
			parameters[strings.ToLower(found[1])] = found[2] + found[3]
		}
		if parameters["error"] == "insufficient_claims" {
			if claims := decodeClaims(parameters["claims"]); claims != "" {
				return claims
			}
		}
	}
	return ""
}

// decodeClaims accepts standard and URL-safe base64, padded or not.
func decodeClaims(encoded string) string {
	encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
	claims, err := base64.RawStdEncoding.DecodeString(encoded)
	var content struct {
		// MSAL adds the client's capabilities to this object.
		AccessToken map[string]any `json:"access_token"`
	}
	if err != nil || len(claims) > maxClaims || json.Unmarshal(claims, &content) != nil || content.AccessToken == nil {
		return ""
	}
	return string(claims)
}
