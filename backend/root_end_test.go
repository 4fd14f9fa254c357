// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// ending mounts an engine without a configuration, and returns the fields of one whose
// secret ends two hours from now, which the registration tells.
func ending(t *testing.T) (*rig, map[string]any) {
	t.Helper()
	r := rotatable(t, credentialClientSecret)
	r.write(configPath, map[string]any{fieldRootRotationPeriod: "1h"})
	r.write(rotateRootPath, nil) // makes a secret for twice the period
	cfg, err := loadConfig(t.Context(), r.storage)
	require.NoError(t, err)
	_, err = r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	return r, r.config(map[string]any{fieldClientSecret: cfg.Credential.Secret, fieldRootRotationPeriod: "720h"})
}

func TestConfiguredSecretIsReplacedBeforeItEnds(t *testing.T) {
	r, fields := ending(t)
	require.Empty(t, r.write(configPath, fields).Warnings)
	require.WithinDuration(t, r.clock.now().Add(2*time.Hour), r.root().EndsAt, time.Minute)
	require.Equal(t, timestamp(r.root().EndsAt), r.status()[fieldRootExpiresAt])
	require.Empty(t, r.root().KeyID, "it is not the engine's own for that")
	added := r.secretsAdded()
	r.clock.advance(30 * time.Minute)
	r.tick()
	require.Equal(t, added, r.secretsAdded())
	r.clock.advance(31 * time.Minute)
	r.tick()
	require.Equal(t, added+1, r.secretsAdded())
}

// Where it cannot be told when a secret ends, whoever configures it is told that.
func TestConfiguredSecretWhoseEndIsNotKnown(t *testing.T) {
	for name, change := range map[string]func(r *rig, fields map[string]any){
		"no permission": func(r *rig, _ map[string]any) { r.sim.Update(graphtest.WithOwner(false)) },
		"another one begins like it": func(r *rig, fields map[string]any) {
			r.sim.Update(graphtest.WithPassword("twin", "twin", fields[fieldClientSecret].(string)[:3]+" and otherwise not"))
		},
		"an outage": func(r *rig, _ map[string]any) {
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Application, Status: 500})
		},
		"nobody is to be asked": func(_ *rig, fields map[string]any) { fields[fieldVerifyConnection] = false },
	} {
		t.Run(name, func(t *testing.T) {
			r, fields := ending(t)
			change(r, fields)
			warnings := r.write(configPath, fields).Warnings
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], fieldRootRotationPeriod+" counts from now")
			require.Contains(t, warnings[0], timestamp(r.clock.now().Add(720*time.Hour)))
			require.NotContains(t, r.status(), fieldRootExpiresAt)
			require.Empty(t, r.write(configPath, map[string]any{fieldTTL: 60}).Warnings, "it has been said")
		})
	}
}

func TestEndIsLookedUpWhenThePeriodIsSetLater(t *testing.T) {
	r, fields := ending(t)
	delete(fields, fieldRootRotationPeriod)
	r.write(configPath, fields)
	require.NotContains(t, r.status(), fieldRootExpiresAt)
	require.Empty(t, r.write(configPath, map[string]any{fieldRootRotationPeriod: "720h"}).Warnings)
	require.Contains(t, r.status(), fieldRootExpiresAt)
}

func TestNoSecretIsLookedUpThatIsNotToBeRotated(t *testing.T) {
	r, fields := ending(t)
	fields[fieldRootRotationPeriod] = 0
	before := r.sim.Calls(graphtest.Application).Started
	require.Empty(t, r.write(configPath, fields).Warnings)
	require.Equal(t, before, r.sim.Calls(graphtest.Application).Started)
}
