// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATenantThatWasKnownBefore(t *testing.T) {
	sim := Start(t, WithKey("the key"), WithPassword("the id", "the name", "the secret"))
	require.Equal(t, "the key", sim.Key())
	require.True(t, sim.CanRegister("the key"))
	require.Subset(t, sim.Issued(), []string{"the key", "the secret"})
	require.True(t, sim.RemoveInPortal("the id"))

	require.NotEqual(t, "the key", sim.RegenerateInPortal())
	sim.Update(WithKey("the key"))
	require.NotEqual(t, "the key", sim.Key(), "it has been replaced since")
	sim.Update(WithKey("another key"))
	require.Equal(t, "another key", sim.Key())
}

func TestAKnownTenantNeedsWhatWasKnown(t *testing.T) {
	for name, option := range map[string]Option{
		"key":    WithKey(""),
		"id":     WithPassword("", "", "the secret"),
		"secret": WithPassword("the id", "", ""),
	} {
		_, err := New(option)
		require.Error(t, err, name)
	}
}
