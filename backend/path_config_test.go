// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestConfigIsReadBackWithoutItsSecret(t *testing.T) {
	r := newRig(t)
	require.Nil(t, r.read(configPath), "an unset configuration is a 404")

	r.write(configPath, r.config(map[string]any{config.FieldTTL: "30m", credential.FieldSecret: r.sim.App().ClientSecret + "\n"}))
	app := r.sim.App()
	require.Equal(t, map[string]any{
		config.FieldTenantID:           app.TenantID,
		config.FieldClientID:           app.ClientID,
		credential.FieldType:           "client_secret",
		config.FieldEnvironment:        "AzurePublicCloud",
		config.FieldGraphEndpoint:      r.sim.URL(),
		config.FieldAuthorityHost:      r.sim.URL(),
		config.FieldCACertificate:      strings.TrimSpace(r.sim.CACertificate()),
		config.FieldGraphAPIVersion:    "v1.0",
		config.FieldTTL:                int64(1800),
		config.FieldMaxKeyAge:          int64(0),
		config.FieldDriftCheckInterval: int64(600),
		config.FieldRegenerateOnRevoke: true,

		config.FieldApplicationObjectID: "",
		config.FieldRootRotationPeriod:  int64(0),
		schedule.FieldPeriod:            int64(0),
		schedule.FieldCron:              "",
		schedule.FieldWindow:            int64(0),
		fieldDisableAutomatedRotation:   false,
	}, r.read(configPath).Data)
	require.True(t, r.works(r.key()), "the newline after the secret is not part of it")
}

func TestConfigWriteKeepsWhatItDoesNotName(t *testing.T) {
	r := configured(t)
	r.write(configPath, map[string]any{config.FieldTTL: 60})
	r.write(configPath, map[string]any{config.FieldRegenerateOnRevoke: false, config.FieldGraphAPIVersion: "beta"})
	data := r.read(configPath).Data
	require.Equal(t, int64(60), data[config.FieldTTL])
	require.Equal(t, false, data[config.FieldRegenerateOnRevoke])
	require.Equal(t, "beta", data[config.FieldGraphAPIVersion])
	require.True(t, r.works(r.key()), "the secret is still there")
}

func TestConfigPatch(t *testing.T) {
	r := newRig(t)
	r.fails(404, logical.PatchOperation, configPath, r.config(nil))
	r.write(configPath, r.config(map[string]any{config.FieldTTL: 60, config.FieldRegenerateOnRevoke: false}))
	_, err := r.request(t.Context(), logical.PatchOperation, configPath, map[string]any{config.FieldTTL: nil})
	require.NoError(t, err)
	data := r.read(configPath).Data
	require.Equal(t, int64(3600), data[config.FieldTTL], "null restores the default")
	require.Equal(t, false, data[config.FieldRegenerateOnRevoke])
	require.Contains(t, r.fails(400, logical.PatchOperation, configPath, map[string]any{config.FieldTenantID: nil}), config.FieldTenantID)
	r.fails(400, logical.PatchOperation, configPath, map[string]any{credential.FieldSecret: "wrong", config.FieldVerifyConnection: nil})
}

// What is patched can be deleted while the engine signs in.
func TestPatchBesideADelete(t *testing.T) {
	r := configured(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Times: 1, Latency: time.Hour})
	asked := r.sim.Calls(graphtest.Token).Started
	var done sync.WaitGroup
	done.Go(func() { r.fails(404, logical.PatchOperation, configPath, r.config(nil)) })
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Token, func(c graphtest.Calls) bool { return c.Started > asked }))
	_, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	r.sim.Clear()
	done.Wait()
	require.Nil(t, r.read(configPath))
}

// Nothing of it is said of writes that set something else.
func TestWhoSetsAScheduleSeesItsNextTimes(t *testing.T) {
	r := configured(t)
	r.write(configPath, map[string]any{config.FieldRegenerateOnRevoke: false}) // else it regenerates when the lease has ended
	require.Equal(t, []string{"The next automatic rotations of the key: 2027-03-01T03:00:00Z, 2027-03-02T03:00:00Z, 2027-03-03T03:00:00Z"},
		r.write(configPath, map[string]any{schedule.FieldCron: "0 3 * * *"}).Warnings)
	require.Empty(t, r.write(configPath, map[string]any{config.FieldTTL: 60}).Warnings)
	r.key()
	r.clock.advance(2 * time.Hour)
	require.Contains(t, r.write(configPath, map[string]any{schedule.FieldPeriod: "1h"}).Warnings[0], ": 2027-02-28T14:00:00Z, ", "it is due")
	require.Contains(t, r.write(configPath, map[string]any{schedule.FieldPeriod: "2h", config.FieldDisableAutomatedRotation: true}).Warnings[0], "once rotation is not paused: 2027-02-28T1")
}

// The cause comes first, then what to do, and how to store it nevertheless at the end.
func TestTheCauseComesFirst(t *testing.T) {
	r := newRig(t)
	text := r.fails(400, logical.UpdateOperation, configPath, r.config(map[string]any{credential.FieldSecret: "wrong", "ca_certifcate": "x"}))
	require.Regexp(t, `^unknown field ca_certifcate \(did you mean ca_certificate\?\); the client secret is wrong: check .* \(sign-in: refused, HTTP 401, code AADSTS7000215, request-id [-0-9a-f]{36}\); nothing has been stored: .* verify_connection=false$`, text)
	require.Regexp(t, `^unknown field tennant_id \(did you mean tenant_id\?\); tenant_id: is required$`,
		r.fails(400, logical.UpdateOperation, configPath, r.config(map[string]any{config.FieldTenantID: nil, "tennant_id": r.sim.App().TenantID})))
}

// What is plainly no credential is refused before anything is sent, verified or not.
func TestNoCredentialIsRefusedUnsent(t *testing.T) {
	r := configured(t)
	before := r.sim.Calls(graphtest.Token).Started
	for value, says := range map[string]string{
		"0a1b2c3d-0000-4000-8000-00000000abcd": "the secret's value", "/run/secrets/mdi": "put @ before it", "./secret": "put @ before it", "secret.txt": "put @ before it",
		"@secret.txt": "put @ before it", `C:\Users\me\secret`: "put @ before it", `\\server\share\secret`: "put @ before it", "~/secret": "put @ before it",
	} {
		for _, verify := range []bool{true, false} {
			text := r.fails(400, logical.UpdateOperation, configPath, map[string]any{credential.FieldSecret: value, config.FieldVerifyConnection: verify})
			require.Regexp(t, "^"+credential.FieldSecret+": ", text)
			require.Contains(t, text, says)
			require.NotContains(t, text, value)
		}
	}
	for _, name := range []string{credential.FieldCertificate, config.FieldCACertificate} {
		require.Regexp(t, "^"+name+": .*put @ before it", r.fails(400, logical.UpdateOperation, configPath, map[string]any{name: "/etc/ssl/bundle.pem"}))
	}
	require.Equal(t, before, r.sim.Calls(graphtest.Token).Started)
	for _, secret := range []string{"/abc+9xyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567=", "abc8Q~._-0123456789abcdefghijABCDEFGHIJ", "~abc.def"} {
		r.write(configPath, map[string]any{credential.FieldSecret: secret, config.FieldVerifyConnection: false}) // in forms that Entra has issued
	}
}

func TestUnknownFieldOfConfigIsAWarning(t *testing.T) {
	r := newRig(t)
	resp := r.write(configPath, r.config(map[string]any{"tenent_id": "x"}))
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "tenent_id")
}

// What the framework refuses, and package config and graph.
func TestBadConfigIsRefusedByFieldAndChangesNothing(t *testing.T) {
	cases := map[string]struct {
		field string // named by the answer
		value any
		says  string
	}{
		"tenant by name":         {config.FieldTenantID, "contoso.onmicrosoft.com", "GUID"},
		"Graph of another cloud": {config.FieldGraphEndpoint, "https://graph.microsoft.us", "AzureUSGovernmentCloud"},
		"Graph in China":         {config.FieldGraphEndpoint, "https://microsoftgraph.chinacloudapi.cn", "AzureChinaCloud"},
		"another cloud's Entra":  {config.FieldAuthorityHost, "https://login.microsoftonline.us", "AzureUSGovernmentDoDCloud"},
		"negative TTL":           {config.FieldTTL, "-5m", "negative"},
		"TTL beyond arithmetics": {config.FieldTTL, 10_000_000_000_000, "8784h"},
		"TTL is no duration":     {config.FieldTTL, "soon", "such as 90s"},
		"less than a second":     {config.FieldDriftCheckInterval, "900ms", "whole seconds"},
		"negative maximum age":   {config.FieldMaxKeyAge, "-5m", "negative"},
		"wrong type":             {config.FieldTTL, map[string]any{"a": 1}, ""},
		"flag is no flag":        {config.FieldRegenerateOnRevoke, "perhaps", "true or false"},
		"verification no flag":   {config.FieldVerifyConnection, []any{"x"}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			text := r.fails(400, logical.UpdateOperation, configPath, r.config(map[string]any{c.field: c.value}))
			require.Contains(t, text, c.field)
			require.Contains(t, text, c.says)
			require.Nil(t, r.read(configPath))
			require.Zero(t, r.sim.Calls(graphtest.Token).Started)
		})
	}
}

// Each field that moves the connection is refused alike: see package config.
func TestMovingTheConnectionNeedsTheCredential(t *testing.T) {
	other := graphtest.Start(t)
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		r := configured(t)
		before := r.read(configPath).Data
		text := r.fails(400, op, configPath, map[string]any{config.FieldGraphEndpoint: other.URL(), config.FieldVerifyConnection: false})
		require.Contains(t, text, config.FieldGraphEndpoint)
		require.Contains(t, text, credential.FieldSecret)
		require.Equal(t, before, r.read(configPath).Data)
		require.Zero(t, other.Calls(graphtest.Token).Started)
	}
}

func TestConfigThatDoesNotWorkIsNotStored(t *testing.T) {
	wrongSecret := map[string]any{credential.FieldSecret: "a-secret-of-another-app"}
	cases := map[string]struct {
		options []graphtest.Option
		faults  []graphtest.Fault
		changes map[string]any
		status  int
		says    []string
	}{
		"wrong secret":    {changes: wrongSecret, status: 400, says: []string{"AADSTS7000215", "value"}},
		"expired secret":  {options: []graphtest.Option{graphtest.WithExpiredSecret()}, status: 400, says: []string{"AADSTS7000222"}},
		"wrong tenant":    {changes: map[string]any{config.FieldTenantID: "11111111-2222-3333-4444-555555555555"}, status: 400, says: []string{"AADSTS90002"}},
		"wrong client":    {changes: map[string]any{config.FieldClientID: "11111111-2222-3333-4444-555555555555"}, status: 400, says: []string{"AADSTS700016"}},
		"no permission":   {options: []graphtest.Option{graphtest.WithRoles("SecurityIdentitiesSensors.Read.All")}, status: 400, says: []string{"SecurityIdentitiesSensors.ReadWrite.All"}},
		"no trust":        {changes: map[string]any{config.FieldCACertificate: nil}, status: 503, says: []string{"ca_certificate"}},
		"Graph throttles": {faults: []graphtest.Fault{{Operation: graphtest.Get, Status: 429, RetryAfter: "300"}}, status: 503, says: []string{"5m0s"}},
		"Graph is down":   {faults: []graphtest.Fault{{Operation: graphtest.Get, Status: 503, RetryAfter: "60"}}, status: 503, says: []string{"503"}},
		"proxy's page":    {faults: []graphtest.Fault{{Operation: graphtest.Get, Body: graphtest.BodyHTML}}, status: 502, says: []string{"unreadable"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.options...)
			r.sim.Inject(c.faults...)
			text := r.fails(c.status, logical.UpdateOperation, configPath, r.config(c.changes))
			for _, s := range append(c.says, "nothing has been stored", "verify_connection=false") {
				require.Contains(t, text, s)
			}
			require.Nil(t, r.read(configPath))
			require.LessOrEqual(t, r.sim.Calls(graphtest.Token).Started, 1, "no retry storm")

			r.write(configPath, r.config(with(c.changes, config.FieldVerifyConnection, false)))
			require.NotNil(t, r.read(configPath))
		})
	}
}

func with(fields map[string]any, name string, value any) map[string]any {
	result := map[string]any{name: value}
	for n, v := range fields {
		result[n] = v
	}
	return result
}

func TestAnotherTenantRetiresTheKeyThatIsLeftBehind(t *testing.T) {
	r := configured(t)
	held := r.key()
	other := graphtest.Start(t)
	resp := r.write(configPath, configOf(other))
	require.Empty(t, resp.Warnings)
	require.False(t, r.works(held))

	status := r.status()
	require.NotContains(t, status, fieldFingerprint, "the key of the one tenant says nothing of the other")
	require.Equal(t, false, status[fieldDisclosed])
	next := r.key()
	require.True(t, other.CanRegister(keyIn(next)))
	require.Greater(t, next.Data[fieldKeyVersion], held.Data[fieldKeyVersion])
	r.revoke(held)
	r.idle()
	require.True(t, other.CanRegister(keyIn(next)), "a lease of the old tenant has no consequence for the new one")
}

func configOf(sim *graphtest.Simulator) map[string]any {
	app := sim.App()
	return map[string]any{
		config.FieldTenantID: app.TenantID, config.FieldClientID: app.ClientID, credential.FieldSecret: app.ClientSecret,
		config.FieldGraphEndpoint: sim.URL(), config.FieldAuthorityHost: sim.URL(), config.FieldCACertificate: sim.CACertificate(),
	}
}

func TestAnotherTenantWarnsOfAKeyThatLivesOn(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	other := graphtest.Start(t)
	resp := r.write(configPath, configOf(other))
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "lives on")
	require.Contains(t, r.log.String(), "lives on")
	require.True(t, r.works(held))
	require.True(t, other.CanRegister(keyIn(r.key())))
}

// There is nothing to warn of either, whatever state Graph is in.
func TestAKeyThatNobodyHoldsIsLeftAlone(t *testing.T) {
	r := configured(t)
	r.write(rotateKeyPath, nil)
	r.sim.Inject(graphtest.Fault{Status: 403})
	before, asked := r.posts(), r.sim.Calls(graphtest.Get).Started
	require.Empty(t, r.write(configPath, configOf(graphtest.Start(t))).Warnings)
	resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	require.Nil(t, resp)
	require.Equal(t, before, r.posts())
	require.Equal(t, asked, r.sim.Calls(graphtest.Get).Started)
}

// The framework would quote the value when it complains about its type.
func TestSecretOfAWrongTypeIsNotQuoted(t *testing.T) {
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		r := configured(t)
		secret := r.sim.App().ClientSecret
		for _, value := range []any{[]any{secret, secret}, map[string]any{secret: 1}, 5} {
			text := r.fails(400, op, configPath, map[string]any{credential.FieldSecret: value})
			require.Contains(t, text, credential.FieldSecret)
		}
	}
}

func TestConfigDeleteRetiresTheKey(t *testing.T) {
	r := configured(t)
	held := r.key()
	resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	require.Nil(t, resp)
	require.False(t, r.works(held))
	require.Nil(t, r.read(configPath))
	require.Equal(t, false, r.status()[fieldConfigured])
	r.revoke(held)
	_, err = r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err, "deleting what is not there")
}

func TestConfigDeleteWarnsOfAKeyThatLivesOn(t *testing.T) {
	r := configured(t)
	held := r.key()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	resp, err := r.request(t.Context(), logical.DeleteOperation, configPath, nil)
	require.NoError(t, err)
	require.Contains(t, resp.Warnings[0], "lives on")
	require.Nil(t, r.read(configPath))

	// Once the tenant is configured again, the engine still knows what it owes.
	r.sim.Clear()
	r.revoke(held)
	r.write(configPath, r.config(nil))
	r.eventually("the key is retired", func() bool { return !r.works(held) })
}

func TestConfigStorageFailures(t *testing.T) {
	for _, op := range []string{"get", "put"} {
		r := newRig(t)
		r.storage.FailWhen(storagetest.Nth(1, op, config.StorageKey))
		_, err := r.request(t.Context(), logical.UpdateOperation, configPath, r.config(nil))
		require.ErrorIs(t, err, storagetest.ErrBroken)
		r.write(configPath, r.config(nil))
		r.storage.FailWhen(storagetest.Nth(1, "get", config.StorageKey))
		_, err = r.request(t.Context(), logical.ReadOperation, configPath, nil)
		require.ErrorIs(t, err, storagetest.ErrBroken)
		r.storage.FailWhen(storagetest.Nth(1, "delete", config.StorageKey))
		_, err = r.request(t.Context(), logical.DeleteOperation, configPath, nil)
		require.ErrorIs(t, err, storagetest.ErrBroken)
	}
}
