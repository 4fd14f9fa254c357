// SPDX-License-Identifier: MPL-2.0

package lease_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

const (
	// diskTime is what a write takes, and vaultTime what Vault does before a client's next
	// revocation.
	diskTime  = 5 * time.Millisecond
	vaultTime = 8 * time.Millisecond
)

// gathering is a ledger with leases to remove, and a count of the writes.
type gathering struct {
	*testing.T
	ledger  *lease.Ledger
	storage logical.Storage
	ids     []string
	writes  atomic.Int64
}

func withLeases(t *testing.T, n int, test func(g *gathering)) {
	synctest.Test(t, func(t *testing.T) {
		disk := storagetest.New()
		g := &gathering{T: t, ledger: lease.New(), storage: &storagetest.Slow{Storage: disk, Takes: diskTime}}
		for range n {
			g.ids = append(g.ids, g.add())
		}
		disk.FailWhen(func(op, _ string) bool {
			if op == "put" || op == "delete" {
				g.writes.Add(1)
			}
			return false
		})
		time.Sleep(time.Second)
		test(g)
		require.Empty(t, g.ids)
		live, err := g.ledger.Live(t.Context(), g.storage, 1, time.Now())
		require.NoError(t, err)
		require.Zero(t, live)
	})
}

func (g *gathering) add() string {
	id, err := g.ledger.Add(g.Context(), g.storage, 1, time.Now().Add(time.Hour))
	require.NoError(g, err)
	return id
}

// remove has clients remove all leases, each one after the other, and returns the time that
// it took.
func (g *gathering) remove(clients int) time.Duration {
	start := time.Now()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for n := i; n < len(g.ids); n += clients {
				require.NoError(g, g.ledger.Remove(g.Context(), g.storage, 1, g.ids[n]))
				time.Sleep(vaultTime)
			}
		})
	}
	all.Wait()
	g.ids = nil
	return time.Since(start)
}

// Of six, two come during a write.
func TestRemovalsThatOverlapShareWrites(t *testing.T) {
	withLeases(t, 600, func(g *gathering) {
		g.remove(6)
		require.Less(t, g.writes.Load(), int64(600/3))
	})
}

func TestRemovalsOneAfterTheOtherWaitForNothing(t *testing.T) {
	withLeases(t, 20, func(g *gathering) {
		require.Equal(t, 20*(diskTime+vaultTime), g.remove(1))
		require.Equal(t, int64(20), g.writes.Load())
	})
}

// Two clients who revoke one lease after the other bring no more, however long a batch
// waits.
func TestTwoWhoRemoveHardlyWait(t *testing.T) {
	withLeases(t, 200, func(g *gathering) {
		alone := 100 * (diskTime + vaultTime)
		require.Less(t, g.remove(2), alone*6/5)
	})
}

func TestReadersDoNotWaitForRemovals(t *testing.T) {
	withLeases(t, 640, func(g *gathering) {
		var removing sync.WaitGroup
		removing.Go(func() { g.remove(64) })
		time.Sleep(4 * diskTime)
		for range 5 {
			start := time.Now()
			id := g.add()
			require.LessOrEqual(t, time.Since(start), 2*diskTime, "the write under way, and their own")
			removing.Go(func() { require.NoError(t, g.ledger.Remove(g.Context(), g.storage, 1, id)) })
		}
		removing.Wait()
	})
}
