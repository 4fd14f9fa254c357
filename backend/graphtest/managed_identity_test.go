// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const (
	appServicePath = "/msi/token"
	metadataPath   = "/metadata/identity/oauth2/token"
)

// newIdentityToken returns a token of the system-assigned identity.
func newIdentityToken(t *testing.T, sim *graphtest.Simulator) (string, error) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet,
		metadataPath+"?api-version=2018-02-01&resource=https://graph.microsoft.com", nil)
	r.Header.Set("Metadata", "true")
	recorder := httptest.NewRecorder()
	sim.MetadataHandler().ServeHTTP(recorder, r)
	var body struct {
		Token string `json:"access_token"`
	}
	err := json.Unmarshal(recorder.Body.Bytes(), &body)
	return body.Token, err
}

// toMetadata redirects requests to the metadata service's real address.
type toMetadata struct{ host string }

func (m toMetadata) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.URL.Host == "169.254.169.254" {
		r.URL.Host = m.host
	}
	return http.DefaultTransport.RoundTrip(r)
}

// newAudience returns an audience for one test: MSAL's cache belongs to the process and
// knows only resources and identities.
func newAudience() string { return "https://" + uuid.NewString() + ".test" }

func TestMSALManagedIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		appService bool
		id         managedidentity.ID
		appID      string
	}{
		"App Service, system": {true, managedidentity.SystemAssigned(), ""},
		"App Service, user":   {true, managedidentity.UserAssignedClientID("user"), "user"},
		"metadata, system":    {false, managedidentity.SystemAssigned(), ""},
		"metadata, user":      {false, managedidentity.UserAssignedClientID("user"), "user"},
	} {
		t.Run(name, func(t *testing.T) {
			audience := newAudience()
			c := newTester(t, graphtest.WithAudience(audience), graphtest.WithUserIdentities("other", "user"), graphtest.WithTokenLifetime(90*time.Minute))
			root := c.sim.StartMetadata(t)
			if test.appService {
				t.Setenv("IDENTITY_ENDPOINT", root+appServicePath)
				t.Setenv("IDENTITY_HEADER", c.sim.IdentityHeader())
			}
			client, err := managedidentity.New(test.id, managedidentity.WithRetryPolicyDisabled(),
				managedidentity.WithHTTPClient(&http.Client{Transport: toMetadata{root[len("http://"):]}}))
			require.NoError(t, err)
			token, err := client.AcquireToken(t.Context(), audience)
			require.NoError(t, err)
			require.WithinDuration(t, time.Now().Add(90*time.Minute), token.ExpiresOn, time.Minute)
			require.Equal(t, http.StatusOK, c.call(graphtest.Get, token.AccessToken).status)
			appID := claimsIn(t, token.AccessToken)["appid"].(string)
			if test.appID == "" {
				require.NoError(t, uuid.Validate(appID))
				require.NotEqual(t, c.sim.App().ClientID, appID)
			} else {
				require.Equal(t, test.appID, appID)
			}
			require.Equal(t, graphtest.Calls{1, 1, 1}, c.sim.Calls(graphtest.ManagedIdentity))
			require.Zero(t, c.sim.Calls(graphtest.Token))
			require.Contains(t, c.sim.Issued(), token.AccessToken)
			require.Contains(t, c.sim.Issued(), c.sim.IdentityHeader())
		})
	}
}

func TestManagedIdentityRefused(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithUserIdentities("user"))
	root := sim.StartMetadata(t)
	type request struct {
		method string
		query  url.Values
		header http.Header
	}
	get := func(path string, change func(*request)) (int, map[string]any) {
		r := request{http.MethodGet, url.Values{"resource": {"https://graph.microsoft.com/"}}, http.Header{}}
		if path == appServicePath {
			r.query.Set("api-version", "2019-08-01")
			r.header.Set("X-Identity-Header", sim.IdentityHeader())
		} else {
			r.query.Set("api-version", "2018-02-01")
			r.header.Set("Metadata", "True")
		}
		change(&r)
		req, err := http.NewRequestWithContext(t.Context(), r.method, root+path+"?"+r.query.Encode(), nil)
		require.NoError(t, err)
		req.Header = r.header
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		var body map[string]any
		require.NoError(t, json.Unmarshal(text, &body))
		return resp.StatusCode, body
	}
	objectID, resourceID := graphtest.UserIdentity("user")
	resource := map[string]string{appServicePath: "mi_res_id", metadataPath: "msi_res_id"}
	for _, path := range []string{appServicePath, metadataPath} {
		set := func(name, value string) func(*request) { return func(r *request) { r.query.Set(name, value) } }
		for name, test := range map[string]struct {
			change func(*request)
			status int
		}{
			"good":             {func(*request) {}, 200},
			"user-assigned":    {set("client_id", "USER"), 200},
			"by object id":     {set("object_id", objectID), 200},
			"by resource id":   {set(resource[path], resourceID), 200},
			"by two names":     {func(r *request) { set("client_id", "user")(r); set("object_id", objectID)(r) }, 400},
			"unknown identity": {set("client_id", "other"), 400},
			"no resource":      {set("resource", ""), 400},
			"another resource": {set("resource", "https://graph.microsoft.us"), 400},
			"another version":  {set("api-version", "2017-09-01"), 400},
			"POST":             {func(r *request) { r.method = http.MethodPost }, 400},
		} {
			status, body := get(path, test.change)
			require.Equal(t, test.status, status, name)
			if status == http.StatusOK {
				require.Equal(t, "Bearer", body["token_type"])
				continue
			}
			if path == appServicePath {
				require.NotEmpty(t, body["message"], name)
			} else {
				require.Equal(t, "invalid_request", body["error"], name)
			}
		}
		sim.Update(graphtest.WithSystemIdentity(false))
		status, _ := get(path, func(*request) {})
		require.Equal(t, http.StatusBadRequest, status)
		sim.Update(graphtest.WithSystemIdentity(true))

		sim.Inject(graphtest.Fault{Operation: graphtest.ManagedIdentity, Times: 1, Status: 429, RetryAfter: "2"})
		status, body := get(path, func(*request) {})
		require.Equal(t, http.StatusTooManyRequests, status)
		require.Equal(t, "invalid_request", body["error"])
	}
	status, _ := get(appServicePath, func(r *request) { r.header.Set("X-Identity-Header", "wrong") })
	require.Equal(t, http.StatusUnauthorized, status)
	status, _ = get(metadataPath, func(r *request) { r.header.Del("Metadata") })
	require.Equal(t, http.StatusBadRequest, status)
	status, _ = get(metadataPath, func(r *request) { r.header.Set("X-Forwarded-For", "192.0.2.1") })
	require.Equal(t, http.StatusBadRequest, status, "through a proxy")
}

func TestListenMetadataFails(t *testing.T) {
	sim, err := graphtest.New()
	require.NoError(t, err)
	_, err = sim.ListenMetadata(t.Context(), "no address")
	require.Error(t, err)
	ln, err := sim.ListenMetadata(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	require.Error(t, sim.ServeMetadata(ln))
}
