// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestKeyDiesWithItsLastLease(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
	r.idle()
	status := r.status()
	require.Equal(t, "retired", status[fieldCause])
	require.Equal(t, false, status[fieldDisclosed])
	require.Equal(t, 0, status[fieldLiveLeases])

	before := r.posts()
	r.revoke(held) // once more
	r.tick()
	r.idle()
	require.Equal(t, before, r.posts())
}

func TestLeaseOnASupersededKeyEndsWithoutConsequence(t *testing.T) {
	r := configured(t)
	first, second := r.key(), r.key()
	r.revoke(first)
	r.tick()
	r.idle()
	require.True(t, r.works(second))
	require.Equal(t, 2, r.posts())
}

func TestKeyIsKeptWhenTheConfigurationSaysSo(t *testing.T) {
	r := configured(t)
	r.write(configPath, map[string]any{config.FieldRegenerateOnRevoke: false})
	held := r.key()
	r.revoke(held)
	r.tick()
	r.idle()
	require.True(t, r.works(held))

	r.write(configPath, map[string]any{config.FieldRegenerateOnRevoke: true})
	r.eventually("the change is heeded", func() bool { return !r.works(held) })
}

func TestTickRetiresWhatTheRevocationCouldNot(t *testing.T) {
	besideOthers(t)
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 502, Body: graphtest.BodyHTML})
	r.revoke(held)
	r.eventually("the failure is told", func() bool { return r.status()[fieldConsecutiveFailures] == 1 })
	require.Equal(t, "retired", r.status()[fieldLastErrorCause])
	require.Equal(t, false, r.status()[fieldIntentPending], "an outage of Graph is not made ours")
	require.True(t, r.works(held))
	r.sim.Clear()
	r.tick()
	require.False(t, r.works(held))
}

// A lease that core lost ends by time.
func TestRecordPastItsEndKeepsNoKeyAlive(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.clock.advance(time.Hour + lease.Grace - time.Second)
	r.tick()
	require.True(t, r.works(held))
	r.clock.advance(time.Second)
	r.tick()
	require.False(t, r.works(held))
	require.Zero(t, r.leaseRecords())
}

func (r *rig) leaseRecords() int {
	versions, err := r.storage.List(r.t.Context(), lease.Prefix)
	require.NoError(r.t, err)
	count := 0
	for _, v := range versions {
		ids, err := r.storage.List(r.t.Context(), lease.Prefix+v)
		require.NoError(r.t, err)
		count += len(ids)
	}
	return count
}

func TestRecordsOfSupersededVersionsAreDropped(t *testing.T) {
	r := configured(t)
	for range 5 {
		r.key()
	}
	require.Equal(t, 5, r.leaseRecords())
	r.tick()
	require.Equal(t, 1, r.leaseRecords())
	require.Equal(t, 5, r.posts())
}

func TestLedgerSurvivesARestart(t *testing.T) {
	r := configured(t)
	r.write(configPath, map[string]any{config.FieldRegenerateOnRevoke: true})
	held := r.key()
	r.restart()
	require.Equal(t, 1, r.status()[fieldLiveLeases])
	r.tick()
	require.True(t, r.works(held), "the lease is still live")
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
}

// A restart between the last revocation and the retirement loses nothing.
func TestRetirementSurvivesARestart(t *testing.T) {
	besideOthers(t)
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 502, Body: graphtest.BodyHTML})
	r.revoke(held)
	r.eventually("it is tried", func() bool { return r.status()[fieldConsecutiveFailures] == 1 })
	r.restart()
	r.sim.Clear()
	r.tick()
	require.False(t, r.works(held))
}

func TestRevokeWorksWhateverTheStateOfTheMount(t *testing.T) {
	besideOthers(t)
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Status: 502}, graphtest.Fault{Operation: graphtest.Token, Status: 502})
	_, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	for name, secret := range map[string]*logical.Secret{
		"without configuration": held.Secret,
		"twice":                 held.Secret,
		"older release":         {InternalData: map[string]any{"secret_type": secretTypeKey}},
		"nonsense":              {InternalData: map[string]any{"secret_type": secretTypeKey, internalKeyVersion: "x", internalLeaseID: 1}},
		"never recorded":        {InternalData: map[string]any{"secret_type": secretTypeKey, internalKeyVersion: 99, internalLeaseID: "0-x"}},
	} {
		require.NoError(t, r.tryRevoke(secret), name)
	}
}

// A node that must not write lets the lease end; its record ends by time.
func TestRevokeOnANodeThatMustNotWrite(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.storage.FailWhen(func(op, _ string) bool { return op == "delete" || op == "put" })
	r.nodeIs(consts.ReplicationPerformanceStandby)
	r.revoke(held)
	require.Equal(t, 1, r.leaseRecords())
	require.Equal(t, 1, r.posts())
}

func TestRevokeIsRepeatedWhenStorageFails(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.storage.FailWhen(storagetest.Nth(1, "delete", lease.Prefix))
	require.ErrorIs(t, r.tryRevoke(held.Secret), storagetest.ErrBroken)
	require.Equal(t, 0, r.status()[fieldLiveLeases], "it is removed later")
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
}

// A node that dies with a regeneration under way leaves a doubt, which a tick settles.
func TestTickSettlesAnIntent(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	_, err := r.tryKey()
	require.ErrorIs(t, err, storagetest.ErrBroken)
	require.Equal(t, false, r.status()[fieldIntentPending], "the answer is known in memory")
	r.restart()
	require.Equal(t, true, r.status()[fieldIntentPending])
	require.Equal(t, true, r.status()["on_watch"])
	r.tick()
	status := r.status()
	require.Equal(t, false, status[fieldIntentPending])
	require.Equal(t, "recovered", status[fieldCause])
	require.False(t, r.works(held))
	require.Equal(t, 2, r.posts())
}

// A retirement goes on without GET if Graph itself has refused that.
func TestRetirementWithoutGraphsWord(t *testing.T) {
	besideOthers(t)
	r := sharing(t, nil)
	held := r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 500})
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
}

func TestTickOfAnUnconfiguredMountDoesNothing(t *testing.T) {
	r := newRig(t)
	r.tick()
	require.Empty(t, r.log.String())
}

func TestTickLogsWhatStorageRefuses(t *testing.T) {
	for _, key := range []string{accesskey.StorageKey, config.StorageKey} {
		r := configured(t)
		r.key()
		r.restart()
		r.storage.FailWhen(func(op, k string) bool { return op == "get" && k == key })
		r.tick()
		require.Contains(t, r.log.String(), storagetest.ErrBroken.Error())
	}
}

func TestUnmountKillsTheKey(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	r.tick()
	require.False(t, r.works(held))
	require.Contains(t, r.fails(503, logical.ReadOperation, keyPath, nil), "disabled or moved")
	before := r.posts()
	r.tick()
	r.revoke(held)
	r.idle()
	require.Equal(t, before, r.posts())
}

func TestUnmountWithoutAnythingDisclosedCallsNobody(t *testing.T) {
	r := configured(t)
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	before := r.sim.Calls(graphtest.Get).Started
	r.tick()
	require.Zero(t, r.posts())
	require.Equal(t, before, r.sim.Calls(graphtest.Get).Started)
}

func TestUnmountWithGraphDownSaysThatTheKeyLivesOn(t *testing.T) {
	r := configured(t)
	r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	r.tick()
	require.Contains(t, r.log.String(), "lives on")
}

// `vault secrets move` taints the mount too, and then goes on with the same backend.
func TestMovedMountGoesOn(t *testing.T) {
	r := configured(t)
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	r.tick()
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = false })
	require.True(t, r.works(r.key()))
}

// If Graph was away while the mount was moved, the log does not say that the mount is gone,
// and the engine keeps what it says there.
func TestMovedMountRetiresTheKeyWhenGraphIsBack(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	r.tick()
	r.revoke(held) // as core does at a move
	require.Contains(t, r.log.String(), "unless the mount starts again, as after a move")
	require.NotContains(t, r.log.String(), "goes away")
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = false })
	r.sim.Clear()
	r.clock.advance(time.Hour) // its back-off
	r.tick()
	require.False(t, r.works(held))
}

func TestNothingIsDoneAfterClean(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.engine.Cleanup(t.Context())
	before := r.sim.Calls(graphtest.Get).Started
	r.revoke(held)
	r.tick()
	require.Equal(t, before, r.sim.Calls(graphtest.Get).Started)
	require.Equal(t, 1, r.posts())
}

// An unmount joins a tick that is under way, which has asked already whether the
// mount is tainted.
func TestUnmountDuringATick(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Latency: time.Hour, Status: 403})
	started := r.sim.Calls(graphtest.Get).Started
	r.clock.advance(2 * time.Hour) // core has lost the lease
	ticked := make(chan struct{})
	go func() { defer close(ticked); r.tick() }()
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Get, func(c graphtest.Calls) bool { return c.Started == started+1 }))
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
	r.sim.Clear()
	<-ticked
	require.False(t, r.works(held))
}

func TestSupersededLeasesThatEndCostNothing(t *testing.T) {
	r := configured(t)
	var old []*logical.Response
	for range 20 {
		old = append(old, r.key())
	}
	last := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403, Body: graphtest.BodyHTML})
	r.revoke(last)
	r.eventually("its retirement fails", func() bool { return r.status()[fieldConsecutiveFailures] == 1 })
	before := r.sim.Calls(graphtest.Get).Started
	for _, resp := range old {
		r.revoke(resp)
	}
	r.idle()
	require.Equal(t, before, r.sim.Calls(graphtest.Get).Started)
}

func TestPruningLeavesTimeForTheKey(t *testing.T) {
	r := configured(t)
	for range 5 {
		r.key()
	}
	held := r.key()
	r.clock.advance(2 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	r.storage.FailWhen(func(op, _ string) bool {
		if op == "delete" {
			cancel() // as if the tick's time was up
		}
		return false
	})
	_, err := r.engine.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, Storage: r.storage})
	require.NoError(t, err)
	require.False(t, r.works(held))
}

func TestLeaseOfAHighVersionIsRevoked(t *testing.T) {
	version, id, ok := leaseOf(&logical.Secret{InternalData: map[string]any{internalKeyVersion: float64(1_234_567), internalLeaseID: "1-x"}})
	require.True(t, ok)
	require.Equal(t, 1_234_567, version)
	require.Equal(t, "1-x", id)
	version, _, ok = leaseOf(&logical.Secret{InternalData: map[string]any{internalKeyVersion: json.Number("7"), internalLeaseID: "1-x"}})
	require.True(t, ok)
	require.Equal(t, 7, version)
}
