// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// settle lets everything come to rest, and looks at what there is then.
func (f *failover) settle(t *testing.T) {
	t.Helper()
	f.expectAgents(t)
	f.endGauges()
	for _, agent := range f.agents {
		agent.process.Stop()
	}
	f.awaitEndOfWatch(t)
	const leases = 5
	version := 0
	for range leases {
		var got leasedKey
		require.NoError(t, f.Call(t.Context(), http.MethodGet, "mdi/key/long", nil, &got))
		require.Contains(t, []int{0, got.Data.Version}, version, "the key changes although nobody asks for it")
		version = got.Data.Version
	}
	f.expectRecords(t, leases)

	// With the last lease gone, no key that was ever handed out is good for anything.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.NoError(c, f.Call(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/mdi/key", map[string]bool{"sync": true}, nil))
	}, time.Minute, time.Second)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		status, err := f.status(t.Context())
		assert.NoError(c, err)
		assert.Equal(c, "retired", status.Cause)
	}, 10*time.Second, 100*time.Millisecond)
	f.expectNoKeyGood(t)
	count, err := testbed.Irrevocable(t.Context(), f)
	require.NoError(t, err)
	require.Zero(t, count, "irrevocable leases")
}

// awaitEndOfWatch waits until leases are as long as their role says: the last round may
// have left a regeneration without an answer.
func (f *failover) awaitEndOfWatch(t *testing.T) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		status, err := f.status(t.Context())
		assert.NoError(c, err)
		assert.False(c, status.OnWatch)
	}, 4*time.Minute, time.Second)
}

// expectRecords waits until the engine has a record for each lease and no other. A
// lease that Vault lost with a node has a record that ends by time.
func (f *failover) expectRecords(t *testing.T, leases int) {
	t.Helper()
	began := time.Now()
	for deadline := began.Add(hostTTL + recordGrace + 30*time.Second); ; pause(t.Context(), time.Second) {
		status, err := f.status(t.Context())
		require.NoError(t, err)
		require.False(t, status.IntentPending)
		require.GreaterOrEqual(t, status.LiveLeases, leases, "a lease without a record")
		short, err := testbed.List(t.Context(), f, "sys/leases/lookup/mdi/key/hosts")
		require.NoError(t, err)
		plain, err := testbed.List(t.Context(), f, "sys/leases/lookup/mdi/key")
		require.NoError(t, err)
		long, err := testbed.List(t.Context(), f, "sys/leases/lookup/mdi/key/long")
		require.NoError(t, err)
		require.Len(t, long, leases)
		// A lease that Vault could not register, as its node went away, can stay on its list.
		left := slices.Concat(short, slices.DeleteFunc(plain, func(name string) bool { return strings.HasSuffix(name, "/") }))
		if len(left) <= f.unregistered(t) && status.LiveLeases == leases {
			t.Logf("records and leases agree after %s", time.Since(began).Round(time.Second))
			return
		}
		require.True(t, time.Now().Before(deadline),
			"%d records for %d leases, and %d short ones that should have ended", status.LiveLeases, leases, len(left))
	}
}

// unregistered returns how many leases Vault's nodes say that they could not register.
func (f *failover) unregistered(t *testing.T) (count int) {
	logs, err := filepath.Glob(filepath.Join(f.sc.logs, "vault*.log"))
	require.NoError(t, err)
	for _, log := range logs {
		lines, err := testbed.Complaints(log)
		require.NoError(t, err)
		for _, line := range lines {
			if strings.Contains(line, "failed to register lease") {
				count++
			}
		}
	}
	return count
}

// expectNoKeyGood tries every key that was ever handed out.
func (f *failover) expectNoKeyGood(t *testing.T) {
	t.Helper()
	tried := 0
	for _, all := range []*tally{f.hosts, f.others} {
		for key, version := range all.versions {
			registers, err := f.tenant.Register(t.Context(), key)
			require.NoError(t, err)
			require.False(t, registers, "the key of version %d outlives its leases", version)
			tried++
		}
	}
	require.NotZero(t, tried)
}

// report prints the numbers, and fails if answers contradict each other.
func (f *failover) report(t *testing.T, rounds int) {
	t.Helper()
	for key, version := range f.others.versions {
		f.hosts.note(key, version)
	}
	require.Empty(t, f.hosts.conflicts)
	require.Empty(t, f.others.conflicts)
	calls, err := f.tenant.Calls(t.Context())
	require.NoError(t, err)
	t.Logf("rounds: %d, elections: %d, Graph's regenerations: %v", rounds, f.elections(t), calls[graphtest.Regenerate])
	t.Logf("hosts: %v", f.hosts)
	t.Logf("others: %v", f.others)
	t.Logf("longest time from the loss of a node to a key: %v", f.worst)
	t.Logf("longest time without an active node %s, without an answer %s, without a working key %s; beyond the time without an active node: %s",
		f.longest[0].Round(10*time.Millisecond), f.longest[1].Round(10*time.Millisecond), f.longest[2].Round(10*time.Millisecond), f.beyond.Round(10*time.Millisecond))
	t.Logf("keys handed out dead: %d, with a warning: %d, replaced on their way: %d", f.dead, f.warned, f.overtaken)
	require.Zero(t, f.dead, "keys handed out dead")
}
