// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"vault-plugin-secrets-mdi/backend/graphtest"
	"vault-plugin-secrets-mdi/scripts/testbed"
)

// rootWrites are the writes of a rotation of the app's own credential: what is to be
// added, what has been added, and what is used from now on.
var rootWrites = []string{"config", "config", "config"}

// rootKinds configure a credential of each kind that can be rotated. Somebody else has
// made it, so it has to outlive every rotation.
func rootKinds() map[string]func(t *testing.T, tenant *graphtest.Simulator) (field, value string) {
	return map[string]func(*testing.T, *graphtest.Simulator) (string, string){
		"secret": func(_ *testing.T, tenant *graphtest.Simulator) (string, string) {
			return "client_secret", tenant.App().ClientSecret
		},
		"certificate": func(t *testing.T, tenant *graphtest.Simulator) (string, string) {
			t.Helper()
			certificate, err := tenant.NewCertificate(graphtest.CertificateRequest{CommonName: "by hand"})
			require.NoError(t, err)
			return "client_certificate", certificate
		},
	}
}

// rootInterruption is a plugin that is to be killed while it rotates its credential.
type rootInterruption struct {
	*interruption
	foreign []string // ids of the credentials that others have made
}

// storedRoot is what the plugin has stored of its credential.
type storedRoot struct {
	Credential struct {
		Certificate string `json:"client_certificate"`
	} `json:"credential"`
	Root struct {
		KeyID    string          `json:"key_id"`
		Intent   string          `json:"intent"`
		Pending  json.RawMessage `json:"pending"`
		Retiring []struct {
			KeyID string `json:"key_id"`
		} `json:"retiring"`
	} `json:"root"`
}

// testInterruptedRoot kills the plugin at each write of a rotation, as testInterrupted
// does.
func (s *suite) testInterruptedRoot(t *testing.T) {
	t.Parallel()
	for kind := range rootKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			i := s.interruptRoot(t, kind, kind)
			i.storage.arm(0, false)
			i.rotate(t)
			require.Equal(t, rootWrites, i.storage.writes())
		})
		for at := range rootWrites {
			for _, applied := range []bool{false, true} {
				name := fmt.Sprintf("%s-%d-%s", kind, at+1, map[bool]string{false: "lost", true: "stored"}[applied])
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s.interruptRoot(t, kind, name).killed(t, at+1, applied)
				})
			}
		}
	}
}

// interruptRoot starts a plugin that has rotated its credential once, so that the next
// rotation has one of its own to retire.
func (s *suite) interruptRoot(t *testing.T, kind, name string) *rootInterruption {
	t.Helper()
	logs := filepath.Join(s.logs, "interrupted-root-"+name)
	require.NoError(t, os.Mkdir(logs, 0o700))
	tenant := graphtest.Start(t,
		graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleOwnedBy), graphtest.WithForeignPassword("billing"))
	i := &rootInterruption{interruption: &interruption{host: newHost(t, s, logs), tenant: tenant}}
	t.Cleanup(func() { s.evidence.add(logs, append(tenant.Issued(), i.privateKey(t)...)) })
	field, value := rootKinds()[kind](t, tenant)
	for _, c := range tenant.Credentials() {
		i.foreign = append(i.foreign, c.KeyID)
	}
	config := testbed.AppFields(tenant.Info())
	config[field] = value
	i.plugin = i.start(t)
	_, err := i.plugin.request(logical.CreateOperation, "config", config, nil)
	require.NoError(t, err)
	i.rotate(t)
	return i
}

func (i *rootInterruption) rotate(t *testing.T) {
	t.Helper()
	_, err := i.plugin.request(logical.UpdateOperation, "rotate-root", nil, nil)
	require.NoError(t, err)
}

// killed kills the plugin at a write and looks at what its successors make of it: one
// that settles what is left, and one for which the grace period is over.
func (i *rootInterruption) killed(t *testing.T, at int, applied bool) {
	t.Helper()
	trip, doomed := i.storage.arm(at, applied), i.plugin
	go func() { _, _ = doomed.request(logical.UpdateOperation, "rotate-root", nil, nil) }() // it does not live to answer
	select {
	case <-trip.reached:
	case <-time.After(30 * time.Second):
		t.Fatalf("no write %d, only %v", at, i.storage.writes())
	}
	i.plugin.kill(t)
	i.storage.disarm()
	i.endDoubt(t)

	i.plugin = i.start(t)
	i.awaitKey(t, i.plugin, "key")
	i.tick(t, func(c *assert.CollectT, now storedRoot) {
		assert.Empty(c, now.Root.Intent)
		assert.Equal(c, "null", string(now.Root.Pending))
	})
	known := []string{i.stored(t).Root.KeyID}
	for _, old := range i.stored(t).Root.Retiring {
		known = append(known, old.KeyID)
	}
	require.ElementsMatch(t, append(known, i.foreign...), i.registered(), "an orphan, or a credential too few")

	i.plugin.kill(t)
	i.endGrace(t)
	i.plugin = i.start(t)
	i.tick(t, func(c *assert.CollectT, now storedRoot) { assert.Empty(c, now.Root.Retiring) })
	require.ElementsMatch(t, append([]string{i.stored(t).Root.KeyID}, i.foreign...), i.registered())
	i.awaitKey(t, i.plugin, "key")
}

// tick has the plugin do what is due, as Vault does every minute, until what is stored
// is as expected.
func (i *rootInterruption) tick(t *testing.T, expect func(c *assert.CollectT, now storedRoot)) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := i.plugin.request(logical.RollbackOperation, "", nil, nil)
		assert.NoError(c, err)
		expect(c, i.stored(t))
	}, time.Minute, 200*time.Millisecond)
}

// registered returns the ids of the credentials that the app has.
func (i *rootInterruption) registered() []string {
	var ids []string
	for _, c := range i.tenant.Credentials() {
		ids = append(ids, c.KeyID)
	}
	return ids
}

func (i *rootInterruption) stored(t *testing.T) storedRoot {
	t.Helper()
	var stored storedRoot
	i.readConfig(t, &stored)
	return stored
}

func (i *rootInterruption) readConfig(t *testing.T, into any) {
	t.Helper()
	entry, err := i.storage.Get(i.plugin.ctx, "config") // also when the test is over
	require.NoError(t, err)
	require.NoError(t, entry.DecodeJSON(into))
}

// endDoubt changes the stored time until which a secret may be there that is not listed.
func (i *rootInterruption) endDoubt(t *testing.T) {
	t.Helper()
	i.editRoot(t, func(root map[string]any) {
		require.Contains(t, root, "intent_at")
		root["intent_at"] = time.Now().Add(-time.Hour)
	})
}

// endGrace changes the stored times after which a credential is removed.
func (i *rootInterruption) endGrace(t *testing.T) {
	t.Helper()
	i.editRoot(t, func(root map[string]any) {
		retiring, _ := root["retiring"].([]any)
		for _, old := range retiring {
			require.Contains(t, old, "remove_after")
			old.(map[string]any)["remove_after"] = time.Now().Add(-time.Second)
		}
	})
}

// editRoot changes what is stored of the credential while no plugin is running.
func (i *rootInterruption) editRoot(t *testing.T, edit func(root map[string]any)) {
	t.Helper()
	var config map[string]any
	i.readConfig(t, &config)
	edit(config["root"].(map[string]any))
	entry, err := logical.StorageEntryJSON("config", config)
	require.NoError(t, err)
	require.NoError(t, i.storage.Put(i.plugin.ctx, entry))
}

// privateKey returns the lines of the private key in use, which the plugin has made
// and the tenant has never seen.
func (i *rootInterruption) privateKey(t *testing.T) []string {
	t.Helper()
	_, key, found := strings.Cut(i.stored(t).Credential.Certificate, "PRIVATE KEY-----\n")
	if !found {
		return nil
	}
	lines := strings.Split(key, "\n")
	// The first line is the same for many keys, and the last ones say little.
	return lines[1 : len(lines)-2]
}
