// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"math/bits"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	hastyReaders = 300

	// leftByHasty is how many records without a lease readers may leave who have gone before
	// they had the answer. It was on its way from the plugin, which no plugin can see.
	leftByHasty = 15
)

// hasty is a mount whose readers go before they have the answer.
type hasty struct {
	*cluster
	tenant *graphtest.Client
}

// left is what is there when all readers have gone.
type left struct {
	answered int // reads, with a lease
	records  int // of leases, as the engine counts them
	stored   int // of leases, in storage
	leases   int // that Vault lists; it can list one that it has told the engine to revoke
	unknown  int // records that are left when all of these have been revoked
}

// testHasty lets readers time out after some milliseconds. Who left keeps no key alive:
// five seconds after all leases that Vault lists have been revoked, the key is dead, unless
// an answer was lost between the plugin and Vault, which the lease's end settles. Of readers
// that a standby has forwarded, the plugin does not hear that they have gone, but Vault has
// leases for them.
//
// It runs before the scenarios that run beside each other: how many answers are lost depends
// on how busy the machine is.
func (s *suite) testHasty(t *testing.T) {
	work := filepath.Join(s.work, "hasty")
	require.NoError(t, os.Mkdir(work, 0o700))
	sc, err := s.newScenario(work)
	require.NoError(t, err)
	t.Cleanup(func() { sc.end(t) })
	require.NoError(t, sc.startTenant("tenant"))
	sc.cluster = &cluster{sc: sc, settings: map[string]any{"raw_storage_endpoint": true}}
	require.NoError(t, sc.cluster.start(t.Context(), 2))
	h := &hasty{sc.cluster, sc.tenants[0].client}
	require.NoError(t, h.Call(t.Context(), http.MethodPost, "mdi/config", testbed.ConfigFields(sc.tenants[0].info), nil))
	require.NoError(t, h.Call(t.Context(), http.MethodPost, "mdi/roles/hosts", map[string]any{"ttl": "1h"}, nil))

	active, _, err := h.active(t.Context(), "")
	require.NoError(t, err)
	for _, n := range h.nodes {
		got := h.leave(t, n)
		// On a busy machine, more of them go after the plugin has answered: Vault has leases
		// for these, which end like any other.
		t.Logf("%d readers, forwarded: %t: %+v", hastyReaders, n != active, got)
		require.Equal(t, got.records, got.stored)
	}
}

// leave lets readers come and go at a node, revokes what Vault knows of, and waits for the
// end of the key.
func (h *hasty) leave(t *testing.T, n *node) left {
	t.Helper()
	patient, err := read(t.Context(), n.Client, "mdi/key/hosts").key()
	require.NoError(t, err)
	got := left{answered: 1 + h.come(t.Context(), n)}
	pause(t.Context(), 3*time.Second)
	status, err := h.status(t.Context())
	require.NoError(t, err)
	names, err := testbed.List(t.Context(), h, "sys/leases/lookup/mdi/key/hosts")
	require.NoError(t, err)
	got.records, got.leases, got.stored = status.LiveLeases, len(names), h.stored(t)
	require.Equal(t, patient.Data.Version, status.Version, "nobody has asked for another key")
	registers, err := h.tenant.Register(t.Context(), patient.Data.Key)
	require.NoError(t, err)
	require.True(t, registers)

	require.NoError(t, h.Call(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/mdi/key", map[string]bool{"sync": true}, nil))
	if status, err = h.status(t.Context()); status.Version == patient.Data.Version {
		got.unknown = status.LiveLeases
	}
	require.NoError(t, err)
	h.expectEnd(t, patient.Data.Key, got)
	return got
}

// expectEnd requires that the key is dead in five seconds if there is no lease on it.
func (h *hasty) expectEnd(t *testing.T, key string, l left) {
	t.Helper()
	require.LessOrEqual(t, l.unknown, leftByHasty)
	if l.unknown > 0 {
		t.Logf("%d answers were lost between the plugin and Vault", l.unknown)
		require.NoError(t, h.Call(t.Context(), http.MethodPost, "mdi/rotate-key", nil, nil))
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		registers, err := h.tenant.Register(t.Context(), key)
		assert.NoError(c, err)
		assert.False(c, registers, "the key outlives the leases on it")
	}, 5*time.Second, 50*time.Millisecond, "%+v", l)
}

// come returns how many of many readers were answered although they wait no longer than
// some milliseconds.
func (h *hasty) come(ctx context.Context, n *node) (answered int) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		next = make(chan int)
	)
	for range 10 {
		wg.Go(func() {
			for i := range next {
				limited, cancel := context.WithTimeout(ctx, time.Duration(2+i%30)*time.Millisecond)
				got := read(limited, n.Client, "mdi/key/hosts")
				cancel()
				mu.Lock()
				if got.Status == http.StatusOK {
					answered++
				}
				mu.Unlock()
			}
		})
	}
	for i := range hastyReaders {
		next <- i
	}
	close(next)
	wg.Wait()
	return answered
}

// stored counts the records of leases in storage, in the pages of the ledger.
func (h *hasty) stored(t *testing.T) (count int) {
	t.Helper()
	var mount struct{ Data struct{ UUID string } }
	require.NoError(t, h.Call(t.Context(), http.MethodGet, "sys/mounts/mdi", nil, &mount))
	ledger := "sys/raw/logical/" + mount.Data.UUID + "/lease"
	versions, err := testbed.List(t.Context(), h, ledger)
	require.NoError(t, err)
	require.NotEmpty(t, versions)
	version := ledger + "/" + versions[len(versions)-1]
	pages, err := testbed.List(t.Context(), h, version)
	require.NoError(t, err)
	for _, name := range pages {
		var entry struct{ Data struct{ Value string } }
		require.NoError(t, h.Call(t.Context(), http.MethodGet, version+name, nil, &entry))
		var page struct{ Live []byte }
		require.NoError(t, json.Unmarshal([]byte(entry.Data.Value), &page))
		for _, slots := range page.Live {
			count += bits.OnesCount8(slots)
		}
	}
	return count
}
