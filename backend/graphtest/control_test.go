// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newControlled(t *testing.T) (*tester, *Client) {
	t.Helper()
	c := newTester(t)
	client, err := NewClient(c.sim.Info())
	require.NoError(t, err)
	return c, client
}

func TestControlInfo(t *testing.T) {
	c := newTester(t)
	r, err := c.do(t.Context(), http.MethodGet, "/simulator/", "", http.Header{})
	require.NoError(t, err)
	var info Info
	require.NoError(t, json.Unmarshal([]byte(r.body), &info))
	app := c.sim.App()
	require.Equal(t, Info{
		TenantID: app.TenantID, ClientID: app.ClientID, ClientSecret: app.ClientSecret,
		URL: c.sim.URL(), CACertificate: c.sim.CACertificate(), ObjectID: c.sim.current().objectID,
		IdentityHeader: c.sim.IdentityHeader(),
	}, info)
	metadata := c.sim.StartMetadata(t)
	require.Equal(t, metadata, c.sim.Info().MetadataURL)
}

func TestControlCallsAndIssued(t *testing.T) {
	c, client := newControlled(t)
	c.call(Regenerate, c.token())
	require.NoError(t, client.RegenerateInPortal(t.Context()))

	calls, err := client.Calls(t.Context())
	require.NoError(t, err)
	one := Calls{1, 1, 1}
	require.Len(t, calls, len(Operations()))
	for op, n := range calls {
		require.Equal(t, map[Operation]Calls{Token: one, Regenerate: one}[op], n, op)
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
	c.sim.Inject(Fault{Operation: Register, Status: 503})
	_, err := client.Register(t.Context(), "any")
	require.ErrorContains(t, err, "503")
	c.sim.Clear()
	c.sim.Inject(Fault{Operation: Register, Lost: true})
	_, err = client.Register(t.Context(), "any")
	require.Error(t, err)
}

func TestControlFaults(t *testing.T) {
	c, client := newControlled(t)
	token := c.token()
	require.NoError(t, client.Inject(t.Context(),
		Fault{Operation: Get, Times: 1, Status: 503}, Fault{Operation: Get, Latency: time.Hour}))
	require.Equal(t, 503, c.call(Get, token).status)
	status := make(chan int, 1)
	go func() {
		r, _ := c.graph(t.Context(), Get, token)
		status <- r.status
	}()
	reached, err := client.Wait(t.Context(), WaitRequest{Operation: Get, Calls: Calls{Started: 2}, Timeout: "20s"})
	require.NoError(t, err)
	require.Equal(t, Calls{Started: 2, Answered: 1}, reached)
	require.NoError(t, client.Clear(t.Context()))
	require.Equal(t, 200, <-status)

	require.ErrorContains(t, client.Inject(t.Context(), Fault{Status: 1}), "status 1")
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
	require.Len(t, c.sim.faults, 2)
}

func TestControlWait(t *testing.T) {
	c, client := newControlled(t)
	wait := func(w WaitRequest) error {
		_, err := client.Wait(t.Context(), w)
		return err
	}
	require.ErrorContains(t, wait(WaitRequest{Operation: Get, Calls: Calls{Performed: 1}, Timeout: "1ms"}), "408")
	require.ErrorContains(t, wait(WaitRequest{Operation: "gets"}), "unknown operation")
	require.ErrorContains(t, wait(WaitRequest{Operation: Get, Timeout: "soon"}), "duration")

	failed := make(chan error, 1)
	go func() { failed <- wait(WaitRequest{Operation: Get, Calls: Calls{Started: 1}}) }()
	c.call(Get, "")
	require.NoError(t, <-failed)
}

func TestControlTenant(t *testing.T) {
	c, client := newControlled(t)
	secret := c.sim.App().ClientSecret
	require.NoError(t, client.Update(t.Context(), TenantChange{
		Roles: []string{"A"}, TokenLifetime: "5s", Shape: ShapeRoot, ExpireSecret: true, StaleReads: 2,
	}))
	s := c.sim.current()
	require.Equal(t, []string{"A"}, s.roles)
	require.Equal(t, 5*time.Second, s.tokenLifetime)
	require.Equal(t, ShapeRoot, s.shape)
	require.Equal(t, secret, s.passwords[0].value)
	require.False(t, s.clock().Before(s.passwords[0].end), "expired")
	require.Equal(t, 2, s.staleReads)

	require.NoError(t, client.Update(t.Context(), TenantChange{ClientSecret: "new"}))
	s = c.sim.current()
	require.Len(t, s.passwords, 1)
	require.Equal(t, "new", s.passwords[0].value)
	require.Equal(t, never, s.passwords[0].end)
	require.Equal(t, []string{"A"}, s.roles, "what is not named stays")
	require.Equal(t, 5*time.Second, s.tokenLifetime)

	require.NoError(t, client.Update(t.Context(), TenantChange{Roles: []string{}}))
	require.Empty(t, c.sim.current().roles)
	require.Error(t, client.Update(t.Context(), TenantChange{TokenLifetime: "soon"}))
	require.Error(t, client.Update(t.Context(), TenantChange{MaxCredentialLifetime: "soon"}))
	require.Error(t, client.Update(t.Context(), TenantChange{Shape: "round"}))
}

func TestClientErrors(t *testing.T) {
	_, err := NewClient(Info{CACertificate: "none"})
	require.Error(t, err)
	c, client := newControlled(t)
	require.NoError(t, c.sim.Close())
	require.Error(t, client.Clear(t.Context()))
	client.info.URL = "https://broken host"
	require.Error(t, client.Clear(t.Context()))
	require.EqualError(t, statusError(502, []byte("<html>")), "the simulator answers 502")
}
