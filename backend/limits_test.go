// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// What docs/limits.md says of set-ups that are not supported, and of accidents.

// neighbour mounts a second engine for the same tenant.
func (r *rig) neighbour() *rig {
	r.t.Helper()
	n := &rig{
		t: r.t, sim: r.sim, storage: storagetest.New(),
		system: testSystem(), clock: r.clock, log: &syncBuffer{},
	}
	n.restart()
	n.write(configPath, n.config(nil))
	n.write("roles/hosts", nil)
	return n
}

// agent is a host that reads again at 0.9 of its lease's time, as Vault Agent does,
// and whose lease then ends by time.
type agent struct {
	mount  *rig
	leases []*logical.Response
	ends   []time.Time
	next   time.Time
	dead   int // answers that did not work
}

func (a *agent) live() {
	now := a.mount.clock.now()
	for len(a.ends) > 0 && !now.Before(a.ends[0]) {
		a.mount.revoke(a.leases[0])
		a.mount.idle()
		a.leases, a.ends = a.leases[1:], a.ends[1:]
	}
	if now.Before(a.next) {
		return
	}
	resp := a.mount.read(hosts)
	if !a.mount.works(resp) {
		a.dead++
	}
	a.leases, a.ends = append(a.leases, resp), append(a.ends, now.Add(resp.Secret.TTL))
	a.next = now.Add(resp.Secret.TTL * 9 / 10)
}

func liveFor(d time.Duration, agents ...*agent) {
	mount := agents[0].mount
	for range int(d / time.Minute) {
		for _, a := range agents {
			a.live()
		}
		mount.clock.advance(time.Minute)
		for _, a := range agents {
			a.mount.tick()
		}
	}
}

// Two mounts adopt each other's keys and do not fight: over a day with hosts on both,
// the key is regenerated once for each mount's first read.
func TestTwoMountsOfOneTenantDoNotFight(t *testing.T) {
	r := sharing(t, nil)
	first, second := &agent{mount: r}, &agent{mount: r.neighbour()}
	liveFor(24*time.Hour, first, second)
	require.Equal(t, 2, r.posts())
	require.Zero(t, first.dead+second.dead)

	// The hosts of one mount leave: its key dies, which is the other's, too. The
	// other finds out when it compares, and goes on with the new one.
	for _, resp := range first.leases {
		r.revoke(resp)
	}
	r.idle()
	r.tick()
	before := r.posts()
	require.Equal(t, 3, before)
	liveFor(24*time.Hour, second)
	require.Equal(t, before, r.posts())
	require.LessOrEqual(t, second.dead, 1, "only until the next comparison")
	require.True(t, r.sim.CanRegister(keyIn(second.leases[len(second.leases)-1])))
}

// Schedules of two mounts add up and no more: each counts from the other's rotation,
// once it has noticed.
func TestTwoMountsWithSchedulesRotateNoMoreThanBoth(t *testing.T) {
	r := sharing(t, nil)
	other := r.neighbour()
	for _, mount := range []*rig{r, other} {
		mount.write(configPath, map[string]any{schedule.FieldPeriod: "6h"})
	}
	first, second := &agent{mount: r}, &agent{mount: other}
	liveFor(24*time.Hour, first, second)
	require.Equal(t, 6, r.posts())
}

// restore puts back what a snapshot holds, into a new process.
func (r *rig) restore(snapshot logical.Storage) {
	r.t.Helper()
	r.storage.Storage = snapshot
	r.restart()
}

func (r *rig) snapshot() logical.Storage {
	r.t.Helper()
	keys, err := logical.CollectKeys(r.t.Context(), r.storage)
	require.NoError(r.t, err)
	result := &logical.InmemStorage{}
	for _, key := range keys {
		entry, err := r.storage.Get(r.t.Context(), key)
		require.NoError(r.t, err)
		require.NoError(r.t, result.Put(r.t.Context(), entry))
	}
	return result
}

// A restored snapshot knows nothing of keys that were disclosed after it was taken.
func TestRestoredSnapshot(t *testing.T) {
	r := sharing(t, map[string]any{config.FieldTTL: "24h"})
	before := r.read(hosts)
	snapshot := r.snapshot()
	later := r.key() // its lease is not in the snapshot

	r.restore(snapshot)
	require.False(t, r.works(r.read(hosts)), "not noticed yet: the snapshot's key")
	r.tickFor(config.DefaultDriftCheckInterval)
	status := r.status()
	require.Equal(t, "external", status[fieldCause])
	require.Equal(t, false, status[fieldDisclosed])
	resp := r.read(hosts)
	require.True(t, r.works(resp))
	require.True(t, r.works(later), "a key without a lease")

	r.write(rotateKeyPath, nil)
	for _, old := range []*logical.Response{before, later, resp} {
		require.False(t, r.works(old), "rotate-key ends them all")
	}
	require.True(t, r.works(r.read(hosts)))
}

func TestRotateKeyRightAfterARestoreServesNoDeadKey(t *testing.T) {
	r := sharing(t, map[string]any{config.FieldTTL: "24h"})
	r.read(hosts)
	snapshot := r.snapshot()
	later := r.key()
	r.restore(snapshot)
	r.write(rotateKeyPath, nil)
	require.False(t, r.works(later))
	require.True(t, r.works(r.read(hosts)))
}

// The snapshot was taken while a regeneration was under way.
func TestRestoredSnapshotWithAnIntent(t *testing.T) {
	r := sharing(t, nil)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true}, graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 403})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	snapshot := r.snapshot()
	r.clock.advance(time.Minute)
	r.key()
	r.clock.advance(time.Hour)
	posts := r.posts()
	r.restore(snapshot)
	require.True(t, r.works(r.read(hosts)))
	require.Equal(t, "recovered", r.status()[fieldCause])
	require.Equal(t, posts, r.posts())
}

// takeOver lets a node take over whose clock differs from that of the last.
func (r *rig) takeOver(offset time.Duration) {
	r.t.Helper()
	r.clock.advance(offset)
	r.restart()
}

// A node takes over whose clock is off, works, and leaves to one whose clock is right:
// all goes on within its normal interval.
func TestNodeWhoseClockIsOff(t *testing.T) {
	for name, off := range map[string]time.Duration{
		"1 h ahead": time.Hour, "24 h ahead": 24 * time.Hour, "400 d ahead": 400 * 24 * time.Hour,
		"1 h behind": -time.Hour, "24 h behind": -24 * time.Hour, "400 d behind": -400 * 24 * time.Hour,
	} {
		for what, test := range map[string]func(t *testing.T, off time.Duration){
			"comparisons": comparesAfter, "retirement": retiresAfter, "back-off": backsOffAfter,
			"doubt": settlesAfter, "watch": watchesAfter, "schedule": rotatesAfter,
		} {
			t.Run(name+"/"+what, func(t *testing.T) { test(t, off) })
		}
	}
}

func comparesAfter(t *testing.T, off time.Duration) {
	r := sharing(t, map[string]any{config.FieldTTL: "168h"})
	r.takeOver(off)
	r.read(hosts)
	r.takeOver(-off)
	r.tick()
	r.sim.RegenerateInPortal()
	r.clock.advance(10 * time.Minute)
	require.True(t, r.works(r.read(hosts)))
}

func retiresAfter(t *testing.T, off time.Duration) {
	r := sharing(t, nil)
	r.takeOver(off)
	held := r.read(hosts)
	r.takeOver(-off)
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
}

func backsOffAfter(t *testing.T, off time.Duration) {
	r := scheduled(t, map[string]any{schedule.FieldPeriod: "1h"})
	r.read(hosts)
	r.clock.advance(time.Hour)
	r.takeOver(off)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 429, RetryAfter: "315"})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.takeOver(-off)
	require.LessOrEqual(t, r.timeTo(2), 6*time.Minute)
}

func settlesAfter(t *testing.T, off time.Duration) {
	r := sharing(t, nil)
	r.read(hosts)
	r.takeOver(off)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, AfterWork: true}, graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 403})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.takeOver(-off)
	r.tickFor(time.Minute)
	require.Equal(t, false, r.status()["intent_pending"])
	require.True(t, r.works(r.read(hosts)))
}

func watchesAfter(t *testing.T, off time.Duration) {
	r := sharing(t, nil)
	r.read(hosts)
	r.takeOver(off)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true})
	r.key()
	r.takeOver(-off)
	r.clock.advance(2*time.Minute - time.Second)
	require.Equal(t, accesskey.ShortTTL, r.read(hosts).Secret.TTL, "not earlier")
	r.tickFor(2 * time.Minute)
	require.Equal(t, time.Hour, r.read(hosts).Secret.TTL)
}

func rotatesAfter(t *testing.T, off time.Duration) {
	r := scheduled(t, map[string]any{schedule.FieldPeriod: "6h"})
	r.takeOver(off) // its clock dates the regeneration
	r.read(hosts)
	r.takeOver(-off)
	require.LessOrEqual(t, r.timeTo(2), 6*time.Hour+time.Minute)
	require.Equal(t, 6*time.Hour, r.timeTo(3), "the next is right")
}

// The clocks of two nodes differ by less than a lease lasts.
func TestLeaseKeepsItsKeyWhenAClockIsOff(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		r := sharing(t, map[string]any{config.FieldTTL: "2h"})
		held := r.read(hosts)
		r.takeOver(off)
		r.tickFor(30 * time.Minute)
		r.takeOver(-off)
		r.tickFor(30 * time.Minute)
		require.True(t, r.works(held))
		require.True(t, r.works(r.read(hosts)))
		require.Equal(t, 1, r.posts())
	}
}

// timeTo lets ticks pass until the key has been regenerated so often, and tells how
// long that took.
func (r *rig) timeTo(posts int) time.Duration {
	r.t.Helper()
	began := r.clock.now()
	for r.posts() < posts {
		r.tickFor(time.Minute)
		require.Less(r.t, r.clock.now().Sub(began), 48*time.Hour)
	}
	return r.clock.now().Sub(began)
}
