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
	"syscall"
)

// The values of Error.Reason. They never include errors of other packages, which can
// quote what the other side sent.
const (
	reasonInterrupted    = "the caller did not wait for the answer"
	reasonNoAnswer       = "no complete answer within the time allowed"
	reasonNoConnection   = "no connection within the time allowed"
	reasonUnknownHost    = "the host name could not be resolved"
	reasonConnRefused    = "the connection was refused"
	reasonNoRoute        = "the host cannot be reached"
	reasonConnLost       = "the connection was lost before the answer was complete"
	reasonConnFailed     = "the connection failed"
	reasonProxyDown      = "the proxy could not be reached"
	reasonProxyRefused   = "the proxy refused to connect to the host"
	reasonUntrusted      = "the server's certificate is not trusted: if a proxy or private endpoint presents it, set ca_certificate"
	reasonWrongName      = "the server's certificate is for another host name"
	reasonNoTLS          = "the server does not speak TLS"
	reasonInsecure       = "an address without https was refused"
	reasonRedirect       = "a redirect was refused"
	reasonTooLarge       = "the answer is larger than 1 MiB"
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

// failure describes an exchange that ended without a complete answer. It drops the
// error's text.
func failure(op string, err error) *Error {
	kind, reason := classify(err)
	return &Error{Op: op, Kind: kind, Reason: reason}
}

func classify(err error) (Kind, string) {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Unreadable, reasonTooLarge
	}
	switch {
	case errors.Is(err, errInsecureURL):
		return Refused, reasonInsecure
	case errors.Is(err, errProxyRefused):
		return Unavailable, reasonProxyRefused
	case failedAt(err, "proxyconnect"):
		return Unavailable, reasonProxyDown
	case isTimeout(err) && failedAt(err, "dial"):
		return Timeout, reasonNoConnection
	case isTimeout(err):
		return Timeout, reasonNoAnswer
	}
	if reason := connectionReason(err); reason != "" {
		return Unavailable, reason
	}
	if reason := certificateReason(err); reason != "" {
		return Unavailable, reason
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return Unavailable, reasonConnFailed
	}
	return Unreadable, reasonUnreadable
}

// failedAt reports whether op is the outermost network operation that failed.
func failedAt(err error, op string) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == op
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func connectionReason(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return reasonUnknownHost
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return reasonConnRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return reasonNoRoute
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reasonConnLost
	}
	return ""
}

func certificateReason(err error) string {
	// net/http replaces the error of package tls if the other side answers in plain
	// HTTP.
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return reasonNoTLS
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return reasonWrongName
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return reasonUntrusted
	}
	return ""
}
