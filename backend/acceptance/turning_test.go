// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// turns is how often the engine turns away, in each of the two ways.
const turns = 7

// turning is a mount that turns away from its tenant again and again while hosts read.
type turning struct {
	*cluster
	tenants []*tenant
	all     tally // of the keys that were ever handed out
	warned  int
	longest time.Duration // to turn away
}

// testTurning deletes the configuration, and changes the tenant, while readers ask for the
// key in a loop. Afterwards no key that any of them has got installs a sensor at the tenant
// that was left, unless the answer has warned of it.
func (s *suite) testTurning(t *testing.T) {
	t.Parallel()
	sc := s.startScenario(t, "turning", "contoso", "fabrikam")
	sc.cluster = &cluster{sc: sc}
	require.NoError(t, sc.cluster.start(t.Context(), 1))
	turn := &turning{cluster: sc.cluster, tenants: sc.tenants}
	for i := range turns {
		turn.to(t, 0)
		require.NoError(t, turn.Call(t.Context(), http.MethodPost, "mdi/roles/hosts", map[string]any{"ttl": "1h"}, nil))
		turn.whileReading(t, turn.tenants[0], func() *api.Secret { return turn.to(t, 1) })
		turn.whileReading(t, turn.tenants[1], func() *api.Secret { return turn.delete(t) })
		t.Logf("turn %d: %d keys so far", i+1, len(turn.all.keys))
	}
	turn.expectAllDead(t)
	require.Zero(t, turn.warned, "Graph has always answered")
	require.Less(t, turn.longest, 10*time.Second)
	t.Logf("turned away %d times with a reader's key, at most in %s; %v", 2*turns, turn.longest.Round(10*time.Millisecond), &turn.all)
}

// to configures a tenant.
func (u *turning) to(t *testing.T, tenant int) *api.Secret {
	t.Helper()
	resp, err := u.nodes[0].Logical().WriteWithContext(t.Context(), "mdi/config", testbed.ConfigFields(u.tenants[tenant].info))
	require.NoError(t, err)
	return resp
}

func (u *turning) delete(t *testing.T) *api.Secret {
	t.Helper()
	resp, err := u.nodes[0].Logical().DeleteWithContext(t.Context(), "mdi/config")
	require.NoError(t, err)
	return resp
}

// whileReading turns away from a tenant while sixteen readers ask for its key, two of them
// for a new one.
func (u *turning) whileReading(t *testing.T, left *tenant, away func() *api.Secret) {
	t.Helper()
	sharing := startReaders(14, u.clients(), "mdi/key/hosts", 20*time.Millisecond)
	regenerating := startReaders(2, u.clients(), "mdi/key", 20*time.Millisecond)
	pause(t.Context(), 1200*time.Millisecond)
	began := time.Now()
	resp := away()
	u.longest = max(u.longest, time.Since(began))
	pause(t.Context(), 200*time.Millisecond)
	sharing.end()
	regenerating.end()
	got := map[string]int{}
	for _, readers := range []*readers{sharing, regenerating} {
		require.Empty(t, readers.tally.conflicts)
		require.NotZero(t, readers.tally.answers[http.StatusOK])
		for key, version := range readers.tally.versions {
			got[key] = version
		}
		u.all.merge(&readers.tally)
	}
	require.Empty(t, u.all.conflicts)
	if resp != nil && len(resp.Warnings) > 0 {
		t.Log(resp.Warnings)
		u.warned++
		return
	}
	for key, version := range got {
		u.expectDead(t, left, key, version)
	}
}

func (u *turning) expectDead(t *testing.T, left *tenant, key string, version int) {
	t.Helper()
	registers, err := left.client.Register(t.Context(), key)
	require.NoError(t, err)
	require.False(t, registers, "the key of version %d outlives its configuration", version)
}

// expectAllDead tries each key at each tenant. Their leases have not ended.
func (u *turning) expectAllDead(t *testing.T) {
	t.Helper()
	require.NotEmpty(t, u.all.versions)
	for key, version := range u.all.versions {
		for _, tenant := range u.tenants {
			u.expectDead(t, tenant, key, version)
		}
	}
}
