// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/rootrotation"
)

// owning mounts an engine that has a credential of its own, one that is retiring, and
// one that does not work yet. It returns how the three are to be named.
func owning(t *testing.T, kind string) (*rig, []string) {
	t.Helper()
	r := rotatable(t, kind)
	r.write(rotateRootPath, nil)
	r.write(rotateRootPath, nil)
	r.sim.Update(graphtest.WithPropagation(200))
	require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
	root := r.root()
	require.Len(t, root.Retiring, 1)
	return r, []string{root.KeyID, root.Retiring[0].KeyID, root.Pending.KeyID}
}

// said checks that a response warns of all that is left behind, and the log as well.
func (r *rig) said(resp *logical.Response, left []string) {
	r.t.Helper()
	require.Len(r.t, resp.Warnings, 1)
	for _, what := range left {
		require.Contains(r.t, resp.Warnings[0], what)
		require.Contains(r.t, r.log.String(), what)
	}
	require.Contains(r.t, resp.Warnings[0], "Remove them in the Entra portal")
}

func TestDeletedConfigurationNamesTheCredentialsThatStay(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r, left := owning(t, kind)
		resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
		require.NoError(t, err)
		r.said(resp, left)
	})
}

func TestAnotherAppNamesTheCredentialsThatStay(t *testing.T) {
	r, left := owning(t, credential.ClientSecret)
	const other = "11111111-2222-3333-4444-555555555555"
	fields := r.config(map[string]any{config.FieldClientID: other, config.FieldVerifyConnection: false})
	resp := r.write(configPath, fields)
	r.said(resp, append(left, r.sim.App().ClientID))
	require.False(t, r.root().Unsettled())
	require.Empty(t, r.write(configPath, fields).Warnings, "it has been said")
}

// An engine that has made nothing, and a write that changes nothing about the app, have
// nothing to warn of.
func TestNothingStaysThatTheEngineHasNotMade(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	require.Empty(t, r.write(configPath, map[string]any{config.FieldTTL: 60}).Warnings)
	resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	require.Nil(t, resp)
	r.system.TaintedVal = true
	r.tick()
	require.NotContains(t, r.log.String(), "remove them in the Entra portal")
}

func TestSecretThatMayStayIsNamed(t *testing.T) {
	r, _ := interrupted(t, graphtest.Fault{AfterWork: true})
	intent := r.root().Intent
	resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	r.said(resp, []string{intent})
}

// The app may have a certificate whose registration was never confirmed. The one who
// configures another is told.
func TestCertificateThatMayStayIsNamed(t *testing.T) {
	r := rotatable(t, credential.ClientCertificate)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.AddKey, Times: 1, AfterWork: true, Reset: true})
	r.fails(503, logical.UpdateOperation, rotateRootPath, nil)
	info, err := graph.ParseCertificate(r.root().Pending.Credential.Certificate)
	require.NoError(t, err)
	r.said(r.write(configPath, map[string]any{credential.FieldCertificate: r.certificate()}), []string{info.Thumbprint})
}

func TestDisabledMountNamesTheCredentialsThatStay(t *testing.T) {
	r, left := owning(t, credential.ClientSecret)
	r.system.TaintedVal = true
	r.tick()
	for _, id := range left {
		require.Contains(t, r.log.String(), id)
	}
}

func TestDisabledMountThatCannotBeRead(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	r.restart()
	r.storage.FailWhen(func(op, key string) bool { return op == "get" && key == config.StorageKey })
	r.system.TaintedVal = true
	r.tick()
	require.Contains(t, r.log.String(), "look for those named vault-plugin-secrets-mdi")
}

// late rotates a credential while somebody configures another one, and returns the id of
// what Entra has added meanwhile. The answer of Entra arrives when that has been done, and
// the tenant has been changed.
func late(t *testing.T, kind string, changes ...graphtest.Option) (*rig, string) {
	t.Helper()
	adding := map[string]graphtest.Operation{credential.ClientSecret: graphtest.AddPassword, credential.ClientCertificate: graphtest.AddKey}[kind]
	r := rotatable(t, kind)
	other, before := r.certificate(), r.sim.Credentials()
	r.sim.Inject(graphtest.Fault{Operation: adding, Times: 1, AfterWork: true, Latency: time.Minute})
	answer := make(chan error, 1)
	go func() {
		_, err := r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
		answer <- err
	}()
	require.NoError(t, r.sim.Wait(t.Context(), adding, func(c graphtest.Calls) bool { return c.Performed > 0 }))
	added := slices.DeleteFunc(r.sim.Credentials(), func(c graphtest.Credential) bool { return slices.Contains(before, c) })
	require.Len(t, added, 1)
	r.write(configPath, map[string]any{credential.FieldCertificate: other})
	r.sim.Update(changes...)
	r.sim.Clear()
	failure := <-answer
	require.ErrorIs(t, failure, rootrotation.ErrReplaced)
	coded, ok := errors.AsType[logical.HTTPCodedError](failure)
	require.True(t, ok, "a client would repeat it, and so rotate what has just been configured")
	require.Equal(t, http.StatusBadRequest, coded.Code())
	require.True(t, r.works(r.key()))
	return r, added[0].KeyID
}

func (r *rig) has(keyID string) bool {
	return slices.ContainsFunc(r.sim.Credentials(), func(c graphtest.Credential) bool { return c.KeyID == keyID })
}

func TestCredentialThatIsAddedTooLateIsRemoved(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r, id := late(t, kind)
		require.False(t, r.has(id))
		require.Regexp(t, "INFO.*has been removed from the app.*"+id, r.log.String())
	})
}

func TestCredentialThatIsAddedTooLateAndStaysIsNamed(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		r, id := late(t, kind, graphtest.WithOwner(false))
		require.True(t, r.has(id))
		require.Regexp(t, "WARN.*could not be removed from the app.*"+id, r.log.String())
	})
}

// Who signs in with something else cannot remove certificates any more, and is told so
// when that can still be helped.
func TestCertificatesThatStayWithAnotherKindAreNamed(t *testing.T) {
	r, left := owning(t, credential.ClientCertificate)
	r.said(r.write(configPath, map[string]any{credential.FieldSecret: r.sim.App().ClientSecret}), left)
	require.Empty(t, r.root().Retiring)
	for _, id := range left {
		require.True(t, r.has(id))
	}
}

func TestManagedIdentityCannotRemoveAnything(t *testing.T) {
	r, left := owning(t, credential.ClientSecret)
	r.allowed()
	r.said(r.write(configPath, map[string]any{credential.FieldType: credential.ManagedIdentity, config.FieldVerifyConnection: false}), left)
	require.Empty(t, r.root().Retiring)
}

// elsewhere returns the fields of a configuration that has the same credential sent to
// another authority, which the writer has chosen.
func (r *rig) elsewhere(other *graphtest.Simulator) map[string]any {
	return r.config(map[string]any{
		config.FieldAuthorityHost: other.URL(), config.FieldCACertificate: r.sim.CACertificate() + other.CACertificate(), config.FieldVerifyConnection: false,
	})
}

// Who knows the credential that is in use may have it sent anywhere, but not the one that
// the engine has made to replace it.
func TestPendingSecretIsNotSentElsewhere(t *testing.T) {
	r := rotatable(t, credential.ClientSecret, graphtest.WithPropagation(200))
	require.Len(t, r.write(rotateRootPath, nil).Warnings, 1)
	pending := r.root().Pending.KeyID
	other := graphtest.Start(t)
	r.said(r.write(configPath, r.elsewhere(other)), []string{pending})
	require.False(t, r.root().Unsettled())
	r.impatient()
	r.clock.advance(time.Hour)
	r.tick()
	require.Zero(t, other.Calls(graphtest.Token).Started)
	require.Zero(t, other.Calls(graphtest.RemovePassword).Started)
}

// What another host says of a removal proves nothing, so none is left to it. The current
// credential stays the engine's own.
func TestWhatIsUnfinishedIsNotDoneElsewhere(t *testing.T) {
	r, left := owning(t, credential.ClientSecret)
	secret, root := r.stored().Credential.Secret, r.root()
	other := graphtest.Start(t)
	fields := r.elsewhere(other)
	fields[credential.FieldSecret] = secret
	resp := r.write(configPath, fields)
	r.said(resp, left[1:])
	require.NotContains(t, resp.Warnings[0], left[0])
	now := r.root()
	require.Equal(t, root.life.Since, now.life.Since)
	require.Equal(t, root.life.EndsAt, now.life.EndsAt)
	require.Equal(t, root.KeyID, now.KeyID)
	require.Len(t, now.life.Made, 1)
	r.clock.advance(time.Hour)
	r.tick()
	require.Zero(t, other.Calls(graphtest.Token).Started)
}

func TestIntentIsNotSettledElsewhere(t *testing.T) {
	r, _ := interrupted(t, graphtest.Fault{AfterWork: true})
	intent := r.root().Intent
	r.said(r.write(configPath, r.elsewhere(graphtest.Start(t))), []string{intent})
	require.False(t, r.root().Unsettled())
}

// The object id is that of an app registration, and of no other.
func TestObjectIDBelongsToTheApp(t *testing.T) {
	const other = "11111111-2222-3333-4444-555555555555"
	r := unprivileged(t)
	objectID := func() any { return r.read(configPath).Data[config.FieldApplicationObjectID] }
	certificate := map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: r.certificate()}
	r.write(configPath, certificate)
	require.Equal(t, r.sim.Info().ObjectID, objectID())
	elsewhere := r.config(map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: r.certificate(), config.FieldClientID: other, config.FieldVerifyConnection: false})
	r.write(configPath, elsewhere)
	require.Empty(t, objectID())
	elsewhere[config.FieldClientID], elsewhere[config.FieldApplicationObjectID] = r.sim.App().ClientID, other
	r.write(configPath, elsewhere)
	require.Equal(t, other, objectID())

	r.allowed()
	ambient := map[string]any{credential.FieldType: credential.ManagedIdentity, config.FieldVerifyConnection: false, config.FieldApplicationObjectID: other}
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, ambient), config.FieldApplicationObjectID)
	delete(ambient, config.FieldApplicationObjectID)
	r.write(configPath, ambient)
	require.Empty(t, objectID())
}

// Who configures another credential and then the one before again has ended the rotation:
// what it has made is on its way out, and must not become the current one.
func TestRotationEndsWithItsConfigurationEvenIfThatComesBack(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	first := r.config(nil)
	reached, goOn := make(chan bool), make(chan bool)
	var proving sync.Once
	r.engine.root.Sleep = func(context.Context, time.Duration) error {
		proving.Do(func() { close(reached); <-goOn })
		return nil
	}
	answer := make(chan error, 1)
	go func() {
		_, err := r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
		answer <- err
	}()
	<-reached
	r.write(configPath, map[string]any{credential.FieldSecret: "mistyped", config.FieldVerifyConnection: false})
	r.write(configPath, map[string]any{credential.FieldSecret: first[credential.FieldSecret]})
	close(goOn)
	require.ErrorContains(t, <-answer, rootrotation.ErrReplaced.Error())
	require.Empty(t, r.root().KeyID, "the current one is not the engine's")
	r.clock.advance(credential.ListingLag + time.Second)
	r.tick()
	require.Empty(t, r.root().Retiring)
	require.True(t, r.works(r.key()))
}

func TestCertificateIsRegisteredForNobodyIfItsConfigurationComesBack(t *testing.T) {
	r := rotatable(t, credential.ClientCertificate)
	before := r.credentials()
	cfg, err := r.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	other := r.certificate()
	added := r.credentials()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.AddKey, Times: 1, AfterWork: true, Latency: time.Minute})
	answer := make(chan error, 1)
	go func() {
		_, err := r.request(t.Context(), logical.UpdateOperation, rotateRootPath, nil)
		answer <- err
	}()
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.AddKey, func(c graphtest.Calls) bool { return c.Performed > 0 }))
	r.write(configPath, map[string]any{credential.FieldCertificate: other, config.FieldVerifyConnection: false})
	r.write(configPath, map[string]any{credential.FieldCertificate: cfg.Credential.Certificate, config.FieldVerifyConnection: false})
	r.sim.Clear()
	require.ErrorContains(t, <-answer, rootrotation.ErrReplaced.Error())
	require.Equal(t, added, r.credentials(), "what was added has been removed")
	require.GreaterOrEqual(t, added, before)
	require.True(t, r.works(r.key()))
}
