// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClassify(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, test := range map[string]struct {
		err    error
		kind   Kind
		reason string
	}{
		"too large":         {&http.MaxBytesError{}, Unreadable, reasonTooLarge},
		"no https":          {errInsecureURL, Refused, reasonInsecure},
		"proxy refused":     {errProxyRefused, Unavailable, reasonProxyRefused},
		"proxy down":        {&net.OpError{Op: "proxyconnect", Err: dial(syscall.ECONNREFUSED)}, Unavailable, reasonProxyDown},
		"dial timed out":    {dial(os.ErrDeadlineExceeded), Timeout, reasonNoConnection},
		"timed out":         {context.DeadlineExceeded, Timeout, reasonNoAnswer},
		"unknown host":      {dial(&net.DNSError{Err: "no such host", IsNotFound: true}), Unavailable, reasonUnknownHost},
		"refused":           {dial(syscall.ECONNREFUSED), Unavailable, reasonConnRefused},
		"no route":          {dial(syscall.EHOSTUNREACH), Unavailable, reasonNoRoute},
		"no network":        {dial(syscall.ENETUNREACH), Unavailable, reasonNoRoute},
		"reset":             {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, Unavailable, reasonConnLost},
		"broken pipe":       {&net.OpError{Op: "write", Err: syscall.EPIPE}, Unavailable, reasonConnLost},
		"closed":            {io.EOF, Unavailable, reasonConnLost},
		"truncated":         {io.ErrUnexpectedEOF, Unavailable, reasonConnLost},
		"plain HTTP":        {tls.RecordHeaderError{}, Unavailable, reasonNoTLS},
		"wrong name":        {&tls.CertificateVerificationError{Err: x509.HostnameError{Host: "a", Certificate: &x509.Certificate{}}}, Unavailable, reasonWrongName},
		"unknown authority": {&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, Unavailable, reasonUntrusted},
		"expired":           {&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{}}, Unavailable, reasonUntrusted},
		"anything else":     {errors.New("secret"), "", reasonUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			// Wrapped as by net/http and MSAL.
			err := fmt.Errorf("server response error:\n %w", &url.Error{Op: "Post", URL: "https://login.example.com", Err: test.err})
			if test.kind == "" {
				require.Equal(t, &Error{Op: OpSignIn, Kind: Unavailable, Reason: reasonConnFailed}, failure(t.Context(), OpSignIn, err))
				require.Equal(t, &Error{Op: OpSignIn, Kind: Unreadable, Reason: reasonUnreadable}, failure(t.Context(), OpSignIn, test.err))
				return
			}
			require.Equal(t, &Error{Op: OpSignIn, Kind: test.kind, Reason: test.reason}, failure(t.Context(), OpSignIn, err))
		})
	}
}

func TestInterrupted(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, &Error{Op: OpGet, Kind: Timeout, Reason: reasonInterrupted}, interrupted(gone, OpGet))
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	require.Equal(t, &Error{Op: OpGet, Kind: Timeout, Reason: reasonNoAnswer}, interrupted(late, OpGet))
}
