// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func newControlled(t *testing.T) (*tester, *graphtest.Client) {
	t.Helper()
	c := newTester(t)
	client, err := graphtest.NewClient(c.sim.Info())
	require.NoError(t, err)
	return c, client
}

func TestControlInfo(t *testing.T) {
	c := newTester(t)
	r, err := c.do(t.Context(), http.MethodGet, "/simulator/", "", http.Header{})
	require.NoError(t, err)
	var info graphtest.Info
	require.NoError(t, json.Unmarshal([]byte(r.body), &info))
	app := c.sim.App()
	require.Equal(t, graphtest.Info{
		TenantID: app.TenantID, ClientID: app.ClientID, ClientSecret: app.ClientSecret,
		URL: c.sim.URL(), CACertificate: c.sim.CACertificate(), ObjectID: c.sim.Info().ObjectID,
		IdentityHeader: c.sim.IdentityHeader(),
	}, info)
	metadata := c.sim.StartMetadata(t)
	require.Equal(t, metadata, c.sim.Info().MetadataURL)
}

func TestControlCallsAndIssued(t *testing.T) {
	c, client := newControlled(t)
	c.call(graphtest.Regenerate, c.token())
	require.NoError(t, client.RegenerateInPortal(t.Context()))

	calls, err := client.Calls(t.Context())
	require.NoError(t, err)
	one := graphtest.Calls{1, 1, 1}
	require.Len(t, calls, len(graphtest.Operations()))
	for op, n := range calls {
		require.Equal(t, map[graphtest.Operation]graphtest.Calls{graphtest.Token: one, graphtest.Regenerate: one}[op], n, op)
	}

	issued, err := client.Issued(t.Context())
	require.NoError(t, err)
	require.Equal(t, c.sim.Issued(), issued)
	require.Len(t, issued, 6)
	require.Equal(t, c.sim.Key(), issued[5])
}

func TestControlRegister(t *testing.T) {
	c, client := newControlled(t)
	for key, want := range map[string]bool{c.sim.Key(): true, c.sim.Key() + "\n": false} {
		registered, err := client.Register(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, want, registered)
	}
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Register, Status: 503})
	_, err := client.Register(t.Context(), "any")
	require.ErrorContains(t, err, "503")
	c.sim.Clear()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Register, Lost: true})
	_, err = client.Register(t.Context(), "any")
	require.Error(t, err)
}

func TestControlFaults(t *testing.T) {
	c, client := newControlled(t)
	token := c.token()
	require.NoError(t, client.Inject(t.Context(),
		graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 503}, graphtest.Fault{Operation: graphtest.Get, Latency: time.Hour}))
	require.Equal(t, 503, c.call(graphtest.Get, token).status)
	status := make(chan int, 1)
	go func() {
		r, _ := c.graph(t.Context(), graphtest.Get, token)
		status <- r.status
	}()
	reached, err := client.Wait(t.Context(), graphtest.WaitRequest{Operation: graphtest.Get, Calls: graphtest.Calls{Started: 2}, Timeout: "20s"})
	require.NoError(t, err)
	require.Equal(t, graphtest.Calls{Started: 2, Answered: 1}, reached)
	require.NoError(t, client.Clear(t.Context()))
	require.Equal(t, 200, <-status)

	require.ErrorContains(t, client.Inject(t.Context(), graphtest.Fault{Status: 1}), "status 1")
	for body, want := range map[string]int{
		`{"operation":"get","status":500,"times":1}`:   http.StatusNoContent,
		`[{"operation":"get","status":500,"times":1}]`: http.StatusNoContent,
		`{"stat":500}`: http.StatusBadRequest,
		`broken`:       http.StatusBadRequest,
	} {
		r, err := c.do(t.Context(), http.MethodPost, "/simulator/faults", body, http.Header{})
		require.NoError(t, err)
		require.Equal(t, want, r.status, body)
	}
	require.Equal(t, []int{500, 500, 200}, []int{c.call(graphtest.Get, token).status, c.call(graphtest.Get, token).status, c.call(graphtest.Get, token).status})
}

func TestControlWait(t *testing.T) {
	c, client := newControlled(t)
	wait := func(w graphtest.WaitRequest) error {
		_, err := client.Wait(t.Context(), w)
		return err
	}
	require.ErrorContains(t, wait(graphtest.WaitRequest{Operation: graphtest.Get, Calls: graphtest.Calls{Performed: 1}, Timeout: "1ms"}), "408")
	require.ErrorContains(t, wait(graphtest.WaitRequest{Operation: "gets"}), "unknown operation")
	require.ErrorContains(t, wait(graphtest.WaitRequest{Operation: graphtest.Get, Timeout: "soon"}), "duration")

	failed := make(chan error, 1)
	go func() {
		failed <- wait(graphtest.WaitRequest{Operation: graphtest.Get, Calls: graphtest.Calls{Started: 1}})
	}()
	c.call(graphtest.Get, "")
	require.NoError(t, <-failed)
}

func TestClientErrors(t *testing.T) {
	_, err := graphtest.NewClient(graphtest.Info{CACertificate: "none"})
	require.Error(t, err)
	c, client := newControlled(t)
	require.NoError(t, c.sim.Close())
	require.Error(t, client.Clear(t.Context()))
	broken := c.sim.Info()
	broken.URL = "https://broken host"
	client, err = graphtest.NewClient(broken)
	require.NoError(t, err)
	require.Error(t, client.Clear(t.Context()))

	c, client = newControlled(t)
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Register, Status: 502, Body: graphtest.BodyHTML})
	_, err = client.Register(t.Context(), "key")
	require.EqualError(t, err, "the simulator answers 502")
}
