// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// versionAnswer is what Graph answers at one version of its API.
type versionAnswer struct {
	status   int
	body     string
	unsigned bool
}

// versioned returns a client at a version, and how often Graph was asked at each.
func versioned(t *testing.T, version string, answers map[string]versionAnswer) (*Client, map[string]int) {
	t.Helper()
	asked := map[string]int{}
	client := served(t, func(w http.ResponseWriter, r *http.Request) {
		at, _, _ := strings.Cut(r.URL.Path[1:], "/")
		asked[at]++
		a := answers[at]
		if !a.unsigned {
			sign(w, r)
		}
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}, func(c *Config) { c.APIVersion = version })
	return client, asked
}

// TestA404OfOneVersion: that a version of the API does not have the call is not taken for a
// tenant without a key, at either version.
func TestA404OfOneVersion(t *testing.T) {
	const unknown, noKey = "graph_api_version: try the other one, v1.0 or beta", "no key yet"
	notFound := versionAnswer{404, `{"error":{"code":"ResourceNotFound"}}`, false}
	key := versionAnswer{200, `{"deploymentAccessKey":"k"}`, false}
	none := versionAnswer{200, `{"value":{}}`, false}
	for name, test := range map[string]struct {
		own, other versionAnswer
		namesNoKey bool
		hint       string
		others     int // requests at the other version
	}{
		"neither has a key":        {notFound, notFound, true, noKey, 1},
		"the other has the key":    {notFound, key, false, unknown, 1},
		"the other knows the call": {notFound, none, false, unknown, 1},
		"the other refuses":        {notFound, versionAnswer{403, `{"error":{"code":"Forbidden"}}`, false}, false, unknown, 1},
		"the other's is a proxy's": {notFound, versionAnswer{404, "<html>", true}, false, unknown, 1},
		"the other is broken":      {notFound, versionAnswer{502, "", true}, false, unknown, 2},
		"no such segment":          {versionAnswer{400, `{"error":{"code":"BadRequest"}}`, false}, key, false, unknown, 0},
		"no key":                   {none, key, true, "", 0},
		"a proxy's 404":            {versionAnswer{404, "<html>", true}, key, false, hintForeign, 0},
		"a proxy's JSON":           {versionAnswer{200, `{"message":"blocked"}`, true}, key, false, "", 0},
		"no permission":            {versionAnswer{403, `{"error":{"code":"Forbidden"}}`, false}, key, false, Permission, 0},
	} {
		for version, other := range map[string]string{Beta: V1, V1: Beta} {
			t.Run(name+", "+version, func(t *testing.T) {
				client, asked := versioned(t, version, map[string]versionAnswer{version: test.own, other: test.other})
				got, _, err := client.DeploymentAccessKey(t.Context())
				require.Empty(t, got, "the other version's key is not this one's answer")
				e := failed(t, err)
				require.Equal(t, []any{test.own.status, test.namesNoKey, !test.own.unsigned}, []any{e.Status, e.NamesNoKey(), e.Signed})
				require.Equal(t, test.hint == "", e.Hint() == "", e.Hint())
				require.Contains(t, e.Hint(), test.hint)
				require.Equal(t, []int{1, test.others}, []int{asked[version], asked[other]})
			})
		}
	}
}

// TestOtherCallsAtOneVersion: the hint is the same, and nothing else is asked.
func TestOtherCallsAtOneVersion(t *testing.T) {
	for _, status := range []int{400, 404} {
		client, asked := versioned(t, V1, map[string]versionAnswer{V1: {status, `{"error":{"code":"x"}}`, false}})
		_, _, err := client.RegenerateDeploymentAccessKey(t.Context(), nil)
		require.Contains(t, Explain(err), "graph_api_version")
		require.False(t, failed(t, err).NamesNoKey())
		_, err = client.DeploymentPackage(t.Context())
		require.Contains(t, Explain(err), "graph_api_version")
		_, err = client.Application(t.Context())
		require.NotContains(t, Explain(err), "graph_api_version")
		require.Equal(t, map[string]int{V1: 3}, asked)
	}
}

// TestSignedSuccesses: an answer that is useless although its status is 200 is Graph's own
// under the same conditions as a refusal, and leaves open as ever whether a POST was done.
func TestSignedSuccesses(t *testing.T) {
	for by, s := range signatures {
		for _, body := range []string{"", "{}", `{"deploymentAccessKey":"k"`, "<html>", `{"deploymentAccessKey":"a","value":{"deploymentAccessKey":"b"}}`} {
			client, _ := answeredBy(t, func(r *http.Request) *http.Response { return answerOf(r, 200, s.headers, body, false) })
			_, _, err := client.DeploymentAccessKey(t.Context())
			require.Equal(t, s.without, failed(t, err).Signed, by)
			require.Equal(t, s.without && body == "{}", failed(t, err).NamesNoKey(), by)
			_, _, err = client.RegenerateDeploymentAccessKey(t.Context(), nil)
			require.True(t, failed(t, err).MayHaveHappened(), by)
		}
	}
}
