// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// interrupted mounts an engine that has lost the answer about a new secret. It returns
// how many credentials the app had before.
func interrupted(t *testing.T, fault graphtest.Fault, opts ...graphtest.Option) (*rig, int) {
	t.Helper()
	r := rotatable(t, credential.ClientSecret, opts...)
	before := r.credentials()
	fault.Operation, fault.Times, fault.Reset = graphtest.AddPassword, 1, true
	r.sim.Inject(fault)
	r.fails(503, logical.UpdateOperation, rotateRootPath, nil)
	return r, before
}

// oldRoot is what version 0.1.x reads of the life.
type oldRoot struct {
	KeyID      string            `json:"key_id"`
	Thumbprint string            `json:"thumbprint"`
	Intent     string            `json:"intent"`
	IntentAt   time.Time         `json:"intent_at"`
	Pending    *credential.Made  `json:"pending"`
	Retiring   []credential.Made `json:"retiring"`
	Failures   int               `json:"failures"`
	life       credential.Life
}

func (o *oldRoot) Unsettled() bool { return o.life.Next(time.Now(), false).Unfinished }

func (r *rig) root() *oldRoot {
	r.t.Helper()
	cfg, err := r.engine.configs.Stored(r.t.Context())
	require.NoError(r.t, err)
	return oldRootOf(r.t, cfg.Root)
}

func oldRootOf(t *testing.T, l credential.Life) *oldRoot {
	text, err := json.Marshal(l)
	require.NoError(t, err)
	o := &oldRoot{life: l}
	require.NoError(t, json.Unmarshal(text, o))
	return o
}

func (r *rig) secretsAdded() int { return r.sim.Calls(graphtest.AddPassword).Performed }

// Graph lists a secret late whose value was lost with the answer. A repetition within
// seconds must not take it for one that was never added.
func TestSecretThatIsListedLateIsNotForgotten(t *testing.T) {
	r, before := interrupted(t, graphtest.Fault{AfterWork: true}, graphtest.WithListingLag(1))
	require.Equal(t, before+1, r.credentials())

	warnings := r.write(rotateRootPath, nil).Warnings
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "not known yet")
	until := r.root().life.NextAttempt
	if at := r.root().IntentAt.Add(credential.ListingLag); at.After(until) {
		until = at
	}
	require.Contains(t, warnings[0], timestamp(until))
	require.Equal(t, true, r.status()[fieldRootUnsettled])
	require.Equal(t, 1, r.status()[fieldRootFailures], "to wait is no further failure")
	require.Equal(t, 1, r.secretsAdded())

	r.restart()
	r.impatient()
	r.clock.advance(until.Sub(r.clock.now()) - time.Second)
	r.tick()
	require.Equal(t, before+1, r.credentials(), "it is too early")
	r.clock.advance(time.Second)
	r.tick()
	require.Equal(t, before+1, r.credentials(), "the one that nobody knew has gone, another is in use")
	require.Equal(t, 2, r.secretsAdded())
	require.NotEmpty(t, r.root().KeyID)
	require.Equal(t, false, r.status()[fieldRootUnsettled])
	require.True(t, r.works(r.key()))
}

// A secret that is listed is removed at once, and the rotation begins. Since the removal
// may have been overlooked, it is repeated.
func TestRemovalOfAYoungSecretIsRepeated(t *testing.T) {
	r, before := interrupted(t, graphtest.Fault{AfterWork: true})
	r.sim.Inject(graphtest.Fault{Operation: graphtest.RemovePassword, Times: 1, Status: 404})
	require.Empty(t, r.write(rotateRootPath, nil).Warnings)
	require.Equal(t, before+2, r.credentials())
	r.clock.advance(credential.ListingLag)
	r.tick()
	require.Equal(t, before+1, r.credentials())
	require.Empty(t, r.root().Retiring)
	require.True(t, r.works(r.key()))
}

// Nobody asks again: what was interrupted is settled when that is possible, and no
// credential is replaced.
func TestSecretThatWasNeverAdded(t *testing.T) {
	r, before := interrupted(t, graphtest.Fault{})
	r.tick()
	require.NotEmpty(t, r.root().Intent)
	r.clock.advance(credential.ListingLag)
	r.tick()
	require.Equal(t, before, r.credentials())
	require.False(t, r.root().Unsettled())
}

// What somebody has asked for in vain is not made after another credential has been
// configured.
func TestConfiguredSecretEndsTheWishForARotation(t *testing.T) {
	r, _ := interrupted(t, graphtest.Fault{AfterWork: true}, graphtest.WithListingLag(1))
	require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
	r.sim.Update(graphtest.WithApp("", "a-secret-that-the-operator-has-made"))
	r.write(configPath, map[string]any{credential.FieldSecret: "a-secret-that-the-operator-has-made"})
	require.NotEmpty(t, r.root().Intent)
	r.clock.advance(time.Hour)
	r.tick()
	require.False(t, r.root().Unsettled())
	require.Equal(t, 1, r.secretsAdded())
}

// A rotation that has been promised is tried until Graph refuses it.
func TestWishForARotationOutlivesAnOutage(t *testing.T) {
	r, before := interrupted(t, graphtest.Fault{})
	require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.AddPassword, Times: 2, Status: 429, RetryAfter: "1800"})
	for range 2 {
		r.clock.advance(time.Hour)
		r.tick()
		require.Equal(t, before, r.credentials())
		require.Empty(t, r.root().Intent, "Graph has not begun")
		require.True(t, r.root().Unsettled())
	}
	r.clock.advance(time.Hour)
	r.tick()
	require.Equal(t, before+1, r.credentials())
	require.False(t, r.root().Unsettled())
}

func TestWishForARotationEndsWithARefusal(t *testing.T) {
	r, _ := interrupted(t, graphtest.Fault{})
	require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, Status: 403})
	r.clock.advance(time.Hour)
	r.tick()
	require.False(t, r.root().Unsettled())
	require.Contains(t, r.status()[fieldRootLastError], "403")
}

// A wish that cannot be stored is refused, since nobody would remember it.
func TestWishForARotationThatCannotBeStored(t *testing.T) {
	r, _ := interrupted(t, graphtest.Fault{})
	r.storage.FailWhen(func(op, key string) bool { return op == "put" && key == config.StorageKey })
	_, err := r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
	require.ErrorIs(t, err, storagetest.ErrBroken)
}
