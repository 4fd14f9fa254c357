// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
)

// The engine does not know when a client secret ends that it has not made, so the writer
// of the configuration has to see to it.
func TestConfiguredSecretWhoseEndIsNotKnown(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	warnings := r.write(configPath, map[string]any{config.FieldRootRotationPeriod: "720h"}).Warnings
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], config.FieldRootRotationPeriod+" counts from now")
	require.Contains(t, warnings[0], timestamp(r.clock.now().Add(720*time.Hour)))
	require.NotContains(t, r.status(), fieldRootExpiresAt)
	require.Empty(t, r.write(configPath, map[string]any{config.FieldTTL: 60}).Warnings, "it has been said")
	require.Empty(t, r.write(configPath, map[string]any{config.FieldRootRotationPeriod: 0}).Warnings)
}
