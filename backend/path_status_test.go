// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestStatusOfANewMount(t *testing.T) {
	r := newRig(t)
	want := map[string]any{
		fieldConfigured: false, fieldKeyVersion: 0, fieldDisclosed: false, fieldLiveLeases: 0,
		fieldIntentPending: false, "on_watch": false, fieldConsecutiveFailures: 0,
		fieldDue: []string{}, fieldMissedRotations: 0, fieldDisableAutomatedRotation: false,
		"state": "unconfigured: write tenant_id, client_id and a credential to config",
	}
	require.Equal(t, want, r.status())
	r.write(configPath, r.config(nil))
	want[fieldConfigured], want["state"] = true, "ok: nothing is wrong"
	want[fieldRootUnsettled], want[fieldRootRetiring], want[fieldRootFailures] = false, 0, 0
	require.Equal(t, want, r.status())
}

func TestStatusTellsKeysApartWithoutTellingThem(t *testing.T) {
	r := configured(t)
	first := r.key()
	one := r.status()
	require.Equal(t, "read", one[fieldCause])
	require.Equal(t, true, one[fieldDisclosed])
	require.Equal(t, 1, one[fieldLiveLeases])
	r.restart()
	require.Equal(t, one, r.status(), "a restart changes nothing")
	r.key()
	require.NotEqual(t, one[fieldFingerprint], r.status()[fieldFingerprint])
	for _, value := range one {
		require.NotEqual(t, keyIn(first), value)
	}
}

func TestStatusKeepsTheLastErrorAfterASuccess(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 2, Status: 403})
	r.fails(400, logical.ReadOperation, keyPath, nil)
	r.fails(400, logical.UpdateOperation, rotateKeyPath, nil)
	require.Equal(t, 2, r.status()[fieldConsecutiveFailures])
	r.restart()
	r.key()
	status := r.status()
	require.Equal(t, 0, status[fieldConsecutiveFailures])
	require.Equal(t, "manual", status[fieldLastErrorCause])
	require.Equal(t, "2027-02-28T12:00:00Z", status[fieldLastErrorAt])
	require.Contains(t, status[fieldLastError], "403")
}

// A rotation of the app's credential that was asked for by hand is not repeated, so the
// status promises no time for it.
func TestStatusPromisesNoRotationOfTheCredentialByItself(t *testing.T) {
	r := configured(t)
	r.fails(400, logical.UpdateOperation, rotateRootPath, nil)
	status := r.status()
	require.Equal(t, 1, status[fieldRootFailures])
	require.NotContains(t, status, fieldRootNextAttempt)
	r.write(configPath, map[string]any{config.FieldRootRotationPeriod: "24h"})
	require.Contains(t, r.status(), fieldRootNextAttempt)
}

func TestStatusSaysWhatStorageRefuses(t *testing.T) {
	for _, c := range [][2]string{{"get", config.StorageKey}, {"get", accesskey.StorageKey}, {"list", lease.Prefix}, {"get", health.StorageKey}} {
		r := configured(t)
		r.restart()
		r.storage.FailWhen(func(op, key string) bool { return op == c[0] && strings.HasPrefix(key, c[1]) })
		_, err := r.request(t.Context(), logical.ReadOperation, statusPath, nil)
		require.ErrorIs(t, err, storagetest.ErrBroken)
		r.storage.FailWhen(nil)
		r.status()
	}
}

// A report that cannot be stored fails nothing, and is said.
func TestReportThatCannotBeStored(t *testing.T) {
	r := configured(t)
	r.storage.FailWhen(func(_, key string) bool { return key == health.StorageKey })
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.fails(400, logical.ReadOperation, keyPath, nil)
	require.Contains(t, r.log.String(), "storing the report")
	r.clock.advance(health.FirstHold)
	require.True(t, r.works(r.key()))
}

// With an entry that cannot be decoded, status answers and names it, reads say what to do,
// leases can be revoked and the mount disabled.
func TestEntriesThatCannotBeDecoded(t *testing.T) {
	for key, c := range map[string]struct {
		named any
		says  string
	}{
		config.StorageKey:    {[]string{"config"}, "delete the configuration"},
		accesskey.StorageKey: {[]string{"key"}, "rotate-key"},
		health.StorageKey:    {[]string{"health"}, ""},
		"role/hosts":         {nil, "delete the role"},
	} {
		t.Run(key, func(t *testing.T) {
			r := sharing(t, nil)
			held := r.read(hosts)
			require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(`{"key": "a-secret`)}))
			r.restart()
			r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
			require.Equal(t, c.named, r.status()["unreadable"])
			if c.says != "" {
				_, err := r.request(t.Context(), logical.ReadOperation, hosts, nil)
				require.ErrorContains(t, err, c.says)
				require.NotContains(t, err.Error(), "a-secret")
			}
			r.revoke(held)
			r.tick()
			require.NotContains(t, r.log.String(), "a-secret")
		})
	}
}

// A record that cannot be decoded is replaced by rotate-key, under a higher version.
func TestRotateKeyHealsTheRecord(t *testing.T) {
	for name, stored := range map[string]string{
		"cut off": `{"version": 7, "key": "a-secr`, "of another type": `{"version": "7", "newest": 9}`, "empty": ``, "nonsense": "\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			r := sharing(t, nil)
			held := r.read(hosts)
			require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: accesskey.StorageKey, Value: []byte(stored)}))
			r.restart()
			version := r.write(rotateKeyPath, nil).Data[fieldKeyVersion]
			require.Greater(t, version, 1)
			require.False(t, r.works(held))
			next := r.read(hosts)
			require.True(t, r.works(next))
			require.Equal(t, version, next.Data[fieldKeyVersion])
			require.NoError(t, r.tryRevoke(held.Secret))
			require.True(t, r.works(next))
			require.NotContains(t, r.status(), "unreadable")
		})
	}
}
