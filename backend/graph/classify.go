// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
)

const (
	headerClientRequestID = "client-request-id"
	maxRetryAfter         = 24 * time.Hour
	// maxClaims limits the claims that are passed on to Entra, in bytes of JSON. Graph's
	// challenges have about a hundred.
	maxClaims = 8 << 10
)

// Values of Error.Reason that several places need. Like the others, they never include
// errors of other packages, which can quote what the other side sent.
const (
	reasonNoAnswer     = "no complete answer within the time allowed"
	reasonConnLost     = "the connection was lost before the answer was complete"
	reasonUnreadable   = "the answer could not be understood"
	reasonNoKey        = "the answer contains no key"
	reasonNoCredential = "the answer does not describe the new credential"
)

// idPattern matches the codes and ids that Microsoft sends. Anything else may come
// from a proxy, or hold a secret, and is not repeated.
var idPattern = pattern(`^[A-Za-z0-9_.-]{1,64}$`)

func plausible(id string) string { return idPattern().FindString(id) }

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
	date, _ := http.ParseTime(text) // if it is malformed, a time long ago
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// answerError returns what the status and the headers say about a failed request.
func answerError(resp *http.Response) *Error {
	e := &Error{
		Kind:       kindOf(resp.StatusCode),
		Status:     resp.StatusCode,
		RequestID:  requestID(resp.Header),
		RetryAfter: retryAfter(resp.Header, time.Now()),
	}
	switch {
	case e.Status >= 300 && e.Status < 400:
		e.Reason = "a redirect was refused"
	case e.Kind == Unreadable:
		e.Reason = "the answer has an unexpected status"
	}
	return e
}

// graphError describes a failed request to Graph. The body is JSON only if Graph
// wrote it; if a proxy did, only the status counts.
func graphError(resp *http.Response, body []byte) *Error {
	type detail struct {
		Code      string  `json:"code"`
		RequestID string  `json:"request-id"`
		Inner     *detail `json:"innerError"` // also spelled innererror; package json ignores case
	}
	var content struct {
		Error detail `json:"error"`
	}
	_ = json.Unmarshal(body, &content) // of a page, nothing is read
	e := answerError(resp)
	e.Code = plausible(content.Error.Code)
	e.Signed = signed(resp, e.Code)
	for in := &content.Error; in != nil && e.RequestID == ""; in = in.Inner {
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

// aadstsPattern finds the code at the start of an error description.
var aadstsPattern = pattern(`^AADSTS[0-9]{1,10}\b`)

// signInError turns an error of MSAL into one that is safe to show. MSAL's errors
// can contain the access token (in an answer that it could not parse) and refer to
// the client secret (in the request). So only status, code and id are kept.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes#handling-error-codes-in-your-application
func signInError(ctx context.Context, err error) *Error {
	call, ok := errors.AsType[msal.CallErr](err)
	if !ok || call.Resp == nil {
		return failure(ctx, err)
	}
	var content struct {
		Error         string `json:"error"`
		Description   string `json:"error_description"`
		Codes         [1]int `json:"error_codes"` // package json drops further ones
		CorrelationID string `json:"correlation_id"`
		TraceID       string `json:"trace_id"`
	}
	// MSAL has already read the body, through this package's transport and its
	// limit. What is left is a copy in memory, which cannot fail.
	body, _ := io.ReadAll(call.Resp.Body)
	e := answerError(call.Resp)
	_ = json.Unmarshal(body, &content) // of a page, nothing is read
	e.Code = cmp.Or(known("AADSTS%d", content.Codes[0]), aadstsPattern().FindString(content.Description), plausible(content.Error))
	e.RequestID = cmp.Or(plausible(content.CorrelationID), plausible(content.TraceID), e.RequestID)
	return e
}

// parameterPattern finds the parameters of a challenge, such as error="x"
// (RFC 9110, section 11.2).
var parameterPattern = pattern(`([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))`)

// challengedClaims returns the claims that Graph demands of a token, as JSON, or "" if
// there is no well-formed claims challenge.
// https://learn.microsoft.com/entra/identity-platform/claims-challenge#claims-challenge-header-format
func challengedClaims(h http.Header) string {
	for _, challenge := range h.Values("WWW-Authenticate") {
		parameters := map[string]string{}
		for _, found := range parameterPattern().FindAllStringSubmatch(challenge, -1) {
			parameters[strings.ToLower(found[1])] = found[2] + found[3]
		}
		if parameters["error"] != "insufficient_claims" {
			continue
		}
		// It may be in standard or URL-safe base64, padded or not.
		encoded := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(parameters["claims"], "="))
		claims, err := base64.RawStdEncoding.DecodeString(encoded)
		var content struct {
			// MSAL adds the client's capabilities to this object.
			AccessToken map[string]any `json:"access_token"`
		}
		if err == nil && len(claims) <= maxClaims && json.Unmarshal(claims, &content) == nil && content.AccessToken != nil {
			return string(claims)
		}
	}
	return ""
}

// failures says, by their causes, what exchanges without an answer mean; the first that
// fits counts. What is said of the server is said of the proxy if that is where it failed.
var failures = []struct {
	is     func(error) bool
	kind   Kind
	reason string
}{
	{caused[*http.MaxBytesError], Unreadable, "the answer is larger than 1 MiB"},
	{says("tls: certificate required", "tls: bad certificate"), Unavailable, "the server demands a TLS client certificate, and the engine presents none: exempt the engine from that"},
	{says("tls: protocol version not supported", "tls: server selected unsupported protocol version"), Unavailable, "the server does not speak TLS 1.2 or later"},
	{says("remote error: tls: handshake failure"), Unavailable, "the server refused the TLS handshake: it demands a client certificate, and the engine presents none, or it supports none of Go's cipher suites"},
	{says("remote error: tls: "), Unavailable, "the server broke off the TLS handshake"},
	{caused[tls.RecordHeaderError], Unavailable, "the server does not speak TLS"},
	{causedBy(http.ErrSchemeMismatch), Unavailable, "the server does not speak TLS"}, // it answers in plain HTTP
	// See refusedCertificate.
	{caused[*tls.CertificateVerificationError], Unavailable, ""},
	// What MSAL says of Azure Arc's agent.
	{says("failed to get metadata for ", `failed to read "`), Refused, "the plugin's account cannot read the key file that the Azure Arc agent named: make the account a member of the group himds, and restart Vault"},
	{failedAt("socks connect"), Unavailable, "the proxy did not connect to the host"},
	{failedAt("proxyconnect"), Unavailable, "the proxy could not be reached"},
	{func(err error) bool { return isTimeout(err) && failedAt("dial")(err) }, Timeout, "no connection within the time allowed"},
	{isTimeout, Timeout, reasonNoAnswer},
	{causedBy(context.Canceled), Timeout, "the caller did not wait for the answer"},
	{caused[*net.DNSError], Unavailable, "the host name could not be resolved"},
	{causedBy(syscall.ECONNREFUSED), Unavailable, "the connection was refused"},
	{causedBy(syscall.EHOSTUNREACH, syscall.ENETUNREACH), Unavailable, "the host cannot be reached"},
	{causedBy(syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF), Unavailable, reasonConnLost},
	{caused[*url.Error], Unavailable, "the connection failed"},
}

// failure describes an exchange that ended without a complete answer, or whose caller left
// or ran out of time. It drops the error's text.
func failure(ctx context.Context, err error) *Error {
	if own, ok := errors.AsType[*Error](err); ok { // of the transport, or about an assertion
		return own
	}
	err = cmp.Or(ctx.Err(), err)
	for _, f := range failures {
		if f.is(err) {
			reason := cmp.Or(f.reason, refusedCertificate(err))
			if failedAt("proxyconnect")(err) {
				reason = strings.Replace(reason, "the server", "the proxy", 1)
			}
			return &Error{Kind: f.kind, Reason: reason}
		}
	}
	return &Error{Kind: Unreadable, Reason: reasonUnreadable}
}

// refusedCertificate says why the certificate of a server was refused. The issuer's name is
// the one text of the other side that gets into an error, and only what is printable.
func refusedCertificate(err error) string {
	named, _ := errors.AsType[x509.HostnameError](err)
	unknown, _ := errors.AsType[x509.UnknownAuthorityError](err)
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	problem := "violates a rule of X.509, or one of its issuers does"
	switch c := cmp.Or(named.Certificate, unknown.Cert, invalid.Cert, &x509.Certificate{}); {
	case c == named.Certificate && len(c.DNSNames)+len(c.IPAddresses) == 0:
		problem = "names no host in its subject alternative names, and its common name does not count: have it reissued"
	case c == named.Certificate:
		problem = "is for another host name"
	case c == unknown.Cert && strings.Contains(err.Error(), "insecure algorithm"):
		problem = "is signed with an algorithm that is no longer accepted, such as SHA-1: have it reissued"
	case c == unknown.Cert && strings.Contains(err.Error(), "possibly because of"):
		problem = "is not trusted: a trusted certificate has the name of its issuer, and another key"
	case c == unknown.Cert:
		issuer := cmp.Or(c.Issuer.CommonName, c.Issuer.String())
		problem = "is not trusted: this machine does not know its issuer " + strconv.QuoteToASCII(issuer[:min(len(issuer), 100)]) +
			"; if that belongs to your proxy or private endpoint, set ca_certificate, or add it to the machine's trusted certificates"
	case invalid.Reason == x509.IncompatibleUsage, invalid.Reason == x509.CANotAuthorizedForExtKeyUsage:
		problem = "may not be used for servers: have it reissued with the extended key usage serverAuth"
	case invalid.Reason == x509.Expired && time.Now().Before(c.NotBefore):
		problem = "is not valid before " + c.NotBefore.UTC().Format(time.RFC3339) + ": check the clock of this machine"
	case invalid.Reason == x509.Expired:
		problem = "expired on " + c.NotAfter.UTC().Format(time.RFC3339) + ": have it renewed, or check the clock of this machine"
	}
	return "the server's certificate " + problem
}

// caused reports whether there is an E in the error's chain.
func caused[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// causedBy returns a function that reports whether one of the causes is in the error's chain.
func causedBy(causes ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(causes, func(cause error) bool { return errors.Is(err, cause) })
	}
}

// says returns a function that reports whether the error's text has one of the texts, for
// errors of other packages that have no type.
func says(texts ...string) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(err.Error(), text) })
	}
}

// failedAt returns a function that reports whether op is the outermost network operation
// that failed.
func failedAt(op string) func(error) bool {
	return func(err error) bool {
		failed, ok := errors.AsType[*net.OpError](err)
		return ok && failed.Op == op
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
