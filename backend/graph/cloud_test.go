// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCloudNamed(t *testing.T) {
	for name, want := range map[string]Cloud{
		"AzurePublicCloud":          {"AzurePublicCloud", "https://graph.microsoft.com", "https://login.microsoftonline.com"},
		"AzureUSGovernmentCloud":    {"AzureUSGovernmentCloud", "https://graph.microsoft.us", "https://login.microsoftonline.us"},
		"AzureUSGovernmentDoDCloud": {"AzureUSGovernmentDoDCloud", "https://dod-graph.microsoft.us", "https://login.microsoftonline.us"},
	} {
		got, err := CloudNamed(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Contains(t, CloudNames(), name)
	}
	require.Equal(t, AzurePublicCloud, CloudNames()[0])
}

func TestCloudNamedRefusesChinaWithTheReason(t *testing.T) {
	_, err := CloudNamed("AzureChinaCloud")
	require.ErrorContains(t, err, "Microsoft does not offer")
	require.NotContains(t, CloudNames(), "AzureChinaCloud")
}

func TestCloudNamedListsWhatThereIs(t *testing.T) {
	for _, name := range []string{"", "azurepubliccloud", "AzureGermanCloud"} {
		_, err := CloudNamed(name)
		require.Error(t, err)
		for _, allowed := range CloudNames() {
			require.ErrorContains(t, err, allowed)
		}
	}
}
