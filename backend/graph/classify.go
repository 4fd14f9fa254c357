// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

// Values of Error.Reason; those of failures are with them. They never include errors of other packages, which can
// quote what the other side sent.
const (
	reasonInterrupted    = "the caller did not wait for the answer"
	reasonNoAnswer       = "no complete answer within the time allowed"
	reasonConnLost       = "the connection was lost before the answer was complete"
	reasonRedirect       = "a redirect was refused"
	reasonUnreadable     = "the answer could not be understood"
	reasonNoKey          = "the answer contains no key"
	reasonUnusableKey    = "the answer contains a key that cannot be one"
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
	{caused[*net.DNSError], Unavailable, "the host name could not be resolved"},
	{causedBy(syscall.ECONNREFUSED), Unavailable, "the connection was refused"},
	{causedBy(syscall.EHOSTUNREACH, syscall.ENETUNREACH), Unavailable, "the host cannot be reached"},
	{causedBy(syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF), Unavailable, reasonConnLost},
	{caused[*url.Error], Unavailable, "the connection failed"},
}

// failure describes an exchange that ended without a complete answer. It drops the
// error's text.
func failure(ctx context.Context, op string, err error) *Error {
	if own, ok := errors.AsType[*Error](err); ok { // of the transport, or about an assertion
		own.Op = op
		return own
	}
	if ctx.Err() != nil {
		return interrupted(ctx, op)
	}
	for _, f := range failures {
		if f.is(err) {
			reason := cmp.Or(f.reason, refusedCertificate(err))
			if failedAt("proxyconnect")(err) {
				reason = strings.Replace(reason, "the server", "the proxy", 1)
			}
			return &Error{Op: op, Kind: f.kind, Reason: reason}
		}
	}
	return &Error{Op: op, Kind: Unreadable, Reason: reasonUnreadable}
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
