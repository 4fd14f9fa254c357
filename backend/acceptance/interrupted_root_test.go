// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
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

// rootKind is a kind of credential that can be rotated, of an app with those roles.
// Somebody else has made it, so it has to outlive every rotation.
type rootKind struct {
	name   string
	roles  []string
	fields func(t *testing.T, tenant *graphtest.Simulator) map[string]any
}

func rootKinds() []rootKind {
	certificate := func(t *testing.T, tenant *graphtest.Simulator) map[string]any {
		t.Helper()
		byHand, err := tenant.NewCertificate(graphtest.CertificateRequest{CommonName: "by hand"})
		require.NoError(t, err)
		return map[string]any{"client_certificate": byHand}
	}
	privileged := []string{graphtest.RoleReadWrite, graphtest.RoleOwnedBy}
	return []rootKind{
		{"secret", privileged, func(_ *testing.T, tenant *graphtest.Simulator) map[string]any {
			return map[string]any{"client_secret": tenant.App().ClientSecret}
		}},
		{"certificate", privileged, certificate},
		{"unprivileged", []string{graphtest.RoleReadWrite}, func(t *testing.T, tenant *graphtest.Simulator) map[string]any {
			t.Helper()
			fields := certificate(t, tenant)
			fields["application_object_id"] = tenant.Info().ObjectID
			return fields
		}},
	}
}

// rootStep is a piece of work on the credential, and the number of its writes that the
// plugin is to be killed at.
type rootStep struct {
	name    string
	writes  int
	prepare func(i *rootInterruption, t *testing.T)
	begin   func(p *hosted)
}

func rootSteps() []rootStep {
	tick := func(p *hosted) { _, _ = p.request(logical.RollbackOperation, "", nil, nil) }
	return []rootStep{{
		// What is to be added, what has been added, and what is used from now on.
		name: "rotation", writes: 3,
		prepare: func(*rootInterruption, *testing.T) {},
		begin: func(p *hosted) {
			_, _ = p.request(logical.UpdateOperation, "rotate-root", nil, nil) // it may not live to answer
		},
	}, {
		// What has become of a credential whose addition was not confirmed.
		name: "settling", writes: 1, prepare: (*rootInterruption).loseAnswer, begin: tick,
	}, {
		// That the one before has been removed.
		name: "removal", writes: 1, prepare: (*rootInterruption).replace, begin: tick,
	}}
}

// rootInterruption is a plugin that is to be killed while it rotates its credential.
type rootInterruption struct {
	*interruption
	foreign []string // ids of the credentials that others have made
}

// storedRoot is what the plugin has stored of its credential.
type storedRoot struct {
	Root struct {
		KeyID      string          `json:"key_id"`
		Thumbprint string          `json:"thumbprint"`
		Intent     string          `json:"intent"`
		Pending    json.RawMessage `json:"pending"`
		Retiring   []struct {
			KeyID string `json:"key_id"`
		} `json:"retiring"`
	} `json:"root"`
}

// testInterruptedRoot kills the plugin at each write of a rotation, as testInterrupted
// does, and of what comes after it.
func (s *suite) testInterruptedRoot(t *testing.T) {
	t.Parallel()
	for _, kind := range rootKinds() {
		for _, step := range rootSteps() {
			t.Run(kind.name+"-"+step.name, func(t *testing.T) {
				t.Parallel()
				s.interruptRoot(t, kind, t.Name()).undisturbed(t, step)
			})
			for at := range step.writes {
				for _, applied := range []bool{false, true} {
					name := fmt.Sprintf("%s-%s-%d-%s", kind.name, step.name, at+1, map[bool]string{false: "lost", true: "stored"}[applied])
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						s.interruptRoot(t, kind, t.Name()).killed(t, step, at+1, applied)
					})
				}
			}
		}
	}
}

// interruptRoot starts a plugin that has rotated its credential once, so that the next
// rotation has one of its own to retire.
func (s *suite) interruptRoot(t *testing.T, kind rootKind, name string) *rootInterruption {
	t.Helper()
	logs := filepath.Join(s.logs, "interrupted-root-"+filepath.Base(name))
	require.NoError(t, os.Mkdir(logs, 0o700))
	tenant := graphtest.Start(t, graphtest.WithRoles(kind.roles...), graphtest.WithForeignPassword("billing"))
	i := &rootInterruption{interruption: &interruption{host: newHost(t, s, logs), tenant: tenant}}
	t.Cleanup(func() { s.evidence.add(logs, tenant.Issued()) })
	config := testbed.AppFields(tenant.Info())
	maps.Copy(config, kind.fields(t, tenant))
	for _, c := range tenant.Credentials() {
		i.foreign = append(i.foreign, c.KeyID)
	}
	i.plugin = i.start(t)
	_, err := i.plugin.request(logical.CreateOperation, "config", config, nil)
	require.NoError(t, err)
	i.rotate(t)
	// From now on a new credential fails once before it works.
	tenant.Update(graphtest.WithPropagation(1))
	return i
}

// undisturbed shows that a step writes what the table says, before anything else.
func (i *rootInterruption) undisturbed(t *testing.T, step rootStep) {
	t.Helper()
	step.prepare(i, t)
	i.storage.arm("", 0, false)
	step.begin(i.plugin)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.GreaterOrEqual(c, len(i.storage.writes()), step.writes)
	}, 30*time.Second, 50*time.Millisecond)
	for _, written := range i.storage.writes()[:step.writes] {
		require.Equal(t, "config", written)
	}
	i.plugin.kill(t)
	i.storage.disarm()
	i.settles(t)
}

// loseAnswer leaves a credential that has been added without the plugin's hearing of it,
// and that is due to be settled.
func (i *rootInterruption) loseAnswer(t *testing.T) {
	t.Helper()
	for _, adding := range []graphtest.Operation{graphtest.AddPassword, graphtest.AddKey} {
		i.tenant.Inject(graphtest.Fault{Operation: adding, Times: 1, AfterWork: true, Reset: true})
	}
	_, err := i.plugin.request(logical.UpdateOperation, "rotate-root", nil, nil)
	require.Error(t, err)
	i.tenant.Clear()
	i.plugin.kill(t)
	i.endDoubt(t)
	i.plugin = i.start(t)
}

// replace rotates the credential, so that the one before is due to be removed.
func (i *rootInterruption) replace(t *testing.T) {
	t.Helper()
	i.rotate(t)
	i.plugin.kill(t)
	i.endGrace(t)
	i.plugin = i.start(t)
}

func (i *rootInterruption) rotate(t *testing.T) {
	t.Helper()
	_, err := i.plugin.request(logical.UpdateOperation, "rotate-root", nil, nil)
	require.NoError(t, err)
}

// killed kills the plugin at a write of a step, and looks at what its successors make of
// it.
func (i *rootInterruption) killed(t *testing.T, step rootStep, at int, applied bool) {
	t.Helper()
	step.prepare(i, t)
	trip, doomed := i.storage.arm("", at, applied), i.plugin
	go step.begin(doomed)
	select {
	case <-trip.reached:
	case <-time.After(30 * time.Second):
		t.Fatalf("no write %d, only %v", at, i.storage.writes())
	}
	i.plugin.kill(t)
	i.storage.disarm()
	i.settles(t)
}

// settles starts the plugin's successors: one that settles what is left, and one for
// which the grace period is over. The app has no credential that the plugin does not know, and none
// too few.
func (i *rootInterruption) settles(t *testing.T) {
	t.Helper()
	i.endDoubt(t)
	i.plugin = i.start(t)
	i.awaitKey(t, i.plugin, "key")
	i.tick(t, func(c *assert.CollectT, now storedRoot) {
		assert.Empty(c, now.Root.Intent)
		assert.Equal(c, "null", string(now.Root.Pending))
	})
	require.ElementsMatch(t, append(i.own(t), i.foreign...), i.registered(), "an orphan, or a credential too few")

	i.plugin.kill(t)
	i.endGrace(t)
	i.plugin = i.start(t)
	i.tick(t, func(c *assert.CollectT, now storedRoot) { assert.Empty(c, now.Root.Retiring) })
	require.Len(t, i.own(t), 1)
	require.ElementsMatch(t, append(i.own(t), i.foreign...), i.registered())
	i.awaitKey(t, i.plugin, "key")
}

// own returns the ids of the credentials that the plugin knows to be its own: the one in
// use, and those that are to be removed.
func (i *rootInterruption) own(t *testing.T) []string {
	t.Helper()
	stored := i.stored(t).Root
	known := []string{stored.KeyID}
	if stored.KeyID == "" {
		known[0] = i.idOf(stored.Thumbprint)
	}
	for _, old := range stored.Retiring {
		known = append(known, old.KeyID)
	}
	return known
}

// idOf returns the id of a certificate, which an app that may not look does not know if
// the answer was lost.
func (i *rootInterruption) idOf(thumbprint string) string {
	for _, c := range i.tenant.Credentials() {
		if c.Thumbprint == thumbprint && thumbprint != "" {
			return c.KeyID
		}
	}
	return "of no certificate"
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

// endDoubt changes the stored time until which a secret may be there that is not listed,
// and the one until which a failure keeps the plugin from trying again.
func (i *rootInterruption) endDoubt(t *testing.T) {
	t.Helper()
	i.editRoot(t, func(root map[string]any) {
		for _, made := range root["made"].([]any) {
			if made := made.(map[string]any); made["name"] != "" { // a planned secret
				require.Contains(t, made, "made_at")
				made["made_at"] = time.Now().Add(-time.Hour)
			}
		}
		require.Contains(t, root, "next_attempt")
		root["next_attempt"] = time.Time{}
	})
}

// endGrace changes the stored times after which a credential is removed.
func (i *rootInterruption) endGrace(t *testing.T) {
	t.Helper()
	i.editRoot(t, func(root map[string]any) {
		for _, made := range root["made"].([]any) {
			require.Contains(t, made, "remove_after")
			made.(map[string]any)["remove_after"] = time.Now().Add(-time.Second)
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
