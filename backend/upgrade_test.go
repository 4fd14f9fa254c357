// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
)

// inherit mounts an engine where an older version has left off, at the same time.
func inherit(t *testing.T, left upgradetest.State) (*rig, upgradetest.State) {
	t.Helper()
	opts, err := left.TenantOptions()
	require.NoError(t, err)
	r := newRig(t, opts...)
	state, err := left.Moved(r.sim.Info())
	require.NoError(t, err)
	for name, value := range state.Storage {
		require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: name, Value: value}))
	}
	r.clock.at = state.At
	r.restart()
	r.impatient()
	return r, state
}

// upgrades runs a test for each version and each of the named states.
func upgrades(t *testing.T, run func(t *testing.T, r *rig, left upgradetest.State), names ...string) {
	versions, err := upgradetest.Versions()
	require.NoError(t, err)
	require.NotEmpty(t, versions)
	for _, version := range versions {
		states, err := upgradetest.Mounts(version)
		require.NoError(t, err)
		for _, name := range names {
			t.Run(version+"/"+name, func(t *testing.T) {
				require.Contains(t, states, name)
				r, left := inherit(t, states[name])
				run(t, r, left)
			})
		}
	}
}

// everyState names the states that scripts/upgrade records.
func everyState() []string {
	return []string{
		"leases", "regeneration-lost", "regeneration-answered", "certificate",
		"root-retiring", "root-pending", "root-lost",
	}
}

// revokeLeft ends a lease of an older version as core does.
func (r *rig) revokeLeft(l upgradetest.Lease) {
	r.t.Helper()
	require.NoError(r.t, r.tryRevoke(l.Secret))
}

// What the older version said of its configuration, its roles and its state, this one
// says as well.
func TestUpgradeKeepsWhatWasConfigured(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, left upgradetest.State) {
		require.Contains(t, left.Answers, configPath)
		for path, said := range left.Answers {
			now := asJSON(t, r.read(path).Data)
			for field, value := range said {
				require.Equal(t, value, now[field], "%s of %s", field, path)
			}
		}
	}, everyState()...)
}

func asJSON(t *testing.T, data map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(data)
	require.NoError(t, err)
	var decoded map[string]any
	require.NoError(t, json.Unmarshal(text, &decoded))
	return decoded
}

// The leases of an older version keep their key alive until the last of them has been
// revoked, together with one of this version.
func TestUpgradeRevokesLeasesAndRetiresTheirKey(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, left upgradetest.State) {
		superseded, current := left.Leases[0], left.Leases[1:]
		require.Len(t, current, 3)
		require.NotEqual(t, left.Key, superseded.Key)
		joined := r.read(rolePath(left))
		require.Equal(t, left.Key, keyIn(joined))
		require.Equal(t, true, joined.Data[fieldReused])
		require.Equal(t, 4, r.status()[fieldLiveLeases])

		r.revokeLeft(superseded)
		for i, l := range current {
			r.revokeLeft(l)
			r.revokeLeft(l) // core repeats what it is not sure of
			require.Equal(t, 3-i, r.status()[fieldLiveLeases])
		}
		r.tick()
		require.Zero(t, r.posts())
		require.True(t, r.works(joined))
		r.revoke(joined)
		r.eventually("retired", func() bool { return r.posts() == 1 })
		require.False(t, r.sim.CanRegister(left.Key))
		r.idle()
		require.Equal(t, accesskey.CauseRetired, r.status()[fieldCause])
	}, "leases")
}

// rolePath is the path of the last lease, which was read under a role.
func rolePath(left upgradetest.State) string { return left.Leases[len(left.Leases)-1].Path }

// Leases that core has lost end by time.
func TestUpgradeRetiresTheKeyOfLeasesThatNobodyRevokes(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, left upgradetest.State) {
		r.clock.advance(time.Hour)
		r.tick()
		require.Zero(t, r.posts(), "leases are live")
		r.clock.advance(2 * time.Hour)
		r.tick()
		require.Equal(t, 1, r.posts())
		require.False(t, r.sim.CanRegister(left.Key))
		names, err := logical.CollectKeysWithPrefix(t.Context(), r.storage, lease.Prefix)
		require.NoError(t, err)
		require.Empty(t, names)
	}, "leases")
}

// A schedule goes on from the last regeneration, whoever made that.
func TestUpgradeGoesOnWithTheSchedule(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, left upgradetest.State) {
		r.clock.advance(720*time.Hour + time.Minute)
		r.tick()
		require.Equal(t, 1, r.posts())
		require.Contains(t, []any{accesskey.CauseRotation, accesskey.CauseRetired}, r.status()[fieldCause])
		r.clock.advance(time.Hour)
		r.tick()
		require.Equal(t, 1, r.posts(), "its key has not been disclosed")
		require.False(t, r.sim.CanRegister(left.Key))
	}, "leases")
}

func TestUpgradeSettlesAnIntent(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, left upgradetest.State) {
		require.Equal(t, true, r.status()[fieldIntentPending])
		r.clock.advance(time.Minute) // past the deadline
		resp := r.key()
		require.True(t, r.works(resp))
		require.NotEqual(t, left.Leases[0].Key, keyIn(resp))
		require.Equal(t, false, r.status()[fieldIntentPending])
		r.revokeLeft(left.Leases[0])
		r.tick()
		require.True(t, r.works(resp), "the lease was on another key")
	}, "regeneration-lost", "regeneration-answered")
}

// Whatever the credential, the key of an older version's lease is retired with it.
func TestUpgradeSignsInWithTheCredential(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, left upgradetest.State) {
		require.True(t, r.sim.CanRegister(left.Leases[0].Key))
		r.revokeLeft(left.Leases[0])
		r.eventually("retired", func() bool { return r.posts() == 1 })
		require.False(t, r.sim.CanRegister(left.Leases[0].Key))
	}, "certificate", "root-retiring", "root-pending", "root-lost")
}

// Of the secrets that the older version made for the app exactly one remains, and those
// of others are left alone.
func TestUpgradeFinishesTheRotationOfTheCredential(t *testing.T) {
	upgrades(t, func(t *testing.T, r *rig, _ upgradetest.State) {
		foreign := r.secretsOfOthers()
		r.clock.advance(credential.Grace)
		r.tick()
		r.write(rotateRootPath, nil)
		r.clock.advance(credential.Grace)
		r.tick()
		require.Equal(t, false, r.status()[fieldRootUnsettled])
		require.Equal(t, foreign, r.secretsOfOthers())
		require.Len(t, r.sim.Credentials(), len(foreign)+1)
		require.True(t, r.works(r.key()))
	}, "root-retiring", "root-pending", "root-lost")
}

// secretsOfOthers returns the secrets of the app that no engine has made.
func (r *rig) secretsOfOthers() []graphtest.Credential {
	var others []graphtest.Credential
	for _, c := range r.sim.Credentials() {
		if c.DisplayName == "configured" || c.DisplayName == "somebody else's" {
			others = append(others, c)
		}
	}
	return others
}
