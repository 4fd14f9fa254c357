// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestRoles(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithRoles(graphtest.RoleRead, graphtest.RoleOwnedBy))
	client, _ := simulated(t, sim, nil)
	roles, ok := client.Roles(t.Context())
	require.True(t, ok)
	require.Equal(t, []string{PackagePermission, ApplicationPermission}, roles)
	require.Equal(t, 1, sim.Calls(graphtest.Token).Started)
	_, _, err := client.DeploymentAccessKey(t.Context())
	require.Error(t, err)
	require.Equal(t, 1, sim.Calls(graphtest.Token).Started, "the roles are those of the token in use")

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, ok = client.Roles(gone)
	require.False(t, ok)

	client, _ = simulated(t, sim, func(c *Config) { c.Credential = ClientSecret("another") })
	_, ok = client.Roles(t.Context())
	require.False(t, ok, "not signed in")
}

func TestRolesInTokens(t *testing.T) {
	jwt := func(payload string) string {
		return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	}
	for name, test := range map[string]struct {
		bearer string
		roles  []string
		ok     bool
	}{
		"roles":           {jwt(`{"iss":"x","roles":["a","b"]}`), []string{"a", "b"}, true},
		"none":            {jwt(`{"iss":"x"}`), nil, true},
		"opaque":          {"EwBIA8l6BAAU", nil, false},
		"encrypted":       {"a.b.c.d.e", nil, false},
		"not base64":      {"a.!.c", nil, false},
		"not JSON":        {jwt("x"), nil, false},
		"another purpose": {jwt(`{}`), nil, false},
	} {
		client := &Client{}
		signInBy(t, client, func(context.Context, string) (string, error) { return test.bearer, nil })
		roles, ok := client.Roles(t.Context())
		require.Equal(t, test.ok, ok, name)
		require.Equal(t, test.roles, roles, name)
	}
}
