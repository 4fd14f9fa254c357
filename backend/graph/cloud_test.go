// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"cmp"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

func TestCloudNamed(t *testing.T) {
	for name, want := range map[string]graph.Cloud{
		"AzurePublicCloud":          {"AzurePublicCloud", "https://graph.microsoft.com", "https://login.microsoftonline.com"},
		"AzureUSGovernmentCloud":    {"AzureUSGovernmentCloud", "https://graph.microsoft.us", "https://login.microsoftonline.us"},
		"AzureUSGovernmentDoDCloud": {"AzureUSGovernmentDoDCloud", "https://dod-graph.microsoft.us", "https://login.microsoftonline.us"},
	} {
		got, err := graph.CloudNamed(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Contains(t, graph.CloudNames, name)
	}
	require.Len(t, graph.CloudNames, 3)
	require.Equal(t, graph.AzurePublicCloud, graph.CloudNames[0])
}

func TestCloudNamedRefusesChinaWithTheReason(t *testing.T) {
	_, err := graph.CloudNamed("AzureChinaCloud")
	require.ErrorContains(t, err, "Microsoft does not offer")
	require.NotContains(t, graph.CloudNames, "AzureChinaCloud")
}

func TestCloudNamedListsWhatThereIs(t *testing.T) {
	for _, name := range []string{"", "azurepubliccloud", "AzureGermanCloud"} {
		_, err := graph.CloudNamed(name)
		require.Error(t, err)
		require.NotContains(t, " "+err.Error(), cmp.Or(name, "  "))
		for _, allowed := range graph.CloudNames {
			require.ErrorContains(t, err, allowed)
		}
	}
}
