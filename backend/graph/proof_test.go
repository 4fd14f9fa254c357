// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// answering is a transport that answers without a network.
type answering func(r *http.Request) *http.Response

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

// answeredBy returns a client whose requests are answered by a function, and how long it
// would have waited between them.
func answeredBy(t *testing.T, answer answering) (*Client, *waits) {
	t.Helper()
	client, waited := clientOf(t, nil), &waits{}
	client.http = &http.Client{Transport: answer, CheckRedirect: client.http.CheckRedirect}
	client.sleep = waited.sleep
	return client, waited
}

const graphsID = "2f7d5a44-7a0e-4f3f-8d1a-7c3a6b6c1f01"

// signatures are what an answer has in its headers, and whether that is Graph's together
// with an error code, or without one.
var signatures = map[string]struct {
	headers           map[string]string // "=" is replaced by what the request has
	withCode, without bool
}{
	"Graph's":                  {map[string]string{"request-id": graphsID, headerClientRequestID: "="}, true, true},
	"without the client's id":  {map[string]string{"request-id": graphsID}, true, false},
	"another client's id":      {map[string]string{"request-id": graphsID, headerClientRequestID: graphsID}, true, false},
	"nothing":                  {nil, false, false},
	"the client's id only":     {map[string]string{headerClientRequestID: "="}, false, false},
	"an id that is no GUID":    {map[string]string{"request-id": "0HMVFE42N7K6Q:00000001", headerClientRequestID: "="}, false, false},
	"an id of a trace":         {map[string]string{"request-id": strings.ReplaceAll(graphsID, "-", ""), headerClientRequestID: "="}, false, false},
	"a GUID in braces":         {map[string]string{"request-id": "{" + graphsID + "}", headerClientRequestID: "="}, false, false},
	"a GUID under Entra's":     {map[string]string{"x-ms-request-id": graphsID, headerClientRequestID: "="}, false, false},
	"an empty client's id":     {map[string]string{"request-id": graphsID, headerClientRequestID: ""}, true, false},
	"an id of the wrong chars": {map[string]string{"request-id": strings.ReplaceAll(graphsID, "a", "z"), headerClientRequestID: "="}, false, false},
}

// bodies are those of answers, and whether they hold an error code of Graph's.
var bodies = map[string]struct {
	text string
	code bool
	cut  bool // before its end
}{
	"Graph's":           {`{"error":{"code":"SomeCode","message":"m","innerError":{"request-id":"` + graphsID + `"}}}`, true, false},
	"JSON, no code":     {`{"error":{"message":"m","innerError":{"request-id":"` + graphsID + `"}}}`, false, false},
	"JSON, odd code":    {`{"error":{"code":"a b"}}`, false, false},
	"a proxy's JSON":    {`{"error":"upstream","message":"` + graphsID + `"}`, false, false},
	"a page":            {`<html>SomeCode</html>`, false, false},
	"nothing":           {``, false, false},
	"half of it":        {`{"error":{"code":"SomeCode"`, false, true},
	"malformed":         {`{"error":{"code":"SomeCode"}`, false, false},
	"a key, of all":     {`{"deploymentAccessKey":"k"}`, false, false},
	"code elsewhere":    {`{"code":"SomeCode"}`, false, false},
	"a list":            {`[{"error":{"code":"SomeCode"}}]`, false, false},
	"an odd innerError": {`{"error":{"code":"SomeCode","innerError":"x"}}`, true, false},
}

// answerOf returns the answer to a request.
func answerOf(r *http.Request, status int, headers map[string]string, text string, cut bool) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Request: r}
	for name, value := range headers {
		if value == "=" {
			value = r.Header.Get(name)
		}
		resp.Header.Set(name, value)
	}
	body := io.Reader(strings.NewReader(text))
	if cut {
		body = io.MultiReader(body, failing{})
	}
	resp.Body = io.NopCloser(body)
	return resp
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// notable are the statuses that are tried with each signature and each body; the others
// are tried with some.
var notable = []int{300, 302, 307, 400, 401, 403, 404, 407, 408, 409, 429, 499, 500, 501, 502, 503, 504, 599}

// A POST was not carried out if Graph itself has refused it, and only then. Nothing else
// is repeated, whoever has sent it: the work may have been done. GETs are repeated as
// often, whoever has answered.
func TestProofThatAPOSTWasNotCarriedOut(t *testing.T) {
	attemptsOfGET := map[int]int{401: 2, 429: 3, 500: 2, 502: 2, 503: 3, 504: 2}
	var answer answering
	repeated := 0
	client, waited := answeredBy(t, func(r *http.Request) *http.Response { repeated++; return answer(r) })
	for status := 300; status <= 599; status++ {
		refused := status >= 400 && status < 500 && status != 408 && status != 409 || status == 503
		for by, s := range signatures {
			for kind, b := range bodies {
				if !slices.Contains(notable, status) && (by != "Graph's" && by != "nothing" || kind != "Graph's" && kind != "a page") {
					continue
				}
				name := fmt.Sprint(status, ", signed: ", by, ", body: ", kind)
				signed := s.without || s.withCode && b.code
				answer = func(r *http.Request) *http.Response { return answerOf(r, status, s.headers, b.text, b.cut) }
				repeated, waited.All = 0, nil
				_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
				e, ok := errors.AsType[*Error](err)
				want := 1
				if signed && refused {
					want = max(1, attemptsOfGET[status])
				}
				if !ok || e.Status != status || e.Signed != signed || e.MayHaveHappened() == (signed && refused) || repeated != want || len(waited.All) != want-1 {
					t.Fatalf("%s: %#v, sent %d times after %v", name, err, repeated, waited.All)
				}
				for _, d := range waited.All {
					require.GreaterOrEqual(t, d, betweenPOSTs, name)
				}
				repeated, want = 0, max(1, attemptsOfGET[status])
				if signed && status == http.StatusNotFound {
					want = 2 // at the other version of the API
				}
				if _, _, err = client.DeploymentAccessKey(t.Context()); failed(t, err).Status != status || repeated != want {
					t.Fatalf("%s: GET: %v, sent %d times", name, err, repeated)
				}
			}
		}
	}
}

// Only a 200 names the tenant's key: what else is a success to HTTP may be from a cache or
// of a proxy's making.
func TestOnly200NamesAKey(t *testing.T) {
	for status := 200; status < 300; status++ {
		client, _ := answeredBy(t, func(r *http.Request) *http.Response {
			return answerOf(r, status, signatures["Graph's"].headers, `{"deploymentAccessKey":"k","keyId":"id","secretText":"s"}`, false)
		})
		key, _, err := client.DeploymentAccessKey(t.Context())
		if status == http.StatusOK {
			require.NoError(t, err)
			require.Equal(t, "k", key)
		} else {
			require.Empty(t, key)
			e := failed(t, err)
			require.Equal(t, []any{status, Unreadable, "the answer has an unexpected status"}, []any{e.Status, e.Kind, e.Reason})
			require.True(t, e.MayHaveHappened())
		}
		_, err = client.AddPassword(t.Context(), "vault", time.Now())
		require.NoError(t, err)
		require.NoError(t, client.RemovePassword(t.Context(), "id"))
	}
}

// Whatever Graph answers, with whatever it asks for in Retry-After: two requests that
// change something are a second apart, and none follows one that may have been carried
// out.
func TestPaceOfPOSTs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // a seed makes it repeatable
	answers := []func(*http.Response){
		func(r *http.Response) { r.StatusCode = 429 },
		func(r *http.Response) { r.StatusCode = 503 },
		func(r *http.Response) { r.StatusCode = 409 },
		func(r *http.Response) { r.StatusCode = 401 },
		func(r *http.Response) {
			r.StatusCode = 401
			r.Header.Set("WWW-Authenticate", `Bearer error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`)
		},
		func(r *http.Response) { r.StatusCode, r.Header = 503, http.Header{} }, // a proxy's
		func(r *http.Response) { r.StatusCode, r.Header = 401, http.Header{} },
		func(r *http.Response) { r.StatusCode = 500 },
		func(r *http.Response) { r.StatusCode = 200 },
	}
	most := 0
	for range 1000 {
		now := time.Now()
		var at []time.Time
		open := false
		client, _ := answeredBy(t, func(r *http.Request) *http.Response {
			require.False(t, open, "the last one may have been carried out")
			at = append(at, now)
			resp := answerOf(r, 0, signatures["Graph's"].headers, `{"error":{"code":"`+codeConcurrency+`"},"deploymentAccessKey":"k","keyId":"id","secretText":"s"}`, false)
			switch random.IntN(4) {
			case 0:
				resp.Header.Set("Retry-After", time.Now().Add(time.Second).UTC().Format(http.TimeFormat)) // less than a second from now
			case 1:
				resp.Header.Set("Retry-After", fmt.Sprint(random.IntN(5)))
			}
			answers[random.IntN(len(answers))](resp)
			open = resp.Header.Get("request-id") == "" || resp.StatusCode == 500 ||
				resp.StatusCode == 409 && strings.HasSuffix(r.URL.Path, OpRegenerate)
			now = now.Add(time.Millisecond)
			return resp
		})
		client.sleep = func(_ context.Context, d time.Duration) error { now = now.Add(d); return nil }
		var err error
		if random.IntN(2) == 0 {
			_, _, err = client.RegenerateDeploymentAccessKey(t.Context(), nil)
		} else {
			_, err = client.AddPassword(t.Context(), "vault", time.Now())
		}
		for i := range at[1:] {
			require.GreaterOrEqual(t, at[i+1].Sub(at[i]), betweenPOSTs)
		}
		e, ok := errors.AsType[*Error](err)
		require.Equal(t, open, ok && e.MayHaveHappened())
		most = max(most, len(at))
	}
	require.Greater(t, most, 3, "a challenge begins anew")
}

// A caller whose time is up during the wait for another token learns that Graph has
// refused the first one.
func TestAChallengeThatComesTooLate(t *testing.T) {
	sim := graphtest.Start(t)
	client, _ := simulated(t, sim, nil)
	client.sleep = func(context.Context, time.Duration) error { return context.DeadlineExceeded }
	sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Claims: true})
	_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
	e := failed(t, err)
	require.Equal(t, http.StatusUnauthorized, e.Status)
	require.False(t, e.MayHaveHappened())
	require.Equal(t, 1, sim.Calls(graphtest.Regenerate).Started)
}

// What a proxy answers about the app's own credentials proves no more: an addition is not
// repeated, and may have happened; a removal is, where that may help.
func TestAnswersOfProxiesAboutCredentials(t *testing.T) {
	cert, key := ours()
	made, err := NewCertificate("another", time.Hour, time.Now())
	require.NoError(t, err)
	sim := owning(t, graphtest.WithCertificate(cert))
	client, waited := simulated(t, sim, func(c *Config) { c.Credential = ClientCertificate{PEM: cert + key} })
	for op, add := range map[graphtest.Operation]func() error{
		graphtest.AddPassword: func() error {
			_, err := client.AddPassword(t.Context(), "vault", time.Now().Add(time.Hour))
			return err
		},
		graphtest.AddKey: func() error { _, err := client.AddKey(t.Context(), sim.Info().ObjectID, made.PEM); return err },
	} {
		for _, status := range []int{307, 401, 403, 404, 408, 409, 429, 503, 504} {
			for _, done := range []bool{false, true} {
				name := fmt.Sprint(op, " ", status, " ", done)
				started := sim.Calls(op).Started
				sim.Inject(graphtest.Fault{Operation: op, Times: 1, Status: status, Body: graphtest.BodyHTML, AfterWork: done})
				e := failed(t, add())
				require.True(t, e.MayHaveHappened(), name)
				require.False(t, e.Signed, name)
				require.Equal(t, started+1, sim.Calls(op).Started, name)
			}
		}
		made, err = NewCertificate("one more", time.Hour, time.Now())
		require.NoError(t, err)
		require.NoError(t, add(), "it still works")
	}
	require.Empty(t, waited.All)
}
