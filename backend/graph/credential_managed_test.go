// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const userIdentity = "0f9f1f0e-0a53-4a3e-9f0c-3f6c3d0b8f01"

// withoutIdentity hides the test machine's own variables for managed identities.
func withoutIdentity(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT",
		"MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT",
	} {
		t.Setenv(name, "")
	}
}

// appService sets the variables that App Service sets.
func appService(t *testing.T, endpoint, header string) {
	t.Helper()
	withoutIdentity(t)
	t.Setenv("IDENTITY_ENDPOINT", endpoint)
	t.Setenv("IDENTITY_HEADER", header)
}

// managed changes a configuration to a managed identity, which needs no ids.
func managed(clientID string) func(*Config) {
	return func(c *Config) {
		c.TenantID, c.ClientID, c.Credential = "", clientID, ManagedIdentity{}
	}
}

// metadataService redirects a client's requests to the machine's metadata service, which
// has a fixed address, to a handler. It returns these requests.
func metadataService(t *testing.T, client *Client, clientID string, handler http.Handler) *[]*http.Request {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	seen := &[]*http.Request{}
	metadata := newHTTPClient("", nil, true)
	metadata.Transport.(*exchange).next = func() http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			*seen = append(*seen, r)
			r = r.Clone(r.Context())
			r.URL.Host = at.Host
			return server.Client().Transport.RoundTrip(r)
		})
	}
	client.newIssuer = func() (issuer, error) {
		return ManagedIdentity{}.issuerThrough(metadata, &Config{Cloud: clouds[0], ClientID: clientID})
	}
	require.NoError(t, client.renew(client.session.Load(), ""))
	client.sleep = (&waits{}).sleep
	return seen
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestManagedIdentityOfAppService(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithUserIdentities(userIdentity))
	endpoint := sim.StartMetadata(t) + "/msi/token"
	for name, clientID := range map[string]string{"system": "", "user": userIdentity} {
		t.Run(name, func(t *testing.T) {
			appService(t, endpoint, sim.IdentityHeader())
			before := sim.Calls(graphtest.ManagedIdentity).Started
			var log safeBuffer
			client, _ := simulated(t, sim, managed(clientID))
			key, _, err := client.RegenerateDeploymentAccessKey(logging(t, &log), nil)
			require.NoError(t, err)
			require.True(t, sim.CanRegister(key))
			_, _, err = client.DeploymentAccessKey(t.Context())
			require.NoError(t, err)
			require.Equal(t, before+1, sim.Calls(graphtest.ManagedIdentity).Started, "the token is cached")
			require.Zero(t, sim.Calls(graphtest.Token).Started)
			require.Contains(t, log.String(), "/msi/token")
			requireNoSecrets(t, sim, log.String())
		})
	}
}

func TestManagedIdentityOfAVirtualMachine(t *testing.T) {
	withoutIdentity(t)
	sim := graphtest.Start(t, graphtest.WithUserIdentities(userIdentity))
	for name, clientID := range map[string]string{"system": "", "user": userIdentity} {
		t.Run(name, func(t *testing.T) {
			client, _ := simulated(t, sim, managed(clientID))
			seen := metadataService(t, client, clientID, sim.MetadataHandler())
			_, _, err := client.DeploymentAccessKey(t.Context())
			require.NoError(t, err)
			require.Len(t, *seen, 1)
			require.Equal(t, "http://169.254.169.254", (*seen)[0].URL.Scheme+"://"+(*seen)[0].URL.Host)
			require.Equal(t, "https://graph.microsoft.com", (*seen)[0].URL.Query().Get("resource"))
		})
	}
}

// TestTheMetadataServiceNeedsNoProxy: for other requests, the environment decides.
func TestTheMetadataServiceNeedsNoProxy(t *testing.T) {
	next := func(c *http.Client) http.RoundTripper { return c.Transport.(*exchange).next() }
	require.Nil(t, next(newHTTPClient("", nil, true)).(*http.Transport).Proxy)
	require.NotNil(t, next(clientOf(t, nil).http).(*http.Transport).Proxy)
}

// TestTokensOfManagedIdentitiesAreDropped: MSAL would cache them until the process ends.
func TestTokensOfManagedIdentitiesAreDropped(t *testing.T) {
	sim := graphtest.Start(t)
	appService(t, sim.StartMetadata(t)+"/msi/token", sim.IdentityHeader())
	client, _ := simulated(t, sim, managed(""))
	old, _, err := client.token(t.Context())
	require.NoError(t, err)

	another, _ := simulated(t, sim, managed(""))
	other, _, err := another.token(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, old, other, "a new configuration gets a new token")

	// The client did not declare to understand challenges, so this is a plain 401.
	sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})
	_, _, err = client.DeploymentAccessKey(t.Context())
	require.NoError(t, err)
	fresh, _, err := client.token(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, old, fresh)
	require.Equal(t, 3, sim.Calls(graphtest.ManagedIdentity).Started)
}

func TestTokensOfManagedIdentitiesAreReplacedInTime(t *testing.T) {
	for lifetime, want := range map[time.Duration]int{freshness - time.Second: 2, freshness + time.Minute: 1} {
		sim := graphtest.Start(t, graphtest.WithTokenLifetime(lifetime))
		appService(t, sim.StartMetadata(t)+"/msi/token", sim.IdentityHeader())
		client, _ := simulated(t, sim, managed(""))
		require.NoError(t, client.SignIn(t.Context()))
		require.NoError(t, client.SignIn(t.Context()))
		require.Equal(t, want, sim.Calls(graphtest.ManagedIdentity).Started)
	}
}

func TestManyCallersShareAManagedIdentity(t *testing.T) {
	const callers = 50
	sim := graphtest.Start(t)
	appService(t, sim.StartMetadata(t)+"/msi/token", sim.IdentityHeader())
	client, _ := simulated(t, sim, managed(""))
	require.Equal(t, make([]error, callers), signInTogether(t, sim, graphtest.ManagedIdentity, client, callers))
	require.Equal(t, 1, sim.Calls(graphtest.ManagedIdentity).Started)
}

func TestManagedIdentityRefused(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithSystemIdentity(false), graphtest.WithUserIdentities(userIdentity))
	metadata := sim.StartMetadata(t) + "/msi/token"
	for name, test := range map[string]struct {
		header, clientID string
		change           func(*Config)
		status           int
	}{
		"no system identity": {header: sim.IdentityHeader(), status: 400},
		"another identity":   {header: sim.IdentityHeader(), clientID: strings.ToLower("A" + userIdentity[1:]), status: 400},
		"another cloud":      {header: sim.IdentityHeader(), clientID: userIdentity, change: func(c *Config) { c.Cloud = clouds[1] }, status: 400},
		"wrong header":       {header: "hunter2", clientID: userIdentity, status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			appService(t, metadata, test.header)
			client, _ := simulated(t, sim, func(c *Config) {
				managed(test.clientID)(c)
				if test.change != nil {
					test.change(c)
				}
			})
			e := failed(t, client.SignIn(t.Context()))
			require.Equal(t, &Error{Op: OpSignIn, Kind: Refused, Status: test.status, managed: true}, e)
			require.Contains(t, e.Hint(), "client_id")
			require.False(t, e.MayHaveHappened())
			require.NotContains(t, everythingAbout(e), "hunter2")
		})
	}
}

func TestManagedIdentityUnreachable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	appService(t, closed.URL, "hunter2")
	client, err := New(validConfig(managed("")))
	require.NoError(t, err)
	e := failed(t, client.SignIn(t.Context()))
	require.Equal(t, &Error{Op: OpSignIn, Kind: Unavailable, Reason: "the connection was refused", managed: true}, e)
	require.Contains(t, e.Hint(), "Azure")
}

func TestAnswersOfTheMetadataService(t *testing.T) {
	withoutIdentity(t)
	good := fmt.Sprintf(`{"access_token":"hunter2","expires_in":"3600","expires_on":"%d"}`, time.Now().Add(time.Hour).Unix())
	const bad = `{"error":"invalid_request","error_description":"hunter2"}`
	for name, test := range map[string]struct {
		first    int // status
		body     string
		attempts int32
		want     *Error
		hint     bool
	}{
		"good":           {200, good, 1, nil, false},
		"being updated":  {410, bad, 2, nil, false},
		"not found":      {404, bad, 2, nil, false},
		"throttled":      {429, bad, 2, nil, false},
		"too slow":       {408, bad, 2, nil, false},
		"broken":         {500, bad, 2, nil, false},
		"refused":        {400, bad, 1, &Error{Kind: Refused, Status: 400}, true},
		"redirected":     {302, bad, 1, &Error{Kind: Refused, Status: 302, Reason: "a redirect was refused"}, false},
		"a page":         {200, "<html>hunter2", 1, &Error{Kind: Unreadable, Reason: reasonUnreadable}, false},
		"no token":       {200, `{"expires_in":"3600"}`, 1, &Error{Kind: Unreadable, Reason: "the answer contains no token"}, false},
		"no end":         {200, `{"access_token":"hunter2"}`, 1, &Error{Kind: Unreadable, Reason: reasonUnreadable}, false},
		"without an end": {200, strings.Repeat(" ", maxBodyBytes+1), 1, &Error{Kind: Unreadable, Reason: "the answer is larger than 1 MiB"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := New(validConfig(managed("")))
			require.NoError(t, err)
			var calls atomic.Int32
			metadataService(t, client, "", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				status, body := http.StatusOK, good
				if calls.Add(1) == 1 {
					status, body = test.first, test.body
				}
				w.Header().Set("Location", "https://example.com/hunter2")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
			}))
			err = client.SignIn(t.Context())
			require.Equal(t, test.attempts, calls.Load())
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			e := failed(t, err)
			test.want.Op, test.want.managed = OpSignIn, true
			require.Equal(t, test.want, e)
			require.NotContains(t, everythingAbout(err), "hunter2")
			require.Equal(t, test.hint, e.Hint() != "")
		})
	}
}

func TestManagedIdentityIsChecked(t *testing.T) {
	withoutIdentity(t)
	for name, test := range map[string]struct {
		field  string
		change func(*Config)
		env    map[string]string
	}{
		"identity with a query": {"client_id", func(c *Config) { c.ClientID, c.Credential = "x&resource=y", ManagedIdentity{} }, nil},
		"tenant with a query":   {"tenant_id", func(c *Config) { c.TenantID, c.Credential = "x?y", ManagedIdentity{} }, nil},
		"what the source cannot": {"credential_type", managed(userIdentity), map[string]string{
			"MSI_ENDPOINT": "http://localhost:50342/oauth2/token", // Cloud Shell
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range test.env {
				t.Setenv(variable, value)
			}
			_, err := New(validConfig(test.change))
			e, ok := errors.AsType[*ConfigError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, test.field, e.Field)
		})
	}
}

// TestTheMetadataServiceIsSilent: the caller leaves before the sign-in times out, and the
// error still says which endpoint did not answer.
func TestTheMetadataServiceIsSilent(t *testing.T) {
	sim := graphtest.Start(t)
	appService(t, sim.StartMetadata(t)+"/msi/token", sim.IdentityHeader())
	client, _ := simulated(t, sim, managed(""))
	sim.Inject(graphtest.Fault{Operation: graphtest.ManagedIdentity, Times: 1, Latency: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e := failed(t, client.SignIn(ctx))
	require.Equal(t, &Error{Op: OpSignIn, Kind: Timeout, Reason: reasonNoAnswer, managed: true}, e)
	require.Contains(t, e.Hint(), "managed identity endpoint")
	sim.Clear()
}

func TestGraphRefusesAManagedIdentity(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithRoles(graphtest.RoleRead))
	appService(t, sim.StartMetadata(t)+"/msi/token", sim.IdentityHeader())
	client, _ := simulated(t, sim, managed(""))
	_, _, err := client.DeploymentAccessKey(t.Context())
	e := failed(t, err)
	require.Equal(t, http.StatusForbidden, e.Status)
	require.Contains(t, e.Hint(), "service principal")
	require.Contains(t, e.Hint(), client.GrantHint(Permission))
}

// TestTheMetadataServiceStaysBusy: what passes is repeated, and then not taken for an
// identity that is missing. Other refusals are not repeated.
func TestTheMetadataServiceStaysBusy(t *testing.T) {
	withoutIdentity(t)
	for status := 400; status < 600; status++ {
		client, err := New(validConfig(managed(userIdentity)))
		require.NoError(t, err)
		seen := metadataService(t, client, userIdentity, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"error":"hunter2"}`))
		}))
		e := failed(t, client.SignIn(t.Context()))
		busy := status == 408 || status == 410 || status == 429 || status >= 500
		require.Equal(t, []any{status, "", busy}, []any{e.Status, e.Code, e.Kind == Unavailable || e.Kind == Throttled})
		if busy {
			require.Contains(t, e.Hint(), "being updated or overloaded, which can take 70 seconds")
		} else {
			require.Contains(t, e.Hint(), "check that it is assigned")
		}
		attempts := 1
		if busy || status == http.StatusNotFound {
			attempts = 1 + maxRepetitions
		}
		require.Len(t, *seen, attempts, status)
	}
}

// arcAgent starts an agent of Azure Arc on this machine, and counts its requests.
func arcAgent(t *testing.T, answer http.HandlerFunc) *atomic.Int32 {
	t.Helper()
	withoutIdentity(t)
	requests := &atomic.Int32{}
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("resource") == "" {
			t.Error("no request for a token")
		}
		answer(w, r)
	}))
	t.Cleanup(agent.Close)
	t.Setenv("IDENTITY_ENDPOINT", agent.URL+"/metadata/identity/oauth2/token")
	t.Setenv("IMDS_ENDPOINT", agent.URL)
	return requests
}

// namesKeyFile answers like an agent: the client has to quote the file that is named. This one
// no account can read, since it is not there; MSAL accepts no other folder.
func namesKeyFile(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("WWW-Authenticate", "Basic realm=/var/opt/azcmagent/tokens/hunter2.key")
	w.WriteHeader(http.StatusUnauthorized)
}

func TestTheKeyFileOfAzureArcCannotBeRead(t *testing.T) {
	for _, clientID := range []string{"", userIdentity} {
		requests := arcAgent(t, namesKeyFile)
		client, err := New(validConfig(managed(clientID)))
		require.NoError(t, err)
		e := failed(t, client.SignIn(t.Context()))
		require.Equal(t, []any{OpSignIn, Refused, 0, true}, []any{e.Op, e.Kind, e.Status, e.managed})
		require.Contains(t, e.Reason, "cannot read the key file")
		require.Contains(t, e.Reason, "himds")
		require.NotContains(t, Explain(e), "client_id")
		require.NotContains(t, Explain(e), "works only on Azure")
		require.NotContains(t, everythingAbout(e), "hunter2")
		require.False(t, e.FoundNobody())
		require.EqualValues(t, 1, requests.Load())
	}
}

// TestMSALsErrorsAboutTheKeyFile: they have no type. These are its texts about files that are
// there.
func TestMSALsErrorsAboutTheKeyFile(t *testing.T) {
	for _, cause := range []string{"permission denied", "is a directory", "Access is denied."} {
		for _, text := range []string{"failed to get metadata for /x.key due to error: stat /x.key: ", `failed to read "C:\\x.key" due to error: open C:\x.key: `} {
			e := failure(t.Context(), errors.New(text+cause))
			require.Equal(t, Refused, e.Kind)
			require.Contains(t, e.Reason, "himds")
		}
	}
}

// TestTheAgentOfAzureArcRefuses: MSAL says of the first answer only that it is no 401.
func TestTheAgentOfAzureArcRefuses(t *testing.T) {
	for _, clientID := range []string{"", userIdentity} {
		for _, status := range []int{200, 302, 400, 403, 404, 408, 410, 429, 500, 502, 503} {
			requests := arcAgent(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("x-ms-request-id", "an-id")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(`{"access_token":"hunter2"}`))
			})
			client, err := New(validConfig(managed(clientID)))
			require.NoError(t, err)
			client.sleep = (&waits{}).sleep
			e := failed(t, client.SignIn(t.Context()))
			name := fmt.Sprint(status, " ", clientID)
			require.NotContains(t, everythingAbout(e), "hunter2", name)
			if status == http.StatusOK {
				require.Equal(t, clientID != "", e.Kind == Refused, name)
			} else {
				require.Equal(t, []any{status, kindOf(status), "an-id"}, []any{e.Status, e.Kind, e.RequestID}, name)
			}
			asks := clientID != "" && e.Kind == Refused && status != 302
			require.Equal(t, asks, strings.Contains(Explain(e), "user-assigned identities do not exist"), name)
			require.NotContains(t, Explain(e), "himds", name)
			repeated := status == 404 || e.Kind == Unavailable || e.Kind == Throttled
			require.Equal(t, repeated, requests.Load() > 1, name)
		}
	}
}

// TestNoAgentOfAzureArc: the variables are left over, and nothing listens.
func TestNoAgentOfAzureArc(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	withoutIdentity(t)
	t.Setenv("IDENTITY_ENDPOINT", closed.URL)
	t.Setenv("IMDS_ENDPOINT", closed.URL)
	client, err := New(validConfig(managed(userIdentity)))
	require.NoError(t, err)
	e := failed(t, client.SignIn(t.Context()))
	require.Equal(t, &Error{Op: OpSignIn, Kind: Unavailable, Reason: "the connection was refused", managed: true}, e)
}
