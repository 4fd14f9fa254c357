// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// flow is something that the plugin does, and can be killed at.
type flow struct {
	name string
	// writes are its writes to storage, by the first part of the entry's path.
	writes []string
	begin  func(p *hosted, lease *logical.Secret)
}

// flows are those that have a critical section, each with a key that is leased before.
func flows() []flow {
	return []flow{{
		name: "read",
		// The intent; the new version and, beside it, the lease.
		writes: []string{"key", "key", "lease"},
		begin: func(p *hosted, _ *logical.Secret) {
			_, _ = p.request(logical.ReadOperation, "key", nil, nil) // it does not live to answer
		},
	}, {
		name: "retirement",
		// The lease's record goes; the comparison and its report; the intent, the new version.
		writes: []string{"lease", "key", "health", "key", "key"},
		begin: func(p *hosted, lease *logical.Secret) {
			_, _ = p.request(logical.RevokeOperation, "", nil, lease) // may not live to answer either
		},
	}}
}

// interruption is a plugin that is to be killed at a write.
type interruption struct {
	*host
	tenant *graphtest.Simulator
	old    string          // the key that is leased before
	lease  *logical.Secret // on it
	plugin *hosted
}

// testInterrupted kills the plugin at each write of its critical sections: when the
// write has not been carried out, and when it has been and nobody has told the plugin.
func (s *suite) testInterrupted(t *testing.T) {
	t.Parallel()
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s.interrupt(t, f.name).undisturbed(t, f)
		})
		for i, written := range f.writes {
			for _, applied := range []bool{false, true} {
				name := fmt.Sprintf("%s-%d-%s-%s", f.name, i+1, written, map[bool]string{false: "lost", true: "stored"}[applied])
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s.interrupt(t, name).killed(t, f, i+1, applied)
				})
			}
		}
	}
}

// interrupt starts a plugin that has leased a key.
func (s *suite) interrupt(t *testing.T, name string) *interruption {
	t.Helper()
	logs := filepath.Join(s.logs, "interrupted-"+name)
	require.NoError(t, os.Mkdir(logs, 0o700))
	i := &interruption{host: newHost(t, s, logs), tenant: graphtest.Start(t)}
	t.Cleanup(func() { s.evidence.add(logs, i.tenant.Issued()) })
	i.plugin = i.start(t)
	_, err := i.plugin.request(logical.CreateOperation, "config", testbed.ConfigFields(i.tenant.Info()), nil)
	require.NoError(t, err)
	_, err = i.plugin.request(logical.CreateOperation, "roles/hosts", nil, nil)
	require.NoError(t, err)
	resp, err := i.plugin.request(logical.ReadOperation, "key/hosts", nil, nil)
	require.NoError(t, err)
	i.old, i.lease = keyOf(resp), resp.Secret
	require.True(t, i.tenant.CanRegister(i.old))
	return i
}

// undisturbed shows that a flow does the writes that the table names.
func (i *interruption) undisturbed(t *testing.T, f flow) {
	t.Helper()
	i.storage.arm("", 0, false)
	f.begin(i.plugin, i.lease)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.ElementsMatch(c, f.writes, i.storage.writes())
	}, 10*time.Second, 50*time.Millisecond)
	require.False(t, i.tenant.CanRegister(i.old))
}

// killed kills the plugin at a write and looks at what its successor makes of it.
func (i *interruption) killed(t *testing.T, f flow, at int, applied bool) {
	t.Helper()
	kind, nth := f.writes[at-1], 0
	for _, other := range f.writes[:at] {
		if other == kind {
			nth++
		}
	}
	trip := i.storage.arm(kind, nth, applied)
	go f.begin(i.plugin, i.lease)
	select {
	case <-trip.reached:
	case <-time.After(10 * time.Second):
		t.Fatalf("no write %d, only %v", at, i.storage.writes())
	}
	i.plugin.kill(t)
	i.storage.disarm()
	began, posts := time.Now(), i.tenant.Calls(graphtest.Regenerate).Performed

	successor := i.start(t)
	shared := i.awaitKey(t, successor, "key/hosts")
	t.Logf("a key after %s, the old one still good: %t, regenerations: %d, and %d to come",
		time.Since(began).Round(10*time.Millisecond), shared == i.old, posts, i.tenant.Calls(graphtest.Regenerate).Performed-posts)
	require.NotEqual(t, shared, i.awaitKey(t, successor, "key"))
	require.False(t, i.tenant.CanRegister(i.old))
	require.False(t, i.tenant.CanRegister(shared))
}

// awaitKey reads until there is a key, which must register. While a regeneration is in
// doubt there is none until Graph has named one.
func (i *interruption) awaitKey(t *testing.T, p *hosted, path string) string {
	t.Helper()
	var resp *logical.Response
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var err error
		resp, err = p.request(logical.ReadOperation, path, nil, nil)
		assert.NoError(c, err)
	}, time.Minute, 200*time.Millisecond)
	require.True(t, i.tenant.CanRegister(keyOf(resp)), "the key does not install a sensor")
	return keyOf(resp)
}

func keyOf(resp *logical.Response) string {
	key, _ := resp.Data["deployment_access_key"].(string)
	return key
}
