// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func TestAKnownTenant(t *testing.T) {
	sim := graphtest.Start(t, graphtest.WithKey("the key"), graphtest.WithPassword("the id", "the name", "the secret"))
	require.Equal(t, "the key", sim.Key())
	require.True(t, sim.CanRegister("the key"))
	require.Subset(t, sim.Issued(), []string{"the key", "the secret"})
	require.True(t, sim.RemoveInPortal("the id"))

	require.NotEqual(t, "the key", sim.RegenerateInPortal())
	sim.Update(graphtest.WithKey("the key"))
	require.NotEqual(t, "the key", sim.Key(), "the key has been replaced since")
	sim.Update(graphtest.WithKey("another key"))
	require.Equal(t, "another key", sim.Key())
}

func TestAKnownTenantNeedsIDsAndSecrets(t *testing.T) {
	for name, option := range map[string]graphtest.Option{
		"key":    graphtest.WithKey(""),
		"id":     graphtest.WithPassword("", "", "the secret"),
		"secret": graphtest.WithPassword("the id", "", ""),
	} {
		_, err := graphtest.New(option)
		require.Error(t, err, name)
	}
}
