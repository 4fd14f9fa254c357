// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestFaultStatus(t *testing.T) {
	for name, test := range map[string]struct {
		fault graphtest.Fault
		code  string
	}{
		"400":            {graphtest.Fault{Status: 400}, "BadRequest"},
		"401":            {graphtest.Fault{Status: 401}, "InvalidAuthenticationToken"},
		"403":            {graphtest.Fault{Status: 403}, "Forbidden"},
		"429":            {graphtest.Fault{Status: 429, RetryAfter: "2"}, "TooManyRequests"},
		"429 until":      {graphtest.Fault{Status: 429, RetryAfter: "Wed, 21 Oct 2026 07:28:00 GMT"}, "TooManyRequests"},
		"503":            {graphtest.Fault{Status: 503}, "ServiceUnavailable"},
		"504":            {graphtest.Fault{Status: 504}, "GatewayTimeout"},
		"without a name": {graphtest.Fault{Status: 599}, "UnknownError"},
		"code":           {graphtest.Fault{Status: 409, Code: "Directory_ConcurrencyViolation"}, "Directory_ConcurrencyViolation"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t)
			token, before := c.token(), c.sim.Key()
			test.fault.Times = 1
			c.sim.Inject(test.fault)
			r := c.call(graphtest.Regenerate, token)
			require.Equal(t, test.fault.Status, r.status)
			require.Equal(t, test.code, r.graphCode(t))
			require.Equal(t, test.fault.RetryAfter, r.header.Get("Retry-After"))
			require.NotEmpty(t, r.header.Get("request-id"))
			require.Equal(t, before, c.sim.Key())
			require.Equal(t, graphtest.Calls{Started: 1, Answered: 1}, c.sim.Calls(graphtest.Regenerate))
			require.Equal(t, http.StatusOK, c.call(graphtest.Regenerate, token).status, "the fault is used up")
		})
	}
}

func TestFaultAfterWork(t *testing.T) {
	c := newTester(t)
	token, before := c.token(), c.sim.Key()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, AfterWork: true, Status: 504})
	require.Equal(t, 504, c.call(graphtest.Regenerate, token).status)
	require.NotEqual(t, before, c.sim.Key())
	require.Equal(t, graphtest.Calls{1, 1, 1}, c.sim.Calls(graphtest.Regenerate))
}

func TestFaultMatching(t *testing.T) {
	c := newTester(t)
	token := c.token()
	c.sim.Inject(
		graphtest.Fault{Operation: graphtest.Get, Times: 2, Status: 500},
		graphtest.Fault{Times: 1, Status: 502},
		graphtest.Fault{Operation: graphtest.Get, Status: 503},
	)
	var statuses []int
	for _, op := range []graphtest.Operation{graphtest.Get, graphtest.Regenerate, graphtest.Regenerate, graphtest.Get, graphtest.Get, graphtest.Get, graphtest.Package} {
		statuses = append(statuses, c.call(op, token).status)
	}
	require.Equal(t, []int{500, 502, 200, 500, 503, 503, 200}, statuses)
	require.NotEmpty(t, c.token(), "without an operation, only Graph is disturbed")
	require.Equal(t, http.StatusForbidden, c.register("x"))
	c.sim.Clear()
	require.Equal(t, http.StatusOK, c.call(graphtest.Get, token).status)
}

func TestFaultOfSignIn(t *testing.T) {
	for name, test := range map[string]struct {
		fault graphtest.Fault
		err   string
		code  float64
	}{
		"400":     {graphtest.Fault{Status: 400}, "invalid_request", 90023},
		"401":     {graphtest.Fault{Status: 401}, "invalid_client", 7000215},
		"403":     {graphtest.Fault{Status: 403}, "access_denied", 53003},
		"429":     {graphtest.Fault{Status: 429, RetryAfter: "3"}, "temporarily_unavailable", 90055},
		"503":     {graphtest.Fault{Status: 503}, "temporarily_unavailable", 90033},
		"code":    {graphtest.Fault{Status: 401, Code: "7000222"}, "invalid_client", 7000222},
		"unknown": {graphtest.Fault{Status: 400, Code: "700027"}, "invalid_client", 700027},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t)
			test.fault.Operation = graphtest.Token
			c.sim.Inject(test.fault)
			r, err := c.signIn(c.goodForm())
			require.NoError(t, err)
			require.Equal(t, test.fault.Status, r.status)
			require.Equal(t, test.err, r.json(t)["error"])
			require.Equal(t, []any{test.code}, r.json(t)["error_codes"])
			require.Equal(t, test.fault.RetryAfter, r.header.Get("Retry-After"))
			require.Equal(t, graphtest.Calls{Started: 1, Answered: 1}, c.sim.Calls(graphtest.Token))
		})
	}
}

func TestFaultOfRegistration(t *testing.T) {
	c := newTester(t)
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Register, Times: 1, Status: 503})
	require.Equal(t, 503, c.register(c.sim.Key()))
	require.Equal(t, 201, c.register(c.sim.Key()))
}

func TestFaultRedirect(t *testing.T) {
	c := newTester(t)
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 307})
	r := c.call(graphtest.Get, c.token())
	require.Equal(t, 307, r.status)
	require.Equal(t, "/beta/security/identities/sensors/getDeploymentAccessKey", r.header.Get("Location"))
}

func TestFaultBody(t *testing.T) {
	for kind, check := range map[graphtest.BodyKind]func(*tester, result, error){
		graphtest.BodyHTML: func(c *tester, r result, err error) {
			require.NoError(c.t, err)
			require.Equal(c.t, "text/html", r.header.Get("Content-Type"))
			require.Contains(c.t, r.body, "<html>")
			require.Empty(c.t, r.header.Get("request-id"))
		},
		graphtest.BodyEmpty: func(c *tester, r result, err error) {
			require.NoError(c.t, err)
			require.Empty(c.t, r.body)
		},
		graphtest.BodyTruncated: func(c *tester, r result, err error) {
			require.ErrorIs(c.t, err, io.ErrUnexpectedEOF)
			require.NotEmpty(c.t, r.body)
			require.False(c.t, json.Valid([]byte(r.body)))
		},
		graphtest.BodyWrongContentType: func(c *tester, r result, err error) {
			require.NoError(c.t, err)
			require.Equal(c.t, "text/plain", r.header.Get("Content-Type"))
			require.True(c.t, json.Valid([]byte(r.body)))
		},
		graphtest.BodyMalformed: func(c *tester, r result, err error) {
			require.NoError(c.t, err)
			require.False(c.t, json.Valid([]byte(r.body)))
		},
	} {
		for _, status := range []int{0, 503} {
			t.Run(string(kind)+" "+http.StatusText(status), func(t *testing.T) {
				c := newTester(t)
				token := c.token()
				c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Body: kind, Status: status})
				r, err := c.graph(t.Context(), graphtest.Get, token)
				require.Equal(t, max(status, 200), r.status)
				check(c, r, err)
				calls := graphtest.Calls{Started: 1, Performed: 1, Answered: 1}
				if status != 0 {
					calls.Performed = 0
				}
				if kind == graphtest.BodyTruncated {
					calls.Answered = 0
				}
				require.Equal(t, calls, c.sim.Calls(graphtest.Get))
			})
		}
	}
}

func TestFaultMalformedToken(t *testing.T) {
	c := newTester(t)
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Times: 1, Body: graphtest.BodyMalformed})
	r, err := c.signIn(c.goodForm())
	require.NoError(t, err)
	require.Equal(t, 200, r.status)
	require.Contains(t, r.body, c.sim.Issued()[3], "the token is in it")
	require.False(t, json.Valid([]byte(r.body)))
}

func TestFaultDisagreeingKeys(t *testing.T) {
	for _, shape := range graphtest.Shapes() {
		t.Run(string(shape), func(t *testing.T) {
			c := newTester(t, graphtest.WithBodyShape(shape))
			token := c.token()
			c.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Body: graphtest.BodyDisagreeing})
			r := c.call(graphtest.Get, token)
			issued := c.sim.Issued()
			decoy := issued[len(issued)-1]
			require.NotEqual(t, c.sim.Key(), decoy)
			require.Contains(t, r.body, `"`+c.sim.Key()+`"`)
			require.Contains(t, r.body, `"`+decoy+`"`)
			require.Equal(t, http.StatusUnauthorized, c.call(graphtest.Get, "").status, "refusals have no key")
		})
	}
}

// A regeneration that answers the key from before it has replaced the key or not, and the
// answer does not show which.
func TestFaultOldKey(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		for _, shape := range graphtest.Shapes() {
			t.Run(fmt.Sprint(replaced, " ", shape), func(t *testing.T) {
				c := newTester(t, graphtest.WithBodyShape(shape))
				token, before := c.token(), c.sim.Key()
				c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Body: graphtest.BodyOldKey, AfterWork: replaced})
				r := c.call(graphtest.Regenerate, token)
				require.Equal(t, http.StatusOK, r.status)
				require.NotEmpty(t, r.header.Get("request-id"))
				require.Contains(t, r.body, `"`+before+`"`)
				require.Equal(t, replaced, c.sim.Key() != before)
				calls := graphtest.Calls{Started: 1, Answered: 1}
				if replaced {
					calls.Performed = 1
					require.NotContains(t, r.body, c.sim.Key())
				}
				require.Equal(t, calls, c.sim.Calls(graphtest.Regenerate))
				require.Equal(t, map[bool]int{true: http.StatusForbidden, false: http.StatusCreated}[replaced], c.register(before))

				r = c.call(graphtest.Regenerate, token)
				require.Contains(t, r.body, c.sim.Key(), "the fault is used up")
				require.NotContains(t, r.body, before)
			})
		}
	}
}

func TestFaultBrokenConnection(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"reset before": {Reset: true},
		"reset after":  {Reset: true, AfterWork: true},
		"lost before":  {Lost: true},
		"lost after":   {Lost: true, AfterWork: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTester(t)
			token, before := c.token(), c.sim.Key()
			c.sim.Inject(fault)
			_, err := c.graph(t.Context(), graphtest.Regenerate, token)
			if fault.Reset {
				require.ErrorIs(t, err, syscall.ECONNRESET)
			} else {
				require.ErrorIs(t, err, io.EOF)
			}
			calls := c.sim.Calls(graphtest.Regenerate)
			require.Equal(t, graphtest.Calls{Started: 1, Performed: calls.Performed}, calls)
			require.Equal(t, fault.AfterWork, calls.Performed == 1)
			require.Equal(t, fault.AfterWork, before != c.sim.Key())
		})
	}
}

func TestInvalidFaults(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"nothing":                 {Operation: graphtest.Get, Times: 1},
		"operation":               {Operation: "gets", Status: 500},
		"negative times":          {Times: -1, Status: 500},
		"negative latency":        {Latency: -1},
		"status of success":       {Status: 200},
		"status out of range":     {Status: 600},
		"reset and lost":          {Reset: true, Lost: true},
		"answer and reset":        {Reset: true, Status: 500},
		"body and lost":           {Lost: true, Body: graphtest.BodyHTML},
		"stubborn after the work": {AfterWork: true, Stubborn: true, Latency: 1},
		"claims with 403":         {Claims: true, Status: 403},
		"claims of Entra":         {Operation: graphtest.Token, Claims: true},
		"code without status":     {Latency: 1, Code: "Forbidden"},
		"retry without status":    {Latency: 1, RetryAfter: "1"},
		"Graph's code for Entra":  {Operation: graphtest.Token, Status: 401, Code: "Forbidden"},
		"body":                    {Body: "blank"},
		"package disagrees":       {Operation: graphtest.Package, Body: graphtest.BodyDisagreeing},
		"error disagrees":         {Operation: graphtest.Get, Body: graphtest.BodyDisagreeing, Status: 500},
		"old key of a GET":        {Operation: graphtest.Get, Body: graphtest.BodyOldKey},
		"old key of any call":     {Body: graphtest.BodyOldKey},
		"old key in an error":     {Operation: graphtest.Regenerate, Body: graphtest.BodyOldKey, Status: 500},
		"old key, lost":           {Operation: graphtest.Regenerate, Body: graphtest.BodyOldKey, Lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, fault.Validate())
			sim, err := graphtest.New()
			require.NoError(t, err)
			require.Panics(t, func() { sim.Inject(graphtest.Fault{Operation: graphtest.Register, Status: 500}, fault) })
			recorder := httptest.NewRecorder()
			sim.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sensors/register", nil))
			require.Equal(t, http.StatusBadRequest, recorder.Code, "all or nothing")
		})
	}
}

func TestFaultJSON(t *testing.T) {
	fault := graphtest.Fault{
		Operation: graphtest.Get, Times: 2, AfterWork: true, Latency: 1500 * time.Millisecond, Stubborn: true,
		Status: 429, Code: "c", RetryAfter: "2", Claims: true, Body: graphtest.BodyHTML, Reset: true, Lost: true,
	}
	text, err := json.Marshal(fault)
	require.NoError(t, err)
	require.JSONEq(t, `{"operation":"get","times":2,"after_work":true,"latency":"1.5s","stubborn":true,
		"status":429,"code":"c","retry_after":"2","claims":true,"body":"html","reset":true,"lost":true}`, string(text))
	var back graphtest.Fault
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, fault, back)

	text, err = json.Marshal(graphtest.Fault{Status: 500})
	require.NoError(t, err)
	require.JSONEq(t, `{"status":500}`, string(text))
	for _, wrong := range []string{`{"latency":"soon"}`, `{"delay":"1s"}`, `{"latency":5}`, `[]`} {
		require.Error(t, json.Unmarshal([]byte(wrong), new(graphtest.Fault)), wrong)
	}
}

func TestClaimsWithStatusAndCode(t *testing.T) {
	c := newTester(t)
	token := c.capableToken("")
	c.sim.Inject(graphtest.Fault{Times: 1, Claims: true, Status: 401, Code: "TokenRevoked"})
	r := c.call(graphtest.Get, token)
	require.Equal(t, "TokenRevoked", r.graphCode(t))
	claimsOf(t, r)
}
