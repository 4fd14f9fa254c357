// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"syscall"
)

// Values of Error.Reason; those of failures are with them. They never include errors of other packages, which can
// quote what the other side sent.
const (
	reasonInterrupted    = "the caller did not wait for the answer"
	reasonNoAnswer       = "no complete answer within the time allowed"
	reasonConnLost       = "the connection was lost before the answer was complete"
	reasonRedirect       = "a redirect was refused"
	reasonUnreadable     = "the answer could not be understood"
	reasonNoKey          = "the answer contains no usable key"
	reasonNoPackage      = "the answer contains no address and version of a package"
	reasonDifferentKeys  = "the answer contains two different keys"
	reasonUnexpectedCode = "the answer has an unexpected status"
	reasonNoAssertion    = "no client assertion could be obtained"
	reasonEmptyAssertion = "the client assertion is empty"
	reasonNoToken        = "the answer contains no token"
	reasonNoCredential   = "the answer does not describe the new credential"
	reasonNoApplication  = "the answer does not describe the application"
)

// interrupted returns the error of a call whose caller left or ran out of time.
func interrupted(ctx context.Context, op string) *Error {
	reason := reasonInterrupted
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = reasonNoAnswer
	}
	return &Error{Op: op, Kind: Timeout, Reason: reason}
}

// failures says, by their causes, what exchanges without an answer mean; the first that
// fits counts.
var failures = []struct {
	is     func(error) bool
	kind   Kind
	reason string
}{
	{caused[*http.MaxBytesError], Unreadable, "the answer is larger than 1 MiB"},
	{causedBy(errInsecureURL), Refused, "an address without https was refused"},
	{causedBy(errProxyRefused), Unavailable, "the proxy refused to connect to the host"},
	{failedAt("proxyconnect"), Unavailable, "the proxy could not be reached"},
	{func(err error) bool { return isTimeout(err) && failedAt("dial")(err) }, Timeout, "no connection within the time allowed"},
	{isTimeout, Timeout, reasonNoAnswer},
	{caused[*net.DNSError], Unavailable, "the host name could not be resolved"},
	{causedBy(syscall.ECONNREFUSED), Unavailable, "the connection was refused"},
	{causedBy(syscall.EHOSTUNREACH, syscall.ENETUNREACH), Unavailable, "the host cannot be reached"},
	{causedBy(syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF), Unavailable, reasonConnLost},
	{caused[tls.RecordHeaderError], Unavailable, "the server does not speak TLS"},
	{causedBy(http.ErrSchemeMismatch), Unavailable, "the server does not speak TLS"}, // it answers in plain HTTP
	{caused[x509.HostnameError], Unavailable, "the server's certificate is for another host name"},
	{caused[*tls.CertificateVerificationError], Unavailable, "the server's certificate is not trusted: if a proxy or private endpoint presents it, set ca_certificate"},
	{caused[*url.Error], Unavailable, "the connection failed"},
}

// failure describes an exchange that ended without a complete answer. It drops the
// error's text.
func failure(ctx context.Context, op string, err error) *Error {
	if ctx.Err() != nil {
		return interrupted(ctx, op)
	}
	for _, f := range failures {
		if f.is(err) {
			return &Error{Op: op, Kind: f.kind, Reason: f.reason}
		}
	}
	return &Error{Op: op, Kind: Unreadable, Reason: reasonUnreadable}
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
