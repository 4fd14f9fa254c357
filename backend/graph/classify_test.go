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
		"too large":      {&http.MaxBytesError{}, Unreadable, "the answer is larger than 1 MiB"},
		"our own":        {&Error{Kind: Refused, Reason: "an address without https was refused"}, Refused, "an address without https was refused"},
		"proxy down":     {&net.OpError{Op: "proxyconnect", Err: dial(syscall.ECONNREFUSED)}, Unavailable, "the proxy could not be reached"},
		"dial timed out": {dial(os.ErrDeadlineExceeded), Timeout, "no connection within the time allowed"},
		"timed out":      {context.DeadlineExceeded, Timeout, reasonNoAnswer},
		"unknown host":   {dial(&net.DNSError{Err: "no such host", IsNotFound: true}), Unavailable, "the host name could not be resolved"},
		"refused":        {dial(syscall.ECONNREFUSED), Unavailable, "the connection was refused"},
		"no route":       {dial(syscall.EHOSTUNREACH), Unavailable, "the host cannot be reached"},
		"no network":     {dial(syscall.ENETUNREACH), Unavailable, "the host cannot be reached"},
		"reset":          {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, Unavailable, reasonConnLost},
		"broken pipe":    {&net.OpError{Op: "write", Err: syscall.EPIPE}, Unavailable, reasonConnLost},
		"closed":         {io.EOF, Unavailable, reasonConnLost},
		"truncated":      {io.ErrUnexpectedEOF, Unavailable, reasonConnLost},
		"plain HTTP":     {tls.RecordHeaderError{}, Unavailable, "the server does not speak TLS"},
		"a certificate":  {&tls.CertificateVerificationError{Err: x509.ConstraintViolationError{}}, Unavailable, "the server's certificate violates a rule of X.509, or one of its issuers does"},
		"a key file":     {errors.New(`failed to read "/var/opt/azcmagent/tokens/x.key" due to error: permission denied`), Refused, "the plugin's account cannot read the key file that the Azure Arc agent named: make the account a member of the group himds, and restart Vault"},
		"anything else":  {errors.New("secret"), "", reasonUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			// Wrapped as by net/http and MSAL.
			err := fmt.Errorf("server response error:\n %w", &url.Error{Op: "Post", URL: "https://login.example.com", Err: test.err})
			if test.kind == "" {
				require.Equal(t, &Error{Kind: Unavailable, Reason: "the connection failed"}, failure(t.Context(), err))
				require.Equal(t, &Error{Kind: Unreadable, Reason: reasonUnreadable}, failure(t.Context(), test.err))
				return
			}
			require.Equal(t, &Error{Kind: test.kind, Reason: test.reason}, failure(t.Context(), err))
		})
	}
}

func TestInterrupted(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, &Error{Kind: Timeout, Reason: "the caller did not wait for the answer"}, failure(gone, gone.Err()))
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	require.Equal(t, &Error{Kind: Timeout, Reason: reasonNoAnswer}, failure(late, late.Err()))
}
