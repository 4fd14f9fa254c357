// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// unprivileged mounts an engine whose app may roll its certificate, and nothing else with
// its registration.
func unprivileged(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.impatient()
	r.clock.advance(time.Until(r.clock.now()) * -1) // to Entra's, by which credentials end
	r.write(configPath, r.config(map[string]any{
		credential.FieldSecret: nil, credential.FieldCertificate: r.certificate(), config.FieldApplicationObjectID: r.sim.Info().ObjectID,
	}))
	return r
}

// apps mounts an engine with a certificate, whose app may look at its registration or not.
func apps(t *testing.T, run func(t *testing.T, r *rig, privileged bool)) {
	t.Run("privileged", func(t *testing.T) { run(t, rotatable(t, credential.ClientCertificate), true) })
	t.Run("unprivileged", func(t *testing.T) { run(t, unprivileged(t), false) })
}

// loseKey lets the answer about a new certificate be lost, which Entra has added, and
// returns its thumbprint.
func (r *rig) loseKey() string {
	r.t.Helper()
	before := r.credentials()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.AddKey, Times: 1, AfterWork: true, Reset: true})
	r.fails(503, logical.UpdateOperation, rotateRootPath, nil)
	require.Equal(r.t, before+1, r.credentials())
	return r.root().Pending.Thumbprint
}

// hours lets time pass, with a tick each hour.
func (r *rig) hours(n int) {
	for range n {
		r.impatient()
		r.clock.advance(time.Hour)
		r.tick()
	}
}

// A client repeats a request that was answered with 503. The certificate is there, but
// does not work everywhere yet, and Graph may list it late.
func TestLostCertificateThatTakesItsTime(t *testing.T) {
	for name, lag := range map[string]int{"listed": 0, "listed late": 1} {
		t.Run(name, func(t *testing.T) {
			apps(t, func(t *testing.T, r *rig, _ bool) {
				before := r.credentials()
				r.sim.Update(graphtest.WithPropagation(200), graphtest.WithListingLag(lag))
				thumbprint := r.loseKey()
				require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
				require.Equal(t, thumbprint, thumbprintOf(t, r.root().Pending), "it is not given up")
				r.hours(3)
				require.Nil(t, r.root().Pending)
				info, err := graph.ParseCertificate(r.stored().Credential.Certificate)
				require.NoError(t, err)
				require.Equal(t, thumbprint, info.Thumbprint, "it is the one in use")
				require.Equal(t, before+1, r.credentials())
				require.True(t, r.works(r.key()))
			})
		})
	}
}

// thumbprintOf returns the thumbprint of a certificate, whether its id is known or not.
func thumbprintOf(t *testing.T, m *credential.Made) string {
	t.Helper()
	require.NotNil(t, m)
	info, err := graph.ParseCertificate(m.Credential.Certificate)
	require.NoError(t, err)
	return info.Thumbprint
}

func (r *rig) stored() *config.Config {
	r.t.Helper()
	cfg, err := r.engine.configs.Stored(r.t.Context())
	require.NoError(r.t, err)
	return cfg
}

// A certificate is given up whose id is not known. It is looked for and removed, or else
// the log says which one it is.
func TestLostCertificateIsGivenUp(t *testing.T) {
	apps(t, func(t *testing.T, r *rig, privileged bool) {
		before := r.credentials()
		thumbprint := r.loseKey()
		r.restart()
		r.clock.advance(6 * time.Hour)
		r.hours(3)
		require.False(t, r.root().Unsettled())
		require.Empty(t, r.root().Retiring)
		if privileged {
			require.Equal(t, before, r.credentials())
			require.Regexp(t, "INFO.*done with a credential.*"+thumbprint, r.log.String())
		} else {
			require.Equal(t, before+1, r.credentials())
			require.Regexp(t, "WARN.*remove it in the portal.*"+thumbprint, r.log.String())
		}
	})
}

// The engine uses a certificate whose id it does not know. It is named by its thumbprint
// for as long as it is there.
func TestCertificateOfUnknownIDIsNotForgotten(t *testing.T) {
	lost := func(t *testing.T) (*rig, string) {
		t.Helper()
		r := unprivileged(t)
		thumbprint := r.loseKey()
		r.write(rotateRootPath, nil)
		require.Empty(t, r.root().KeyID)
		require.False(t, r.root().Unsettled())
		return r, thumbprint
	}
	t.Run("deleted", func(t *testing.T) {
		r, thumbprint := lost(t)
		resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
		require.NoError(t, err)
		r.said(resp, []string{thumbprint})
	})
	t.Run("configured away", func(t *testing.T) {
		r, thumbprint := lost(t)
		r.said(r.write(configPath, map[string]any{credential.FieldCertificate: r.certificate()}), []string{thumbprint})
	})
	t.Run("rotated", func(t *testing.T) {
		r, thumbprint := lost(t)
		r.write(rotateRootPath, nil)
		r.hours(1)
		require.Regexp(t, "WARN.*remove it in the portal.*"+thumbprint, r.log.String())
		require.Empty(t, r.root().Retiring)
		require.Zero(t, r.root().Failures)
	})
	t.Run("rotated with a permission", func(t *testing.T) {
		r, _ := lost(t)
		before := r.credentials()
		r.sim.Update(graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleOwnedBy))
		r.restart() // its token has the roles of before
		r.impatient()
		r.write(rotateRootPath, nil)
		r.hours(1)
		require.Equal(t, before, r.credentials())
		require.Empty(t, r.root().Retiring)
	})
}

// A certificate that Graph refuses for good is not kept as if it might be there.
func TestCertificateThatIsRefusedIsDropped(t *testing.T) {
	apps(t, func(t *testing.T, r *rig, _ bool) {
		r.sim.Update(graphtest.WithMaxCredentialLifetime(time.Hour))
		r.fails(400, logical.UpdateOperation, rotateRootPath, nil)
		require.False(t, r.root().Unsettled())
	})
	t.Run("after a crash", func(t *testing.T) {
		r := rotatable(t, credential.ClientCertificate)
		r.sim.Inject(graphtest.Fault{Operation: graphtest.AddKey, Times: 1, Reset: true})
		r.fails(503, logical.UpdateOperation, rotateRootPath, nil)
		r.sim.Update(graphtest.WithMaxCredentialLifetime(time.Hour))
		require.Len(t, r.write(rotateRootPath, nil).Warnings, 1, "it may not be listed yet")
		r.impatient()
		r.clock.advance(credential.ListingLag)
		r.fails(400, logical.UpdateOperation, rotateRootPath, nil)
		require.False(t, r.root().Unsettled())
	})
}

// A certificate has been removed, and the note of that was lost. The app may not look.
func TestRemovalOfACertificateIsLost(t *testing.T) {
	apps(t, func(t *testing.T, r *rig, privileged bool) {
		r.write(rotateRootPath, nil)
		r.write(rotateRootPath, nil)
		before, old := r.credentials(), r.root().Retiring[0].KeyID
		r.clock.advance(credential.Grace)
		r.storage.FailWhen(func(op, key string) bool { return op == "put" && key == config.StorageKey })
		r.tick()
		r.storage.FailWhen(nil)
		require.Equal(t, before-1, r.credentials())
		r.restart()
		r.hours(1)
		require.Empty(t, r.root().Retiring)
		require.Zero(t, r.root().Failures)
		if privileged {
			require.NotContains(t, r.log.String(), "seems to have been removed")
		} else {
			require.Regexp(t, "WARN.*seems to have been removed.*"+old, r.log.String())
		}
	})
}

// A bad proof is no sign that a certificate has gone.
func TestRemovalOfACertificateThatIsRefused(t *testing.T) {
	r := unprivileged(t)
	r.write(rotateRootPath, nil)
	r.write(rotateRootPath, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.RemoveKey, Times: 2, Status: 403})
	r.hours(1)
	require.Len(t, r.root().Retiring, 1)
	require.Equal(t, 1, r.root().Failures)
	r.hours(2)
	require.Empty(t, r.root().Retiring)
}
