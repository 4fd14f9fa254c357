// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// A report that cannot be read for a moment is not replaced by one that knows nothing of
// what came before.
func TestReportThatCannotBeReadIsKept(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 3, Status: 403})
	r.fails(400, logical.ReadOperation, keyPath, nil)
	r.fails(400, logical.ReadOperation, keyPath, nil)
	before := r.status()
	require.Equal(t, 2, before[fieldConsecutiveFailures])

	r.restart()
	r.storage.FailWhen(func(op, key string) bool { return op == "get" && key == health.StorageKey })
	r.fails(400, logical.ReadOperation, keyPath, nil)
	require.Contains(t, r.log.String(), "storing the report")
	r.storage.FailWhen(nil)
	require.Equal(t, before, r.status())

	r.restart()
	require.Equal(t, before, r.status(), "nor has it been stored")
	r.key()
	require.Equal(t, 0, r.status()[fieldConsecutiveFailures])
	require.Equal(t, before[fieldLastErrorAt], r.status()[fieldLastErrorAt])
}

// A report that nobody can ever read gives way to a new one.
func TestReportThatCannotBeDecodedIsReplaced(t *testing.T) {
	r := configured(t)
	require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: health.StorageKey, Value: []byte("{")}))
	r.restart()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.fails(400, logical.ReadOperation, keyPath, nil)
	r.restart()
	require.Equal(t, 1, r.status()[fieldConsecutiveFailures])
}
