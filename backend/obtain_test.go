// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const hosts = "key/hosts"

// sharing mounts a configured engine with the role "hosts".
func sharing(t *testing.T, fields map[string]any) *rig {
	t.Helper()
	r := configured(t)
	r.write("roles/hosts", fields)
	return r
}

func (r *rig) gets() int { return r.sim.Calls(graphtest.Get).Started }

func TestRoleSharesAKeyOfAnyAge(t *testing.T) {
	r := sharing(t, map[string]any{config.FieldTTL: 600})
	first := r.read(hosts)
	require.Equal(t, false, first.Data[fieldReused])
	require.Equal(t, 10*time.Minute, first.Secret.TTL)
	r.clock.advance(30 * 24 * time.Hour)
	second := r.read(hosts)
	require.Equal(t, keyIn(first), keyIn(second))
	require.Equal(t, true, second.Data[fieldReused])
	require.Equal(t, 1, r.posts())
	require.NotEqual(t, first.Secret.InternalData[internalLeaseID], second.Secret.InternalData[internalLeaseID])
}

func TestRoleBoundsTheAgeOfASharedKey(t *testing.T) {
	r := sharing(t, map[string]any{config.FieldMaxKeyAge: "1h"})
	first := r.read(hosts)
	require.Equal(t, time.Hour, first.Secret.TTL, "the configuration's")
	r.clock.advance(time.Hour - time.Second)
	require.Equal(t, keyIn(first), keyIn(r.read(hosts)))
	r.clock.advance(time.Second)
	next := r.read(hosts)
	require.Equal(t, false, next.Data[fieldReused])
	require.True(t, r.works(next))
	require.Equal(t, 2, r.posts())
	r.clock.advance(-2 * time.Hour) // the clock of another node
	require.Equal(t, keyIn(next), keyIn(r.read(hosts)), "a negative age counts as zero")
}

func TestRoleThatSharesNothing(t *testing.T) {
	r := sharing(t, map[string]any{config.FieldMaxKeyAge: 0})
	require.NotEqual(t, keyIn(r.read(hosts)), keyIn(r.read(hosts)))
	require.Equal(t, 2, r.posts())
}

func TestConfigurationMayShareWithoutARole(t *testing.T) {
	r := configured(t)
	r.write(configPath, map[string]any{config.FieldMaxKeyAge: "1h"})
	require.Equal(t, keyIn(r.key()), keyIn(r.key()))
	r.clock.advance(time.Hour)
	r.key()
	require.Equal(t, 2, r.posts())
}

func TestUnknownRole(t *testing.T) {
	r := configured(t)
	require.Contains(t, r.fails(400, logical.ReadOperation, "key/nobody", nil), "role")
	require.Zero(t, r.posts())
}

func TestUnconfiguredMountUnderARole(t *testing.T) {
	r := newRig(t)
	r.write("roles/hosts", nil)
	require.Contains(t, r.fails(400, logical.ReadOperation, hosts, nil), "not configured")
}

func TestDeletedRoleLeavesItsLeasesRevocable(t *testing.T) {
	r := sharing(t, nil)
	held := r.read(hosts)
	r.delete("roles/hosts")
	r.fails(400, logical.ReadOperation, hosts, nil)
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
}

// A key that nobody knows, made by a rotation or a retirement, is shared too.
func TestRoleSharesAKeyThatWasRotatedIn(t *testing.T) {
	r := sharing(t, nil)
	old := r.read(hosts)
	r.write(rotateKeyPath, nil)
	next := r.read(hosts)
	require.NotEqual(t, keyIn(old), keyIn(next))
	require.Equal(t, true, next.Data[fieldReused])
	require.True(t, r.works(next))
	require.Equal(t, 2, r.posts())
	r.revoke(old)
	r.idle()
	require.True(t, r.works(next))
	r.revoke(next)
	r.eventually("the key is dead", func() bool { return !r.works(next) })
}

func TestKeyLivesAsLongAsOneOfItsReaders(t *testing.T) {
	r := sharing(t, nil)
	first, second := r.read(hosts), r.read(hosts)
	r.revoke(first)
	r.idle()
	r.tick()
	require.True(t, r.works(second))
	r.revoke(second)
	r.eventually("the key is dead", func() bool { return !r.works(second) })
	require.Equal(t, 2, r.posts())
}

func TestManyReadersOfANewMountShareOneRegeneration(t *testing.T) {
	r := sharing(t, nil)
	var done sync.WaitGroup
	for range 200 {
		done.Go(func() {
			resp, err := r.request(t.Context(), logical.ReadOperation, hosts, nil)
			if err != nil || !r.works(resp) {
				t.Errorf("a reader has no key that works: %v", err)
			}
		})
	}
	done.Wait()
	require.Equal(t, 1, r.posts())
	require.Equal(t, 200, r.status()[fieldLiveLeases])
}

// Readers of a role are not given the old key once an operator's read has replaced it,
// although they do not wait for its answer.
func TestSharedKeyIsNotServedWhenItHasBeenReplaced(t *testing.T) {
	besideOthers(t)
	r := sharing(t, nil)
	old := r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Latency: time.Hour})
	var operator, host *logical.Response
	var done sync.WaitGroup
	done.Go(func() { operator = r.key() })
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Performed == 2 }))
	host = r.read(hosts)
	require.NotEqual(t, keyIn(old), keyIn(host))
	require.True(t, r.works(host))
	require.NotEmpty(t, host.Warnings, "the lease is short")
	r.sim.Clear()
	done.Wait()
	require.Equal(t, keyIn(operator), keyIn(host))
}

// While neither GET nor POST answers nobody gets the key, however much a role would share
// it.
func TestDoubtfulKeyIsNotShared(t *testing.T) {
	besideOthers(t)
	r := sharing(t, nil)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Reset: true}, graphtest.Fault{Operation: graphtest.Get, Status: 500})
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.fails(503, logical.ReadOperation, hosts, nil)
	r.sim.Clear()
	r.clock.advance(10 * time.Second)
	require.True(t, r.works(r.read(hosts)))
}

func TestConfigurationChangesWhileReadersWait(t *testing.T) {
	r := sharing(t, nil)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	var resp *logical.Response
	var done sync.WaitGroup
	done.Go(func() { resp = r.read(hosts) })
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Started == 1 }))
	other := graphtest.Start(t)
	done.Go(func() { r.write(configPath, configOf(other)) })
	r.sim.Clear()
	done.Wait()
	require.True(t, r.works(resp) || other.CanRegister(keyIn(resp)) || r.sim.Calls(graphtest.Regenerate).Performed == 2)
	require.True(t, other.CanRegister(keyIn(r.read(hosts))))
}
