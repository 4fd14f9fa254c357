// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// rotatable mounts an engine whose app may manage its own credentials. Pauses take no
// time.
func rotatable(t *testing.T, kind string, opts ...graphtest.Option) *rig {
	t.Helper()
	r := newRig(t, append(opts,
		graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleRead, graphtest.RoleOwnedBy),
		graphtest.WithForeignPassword("somebody else's"))...)
	r.impatient()
	r.clock.advance(time.Until(r.clock.now()) * -1) // to Entra's, by which credentials end
	if kind == credential.ClientSecret {
		r.write(configPath, r.config(nil))
	} else {
		r.write(configPath, r.config(map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: r.certificate()}))
	}
	return r
}

// impatient lets pauses end at once, as long as there is time.
func (r *rig) impatient() {
	left := 10
	r.engine.root.Sleep = func(ctx context.Context, _ time.Duration) error {
		if left--; left < 0 {
			return context.DeadlineExceeded
		}
		return ctx.Err()
	}
}

// credentials returns how many secrets and certificates the app has.
func (r *rig) credentials() int { return len(r.sim.Credentials()) }

func kinds(t *testing.T, run func(t *testing.T, kind string)) {
	for _, kind := range []string{credential.ClientSecret, credential.ClientCertificate} {
		t.Run(kind, func(t *testing.T) { run(t, kind) })
	}
}

func (r *rig) stored() *config.Config {
	r.t.Helper()
	cfg, err := r.engine.configs.Stored(r.t.Context())
	require.NoError(r.t, err)
	return cfg
}

func TestRotateRootOfAKindThatRenewsItself(t *testing.T) {
	r := newRig(t)
	r.allowed()
	url := r.sim.StartMetadata(t)
	t.Setenv("IDENTITY_ENDPOINT", url+"/msi/token")
	t.Setenv("IDENTITY_HEADER", r.sim.IdentityHeader())
	r.write(configPath, r.config(map[string]any{credential.FieldSecret: nil, config.FieldClientID: nil, credential.FieldType: credential.ManagedIdentity, config.FieldVerifyConnection: false}))
	require.Contains(t, r.fails(400, logical.UpdateOperation, rotateRootPath, nil), "renew themselves")
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, map[string]any{config.FieldRootRotationPeriod: "24h"}), config.FieldRootRotationPeriod)
}

func TestRotateRootWithoutPermission(t *testing.T) {
	r := configured(t)
	r.impatient()
	text := r.fails(400, logical.UpdateOperation, rotateRootPath, nil)
	require.Contains(t, text, "Application.ReadWrite.OwnedBy")
	cfg, err := r.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	require.False(t, r.stored().Root.Next(r.clock.now(), false).Unfinished)
	require.Equal(t, 1, cfg.Root.Failures)
	require.True(t, r.works(r.key()))
}

func TestSwitchingToAManagedIdentityEndsTheRotations(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	r.allowed()
	r.write(configPath, map[string]any{config.FieldRootRotationPeriod: "1h"})
	r.write(configPath, map[string]any{credential.FieldType: credential.ManagedIdentity, config.FieldVerifyConnection: false})
	require.Equal(t, int64(0), r.read(configPath).Data[config.FieldRootRotationPeriod])
	require.NotContains(t, r.status(), fieldRootNextRotation)
}

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

// The object id is that of an app registration, and of no other.
func TestObjectIDBelongsToTheApp(t *testing.T) {
	const other = "11111111-2222-3333-4444-555555555555"
	r := newRig(t)
	r.write(configPath, r.config(map[string]any{
		credential.FieldSecret: nil, credential.FieldCertificate: r.certificate(), config.FieldApplicationObjectID: r.sim.Info().ObjectID,
	}))
	objectID := func() any { return r.read(configPath).Data[config.FieldApplicationObjectID] }
	certificate := map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: r.certificate()}
	r.write(configPath, certificate)
	require.Equal(t, r.sim.Info().ObjectID, objectID())
	elsewhere := r.config(map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: r.certificate(), config.FieldClientID: other, config.FieldVerifyConnection: false})
	r.write(configPath, elsewhere)
	require.Empty(t, objectID())
	elsewhere[config.FieldClientID], elsewhere[config.FieldApplicationObjectID] = r.sim.App().ClientID, other
	r.write(configPath, elsewhere)
	require.Equal(t, other, objectID())

	r.allowed()
	ambient := map[string]any{credential.FieldType: credential.ManagedIdentity, config.FieldVerifyConnection: false, config.FieldApplicationObjectID: other}
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, ambient), config.FieldApplicationObjectID)
	delete(ambient, config.FieldApplicationObjectID)
	r.write(configPath, ambient)
	require.Empty(t, objectID())
}

// A rotation that does not work yet goes on, and what the engine has made for an app is
// named when the configuration no longer leads there, or the mount goes away.
func TestCredentialsThatStayAreNamed(t *testing.T) {
	for name, leave := range map[string]func(r *rig) (warnings []string){
		"deleted": func(r *rig) []string {
			resp, err := r.request(r.t.Context(), logical.DeleteOperation, configPath, nil)
			require.NoError(r.t, err)
			return resp.Warnings
		},
		"another app": func(r *rig) []string {
			other := map[string]any{config.FieldClientID: "11111111-2222-3333-4444-555555555555", config.FieldVerifyConnection: false}
			return r.write(configPath, r.config(other)).Warnings
		},
		"unmounted": func(r *rig) []string {
			r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
			r.tick()
			return []string{r.log.String()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := rotatable(t, credential.ClientSecret)
			r.write(rotateRootPath, nil)
			r.sim.Update(graphtest.WithPropagation(20))
			require.Contains(t, r.write(rotateRootPath, nil).Warnings[0], "goes on automatically")
			require.Equal(t, true, r.status()[fieldRootUnsettled])
			clientID, made := r.sim.App().ClientID, r.stored().Root.Made
			require.Len(t, made, 2)
			warnings := leave(r)
			require.Len(t, warnings, 1)
			for _, what := range []string{clientID, made[0].KeyID, made[1].KeyID, "in the Entra portal"} {
				require.Contains(t, warnings[0], what)
				require.Contains(t, r.log.String(), what)
			}
		})
	}
}
