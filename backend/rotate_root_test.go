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
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
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
	left := 100
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

func TestRotateRoot(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r := rotatable(t, kind, graphtest.WithPropagation(3, 1))
		before := r.credentials()
		held := r.key()
		r.write(rotateRootPath, nil)
		require.Equal(t, before+1, r.credentials(), "the one that was configured is somebody else's")
		r.restart()
		r.impatient()
		require.True(t, r.works(r.key()))
		require.False(t, r.works(held))
		require.Equal(t, kind, r.read(configPath).Data[credential.FieldType])

		// The second rotation retires what the first one made.
		r.sim.Update(graphtest.WithPropagation())
		r.write(rotateRootPath, nil)
		require.Equal(t, before+2, r.credentials())
		r.tick()
		require.Equal(t, before+2, r.credentials(), "the grace period is not over")
		r.clock.advance(credential.Grace)
		r.tick()
		require.Equal(t, before+1, r.credentials())
		require.True(t, r.works(r.key()))
	})
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
	require.False(t, r.root().Unsettled())
	require.Equal(t, 1, cfg.Root.Failures)
	require.True(t, r.works(r.key()))
}

// A certificate rolls itself without any permission, if the object id is configured.
func TestCertificateIsRotatedWithoutPermission(t *testing.T) {
	r := newRig(t)
	r.impatient()
	r.write(configPath, r.config(map[string]any{
		credential.FieldSecret: nil, credential.FieldCertificate: r.certificate(), config.FieldApplicationObjectID: r.sim.Info().ObjectID,
	}))
	before := r.credentials()
	r.write(rotateRootPath, nil)
	r.write(rotateRootPath, nil)
	r.clock.advance(credential.Grace)
	r.tick()
	require.Equal(t, before+1, r.credentials())
	require.True(t, r.works(r.key()))
}

func TestRootIsRotatedByItself(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r := rotatable(t, kind)
		before := r.credentials()
		r.write(configPath, map[string]any{config.FieldRootRotationPeriod: "720h"})
		r.clock.advance(720*time.Hour - time.Minute)
		r.tick()
		require.Equal(t, before, r.credentials())
		r.clock.advance(time.Minute)
		r.tick()
		require.Equal(t, before+1, r.credentials())
		r.clock.advance(credential.Grace)
		r.tick()
		require.Equal(t, before+1, r.credentials())
	})
}

// While a new secret is refused, the old one goes on being used.
func TestCredentialThatDoesNotWorkIsNotUsed(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r := rotatable(t, kind, graphtest.WithPropagation(200))
		require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
		r.restart()
		require.True(t, r.works(r.key()))
		r.impatient()
		r.clock.advance(time.Hour)
		r.tick()
		r.clock.advance(time.Hour)
		before := r.credentials()
		r.tick()
		require.Equal(t, before, r.credentials(), "no further one is added")
	})
}

// The process is killed at each step that stores something, before and after it has
// been stored, and at each answer of Graph.
func TestRotateRootIsInterruptedAnywhere(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		for n := 1; ; n++ {
			r := rotatable(t, kind)
			before := r.credentials()
			r.write(rotateRootPath, nil) // so that there is one of its own to retire
			failed := false
			fails := storagetest.Nth(n, "put", config.StorageKey)
			r.storage.FailWhen(func(op, key string) bool {
				// From this write on the process is dead.
				failed = failed || fails(op, key)
				return failed
			})
			_, err := r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
			r.storage.FailWhen(nil)
			if err == nil && !failed {
				require.Greater(t, n, 3)
				return
			}
			r.recovers(before)
		}
	})
}

func TestAnswerAboutARootCredentialIsLost(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"reset before the work": {Reset: true},
		"reset after the work":  {Reset: true, AfterWork: true},
		"504 after the work":    {Status: 504, AfterWork: true},
		"truncated":             {Body: graphtest.BodyTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			kinds(t, func(t *testing.T, kind string) {
				for _, op := range []graphtest.Operation{graphtest.AddPassword, graphtest.AddKey} {
					r := rotatable(t, kind)
					before := r.credentials()
					r.write(rotateRootPath, nil)
					fault.Operation, fault.Times = op, 1
					r.sim.Inject(fault)
					_, _ = r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
					r.sim.Clear()
					r.recovers(before)
				}
			})
		})
	}
}

// recovers restarts the engine and checks that it works, and that in the end there is
// one credential of its own, and none that nobody knows.
func (r *rig) recovers(foreign int) {
	r.t.Helper()
	r.restart()
	r.impatient()
	require.True(r.t, r.works(r.key()))
	for range 10 {
		r.clock.advance(time.Hour)
		r.tick()
	}
	require.True(r.t, r.works(r.key()))
	require.Equal(r.t, foreign+1, r.credentials())
}

// Somebody configures another credential while a rotation is unfinished: what the engine
// has made is removed, and the new credential stays.
func TestConfiguredCredentialEndsARotation(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r := rotatable(t, kind, graphtest.WithPropagation(200))
		before := r.credentials()
		require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
		require.Equal(t, before+1, r.credentials())
		r.sim.Update(graphtest.WithPropagation())
		if kind == credential.ClientSecret {
			r.sim.Update(graphtest.WithApp("", "a-secret-that-the-operator-has-made"))
			r.write(configPath, map[string]any{credential.FieldSecret: "a-secret-that-the-operator-has-made"})
		} else {
			r.write(configPath, map[string]any{credential.FieldCertificate: r.certificate()})
		}
		cfg, err := r.engine.configs.Stored(t.Context())
		require.NoError(t, err)
		chosen := cfg.Credential
		r.impatient()
		for range 10 {
			r.clock.advance(time.Hour)
			r.tick()
		}
		cfg, err = r.engine.configs.Stored(t.Context())
		require.NoError(t, err)
		require.Equal(t, chosen, cfg.Credential, "nobody asked for another one")
		require.Empty(t, r.root().Retiring)
		require.True(t, r.works(r.key()))
	})
}

// An answer was lost, and the operator configures a new secret: it is not replaced.
func TestInterruptedRotationDoesNotReplaceAConfiguredSecret(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	before := r.credentials()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, AfterWork: true, Reset: true})
	_, err := r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
	require.Error(t, err)
	require.Equal(t, before+1, r.credentials())
	r.sim.Update(graphtest.WithApp("", "a-secret-that-the-operator-has-made"))
	r.write(configPath, map[string]any{credential.FieldSecret: "a-secret-that-the-operator-has-made"})
	r.clock.advance(time.Hour)
	r.tick()
	cfg, err := r.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.root().Intent, "it has been settled")
	require.Equal(t, "a-secret-that-the-operator-has-made", cfg.Credential.Secret)
}

// A longer period does not let a credential end that was made for a shorter one.
func TestLongerPeriodDoesNotLetTheCredentialEnd(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	r.write(configPath, map[string]any{config.FieldRootRotationPeriod: "1h"})
	r.write(rotateRootPath, nil)
	r.write(configPath, map[string]any{config.FieldRootRotationPeriod: "720h"})
	before := r.credentials()
	r.clock.advance(90 * time.Minute)
	r.tick()
	require.Equal(t, before+1, r.credentials())
}

// A secret that was removed before it ever worked is given up.
func TestPendingCredentialThatNeverWorksIsGivenUp(t *testing.T) {
	r := rotatable(t, credential.ClientSecret, graphtest.WithPropagation(100000))
	require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
	r.sim.Update(graphtest.WithPropagation())
	for range 8 {
		r.impatient()
		r.clock.advance(time.Hour)
		r.tick()
	}
	require.Equal(t, false, r.status()[fieldRootUnsettled])
	r.write(rotateRootPath, nil)
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
