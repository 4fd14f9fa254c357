// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests in this file check settings that the API does not show.

func TestControlTenant(t *testing.T) {
	sim := Start(t)
	client, err := NewClient(sim.Info())
	require.NoError(t, err)
	secret := sim.App().ClientSecret
	require.NoError(t, client.Update(t.Context(), TenantChange{
		Roles: []string{"A"}, TokenLifetime: "5s", Shape: ShapeValueSensor, ExpireSecret: true, StaleReads: 2,
	}))
	s := sim.current()
	require.Equal(t, []string{"A"}, s.roles)
	require.Equal(t, 5*time.Second, s.tokenLifetime)
	require.Equal(t, ShapeValueSensor, s.shape)
	require.Equal(t, secret, s.passwords[0].value)
	require.False(t, s.clock().Before(s.passwords[0].end), "expired")
	require.Equal(t, 2, s.staleReads)

	require.NoError(t, client.Update(t.Context(), TenantChange{ClientSecret: "new"}))
	s = sim.current()
	require.Len(t, s.passwords, 1)
	require.Equal(t, "new", s.passwords[0].value)
	require.Equal(t, never, s.passwords[0].end)
	require.Equal(t, []string{"A"}, s.roles, "fields that are not set change nothing")
	require.Equal(t, 5*time.Second, s.tokenLifetime)

	require.NoError(t, client.Update(t.Context(), TenantChange{Roles: []string{}}))
	require.Empty(t, sim.current().roles)
	require.Error(t, client.Update(t.Context(), TenantChange{TokenLifetime: "soon"}))
	require.Error(t, client.Update(t.Context(), TenantChange{MaxCredentialLifetime: "soon"}))
	require.Error(t, client.Update(t.Context(), TenantChange{Shape: "round"}))
}

func TestControlTenantCredentials(t *testing.T) {
	sim := Start(t)
	client, err := NewClient(sim.Info())
	require.NoError(t, err)
	require.NoError(t, client.Update(t.Context(), TenantChange{
		Audience: "https://graph.microsoft.us", ServerNames: []string{"graph.test"}, ForeignSecret: "theirs",
		Propagation: []int{1, 1}, MaxCredentialLifetime: "1h", UserIdentities: []string{"user"}, Customers: []string{"customer"},
	}))
	s := sim.current()
	require.Equal(t, "https://graph.microsoft.us", s.audience)
	require.Equal(t, []string{"graph.test"}, s.serverNames)
	require.Equal(t, "theirs", s.passwords[1].name)
	require.Equal(t, []bool{false, true, false}, s.propagation)
	require.Equal(t, time.Hour, s.maxCredentialLifetime)
	require.Equal(t, []string{"user"}, s.userIdentities)
	require.Equal(t, []string{"customer"}, s.customers)

	require.NoError(t, client.Update(t.Context(), TenantChange{
		ServerNames: []string{}, Propagation: []int{}, MaxCredentialLifetime: "0s", UserIdentities: []string{}, Customers: []string{},
	}))
	s = sim.current()
	require.Empty(t, s.serverNames)
	require.Empty(t, s.propagation)
	require.Zero(t, s.maxCredentialLifetime)
	require.Empty(t, s.userIdentities)
	require.Empty(t, s.customers)
	require.Equal(t, "https://graph.microsoft.us", s.audience)
}

func TestAssertionIsTrustedOnce(t *testing.T) {
	sim, err := New()
	require.NoError(t, err)
	for range 2 {
		_, err := sim.Assertion(AssertionRequest{})
		require.NoError(t, err)
	}
	require.Len(t, sim.current().federations, 1)
}
