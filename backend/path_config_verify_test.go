// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Who asks for a verification gets one, also of what is stored already.
func TestVerificationByName(t *testing.T) {
	r := newRig(t)
	broken := r.config(map[string]any{credential.FieldSecret: "wrong", config.FieldVerifyConnection: false})
	r.write(configPath, broken)
	broken[config.FieldVerifyConnection] = true
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, broken), "AADSTS7000215")
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, map[string]any{config.FieldVerifyConnection: true}), "AADSTS7000215")
	r.write(configPath, map[string]any{config.FieldTTL: 60})

	// The token that the engine has would do for long after.
	r.write(configPath, r.config(map[string]any{config.FieldVerifyConnection: true}))
	tokens := r.sim.Calls(graphtest.Token).Performed
	r.write(configPath, map[string]any{config.FieldVerifyConnection: true})
	require.Equal(t, tokens+1, r.sim.Calls(graphtest.Token).Performed)
	require.True(t, r.works(r.key()))
	require.Equal(t, tokens+1, r.sim.Calls(graphtest.Token).Performed)
}

// Rewriting a secret that has expired since is no success, and what has been found to work
// ends the wait of readers also if it is what has been stored already.
func TestAnUnchangedCredentialIsVerified(t *testing.T) {
	r := configured(t)
	r.sim.Update(graphtest.WithExpiredSecret())
	same := map[string]any{credential.FieldSecret: r.sim.App().ClientSecret}
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		require.Contains(t, r.fails(400, op, configPath, same), "AADSTS7000222")
	}
	r.write(configPath, with(same, config.FieldVerifyConnection, false))
}

// A configuration that cannot work is refused at once, also while a regeneration keeps
// everybody else waiting; one that works waits for its turn.
func TestARefusalDoesNotWaitForARegeneration(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	read := make(chan error, 1)
	go func() {
		_, err := r.request(t.Context(), logical.ReadOperation, keyPath, nil)
		read <- err
	}()
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Started > 0 }))
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, map[string]any{credential.FieldSecret: "wrong"}), "AADSTS7000215")

	written := make(chan error, 1)
	asked := r.sim.Calls(graphtest.Get).Answered
	go func() {
		_, err := r.request(t.Context(), logical.UpdateOperation, configPath, map[string]any{config.FieldGraphAPIVersion: "beta"})
		written <- err
	}()
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Get, func(c graphtest.Calls) bool { return c.Answered > asked }))
	require.Equal(t, "v1.0", r.read(configPath).Data[config.FieldGraphAPIVersion])
	r.sim.Clear()
	require.NoError(t, <-read)
	require.NoError(t, <-written)
	require.Equal(t, "beta", r.read(configPath).Data[config.FieldGraphAPIVersion])
	require.Equal(t, asked+1, r.sim.Calls(graphtest.Get).Answered, "what was verified is not verified again")
}

// What was verified while other work went on is stored only if that has left it as it
// was.
func TestWhatHasNotBeenVerifiedIsNotStored(t *testing.T) {
	r := configured(t)
	d := &framework.FieldData{Raw: map[string]any{config.FieldGraphAPIVersion: "beta"}, Schema: field.Schema(new(config.Config).Fields())}
	tried, err := r.engine.configs.Try(t.Context(), d)
	require.NoError(t, err)

	r.write(configPath, map[string]any{credential.FieldSecret: "another", config.FieldVerifyConnection: false})
	err = r.engine.replaceConfig(t.Context(), &logical.Request{}, d, tried, &logical.Response{})
	require.ErrorIs(t, err, config.ErrChanged)
	var coded logical.HTTPCodedError
	require.ErrorAs(t, refusal(err), &coded)
	require.Equal(t, 503, coded.Code())
	require.Equal(t, "v1.0", r.read(configPath).Data[config.FieldGraphAPIVersion])
}

// A tenant that has no key yet can be configured; the first read makes its key.
func TestATenantWithoutAKeyIsConfiguredWithAWarning(t *testing.T) {
	r := newRig(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Body: graphtest.BodyNoKey})
	resp := r.write(configPath, r.config(nil))
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "the tenant has none yet")
	require.True(t, r.works(r.key()))
}
