// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/stretchr/testify/require"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                                      0,
		"0":                                     0,
		"41":                                    41 * time.Second,
		"315":                                   315 * time.Second,
		"-5":                                    0,
		"86400":                                 24 * time.Hour,
		"86401":                                 24 * time.Hour,
		"9223372036854775807":                   24 * time.Hour,
		"99999999999999999999999":               24 * time.Hour,
		"-99999999999999999999999":              0,
		"1.5":                                   0,
		"soon":                                  0,
		now.Add(7 * time.Second).Format(gmt):    7 * time.Second,
		now.Add(-7 * time.Second).Format(gmt):   0,
		now.AddDate(0, 0, 2).Format(gmt):        24 * time.Hour,
		now.AddDate(5000, 0, 0).Format(gmt):     24 * time.Hour,
		now.Add(time.Minute).Format(time.ANSIC): time.Minute,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {text}}, now), "%q", text)
	}
	require.Zero(t, retryAfter(http.Header{}, now))
}

const gmt = http.TimeFormat

func TestGraphError(t *testing.T) {
	long := strings.Repeat("x", 65)
	for name, test := range map[string]struct {
		body, header string
		code, id     string
	}{
		"as documented": {
			body: `{"error":{"code":"Forbidden","message":"m","innerError":{"date":"d","request-id":"in-1","client-request-id":"c"}}}`,
			code: "Forbidden", id: "in-1",
		},
		"the header first": {
			body: `{"error":{"code":"Forbidden","innerError":{"request-id":"in-1"}}}`, header: "head-1",
			code: "Forbidden", id: "head-1",
		},
		"another spelling": {body: `{"error":{"code":"a","innererror":{"request-id":"in-1"}}}`, code: "a", id: "in-1"},
		"nested":           {body: `{"error":{"code":"a","innerError":{"code":"b","innerError":{"request-id":"in-2"}}}}`, code: "a", id: "in-2"},
		"odd innerError":   {body: `{"error":{"code":"Forbidden","innerError":"secret"}}`, code: "Forbidden"},
		"a page":           {body: `<html>secret</html>`, header: "head-1", id: "head-1"},
		"nothing":          {},
		"odd code":         {body: `{"error":{"code":"se/cret+=","innerError":{"request-id":"a b"}}}`},
		"long code":        {body: `{"error":{"code":"` + long + `","innerError":{"request-id":"` + long + `"}}}`},
		"odd header":       {body: `{"error":{"code":"a","innerError":{"request-id":"in-1"}}}`, header: "<script>", code: "a", id: "in-1"},
		"another type":     {body: `{"error":"secret"}`, header: "head-1", id: "head-1"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := &http.Response{StatusCode: 403, Header: http.Header{}}
			resp.Header.Set("request-id", test.header)
			e := graphError(resp, []byte(test.body))
			require.Equal(t, &Error{Kind: Refused, Status: 403, Code: test.code, RequestID: test.id}, e)
		})
	}
}

func TestEntraError(t *testing.T) {
	for name, test := range map[string]struct {
		body     string
		code, id string
	}{
		"as documented": {
			body: `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: ...",
			"error_codes":[7000215],"timestamp":"t","trace_id":"trace-1","correlation_id":"corr-1"}`,
			code: "AADSTS7000215", id: "corr-1",
		},
		"without codes":       {body: `{"error":"invalid_client","error_description":"AADSTS53003: x","trace_id":"trace-1"}`, code: "AADSTS53003", id: "trace-1"},
		"without description": {body: `{"error":"temporarily_unavailable"}`, code: "temporarily_unavailable", id: "head-1"},
		"not at the start":    {body: `{"error_description":"see AADSTS53003"}`, id: "head-1"},
		"a page":              {body: `<html>`, id: "head-1"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := &http.Response{StatusCode: 401, Header: http.Header{"X-Ms-Request-Id": {"head-1"}}}
			resp.Body = io.NopCloser(strings.NewReader(test.body))
			e := signInError(t.Context(), msal.CallErr{Resp: resp})
			require.Equal(t, &Error{Kind: Refused, Status: 401, Code: test.code, RequestID: test.id}, e)
		})
	}
}

func TestAnswerErrorReasons(t *testing.T) {
	for status, want := range map[int]string{204: "the answer has an unexpected status", 302: "a redirect was refused", 404: "", 500: ""} {
		require.Equal(t, want, answerError(&http.Response{StatusCode: status}).Reason)
	}
}
