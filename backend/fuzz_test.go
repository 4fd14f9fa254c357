// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/role"
)

// fuzzed is an engine that never reaches a network: no key is disclosed, and
// configurations are not verified.
type fuzzed struct {
	engine  *backend
	storage logical.Storage
}

func fuzzedMount(t *testing.T) fuzzed {
	t.Helper()
	storage := &logical.InmemStorage{}
	clock := &clock{at: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)}
	b := newBackend(storage, clock.now, clock.sleep)
	t.Cleanup(func() { b.Cleanup(t.Context()) })
	require.NoError(t, b.Setup(t.Context(), &logical.BackendConfig{
		Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), StorageView: storage,
	}))
	return fuzzed{b, storage}
}

func (m fuzzed) request(t *testing.T, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	t.Helper()
	return m.engine.HandleRequest(t.Context(), &logical.Request{Operation: op, Path: path, Data: data, MountPoint: "mdi/"})
}

// storedOrRefused checks the answer to a write: it was stored, or refused for what
// the client must change. It returns the refusal's text.
func storedOrRefused(t *testing.T, resp *logical.Response, err error, alsoAllowed ...int) (refusal string) {
	t.Helper()
	if err == nil && !resp.IsError() {
		return ""
	}
	if err == nil || resp.IsError() { // the framework's own refusals are a 400
		return fmt.Sprint(resp.Data["error"])
	}
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // core looks at no wrapped one
	require.True(t, ok, "core would answer 500 to %q", err)
	require.Contains(t, append(alsoAllowed, http.StatusBadRequest), coded.Code(), err.Error())
	return err.Error()
}

const fuzzedSecret = "base-secret-8Q~never-to-be-seen" //nolint:gosec // of nobody

func fuzzedConfig() map[string]any {
	return map[string]any{
		config.FieldTenantID:   "00000000-0000-0000-0000-000000000001",
		config.FieldClientID:   "00000000-0000-0000-0000-000000000002",
		credential.FieldSecret: fuzzedSecret,
	}
}

// secretsOf are the texts that a write must not repeat to anybody.
func secretsOf(data map[string]any) []string {
	secrets := []string{fuzzedSecret}
	for name, value := range data {
		// What is short, or is the value of another field as well, says nothing.
		if text, ok := value.(string); ok && name == credential.FieldSecret && len(strings.TrimSpace(text)) > 12 && !occursElsewhere(data, text) {
			secrets = append(secrets, strings.TrimSpace(text))
		}
	}
	return secrets
}

func occursElsewhere(data map[string]any, text string) bool {
	for name, value := range data {
		others, _ := json.Marshal([]any{name, value})
		if name != credential.FieldSecret && strings.Contains(string(others), text) {
			return true
		}
	}
	return false
}

var fuzzedWrites = []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation}

// Whatever is written to the configuration is stored so that it can be read and used,
// or is refused; and the secret is never repeated.
func FuzzConfigWrite(f *testing.F) {
	for i, seed := range []string{
		`{}`,
		`{"rotation_schedule":"TZ=x","ttl":"24h"}`,
		`{"rotation_schedule":"0 3 * * *","rotation_window":7200,"client_secret":"another-secret-of-the-app"}`,
		`{"rotation_period":"1m","max_key_age":null,"regenerate_on_revoke":"yes"}`,
		`{"tenant_id":"A0000000-0000-0000-0000-00000000000a","client_id":1,"client_secret":["two","of them"]}`,
		`{"graph_endpoint":"https://[::1]:443/","authority_host":"https://h/","ca_certificate":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"}`,
		`{"environment":"AzureUSGovernmentCloud","credential_type":"x","graph_api_version":"v1.0","drift_check_interval":-1}`,
	} {
		f.Add([]byte(seed), uint8(i), "0 0 29 2 *", i, i%2 == 0)
	}
	fields := slices.Sorted(maps.Keys(field.Schema(new(config.Config).Fields())))
	f.Fuzz(func(t *testing.T, body []byte, field uint8, value string, op int, onto bool) {
		var data map[string]any
		if json.Unmarshal(body, &data) != nil || data == nil {
			t.Skip()
		}
		data[fields[int(field)%len(fields)]] = jsonOrText(value)
		data[config.FieldVerifyConnection] = false // it would call whatever host the data name
		m := fuzzedMount(t)
		if onto {
			base := fuzzedConfig()
			base[config.FieldVerifyConnection] = false
			resp, err := m.request(t, logical.CreateOperation, configPath, base)
			require.Empty(t, storedOrRefused(t, resp, err))
		} else {
			for name, value := range fuzzedConfig() {
				if _, given := data[name]; !given {
					data[name] = value
				}
			}
		}
		secrets := secretsOf(data)
		operation := fuzzedWrites[uint(op)%uint(len(fuzzedWrites))]
		resp, err := m.request(t, operation, configPath, data)
		said := storedOrRefused(t, resp, err, http.StatusNotFound)
		stored := m.configIsSound(t)
		require.True(t, stored || said != "" && !onto, "stored without a trace")
		for _, secret := range secrets {
			require.NotContains(t, said, secret)
		}
	})
}

// jsonOrText makes a value of what is mutated more easily as a text.
func jsonOrText(text string) any {
	var value any
	if json.Unmarshal([]byte(text), &value) != nil {
		return text
	}
	return value
}

// configIsSound reads the configuration back, if there is one, as an operator and as
// the engine.
func (m fuzzed) configIsSound(t *testing.T) (stored bool) {
	resp, err := m.request(t, logical.ReadOperation, configPath, nil)
	require.NoError(t, err)
	cfg, err := m.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	if resp == nil {
		require.Nil(t, cfg)
		return false
	}
	shown, err := json.Marshal(resp.Data)
	require.NoError(t, err)
	require.NotContains(t, string(shown), fuzzedSecret)
	require.NotContains(t, resp.Data, credential.FieldSecret)
	m.engine.configs.Forget()
	_, err = m.engine.configs.Current(t.Context())
	require.NoError(t, err, "it cannot be used")
	_, err = m.request(t, logical.ReadOperation, statusPath, nil)
	require.NoError(t, err)
	return true
}

// Whatever is written to a role is stored so that it can be read, or is refused.
func FuzzRoleWrite(f *testing.F) {
	for i, seed := range []string{
		`{}`, `{"ttl":"24h","max_key_age":0}`, `{"ttl":-1}`, `{"ttl":null,"max_key_age":null}`, `{"max_key_age":1e300}`, `{"ttl":{"x":1},"name":"other"}`,
	} {
		f.Add("hosts", []byte(seed), i)
	}
	f.Add("../config", []byte(`{}`), 1)
	f.Fuzz(func(t *testing.T, name string, body []byte, op int) {
		var data map[string]any
		if json.Unmarshal(body, &data) != nil || data == nil {
			t.Skip()
		}
		m := fuzzedMount(t)
		operation := fuzzedWrites[uint(op)%uint(len(fuzzedWrites))]
		resp, err := m.request(t, operation, rolesPath+name, data)
		if errors.Is(err, logical.ErrUnsupportedOperation) {
			return // no name
		}
		said := storedOrRefused(t, resp, err, http.StatusNotFound)
		keys, err := logical.CollectKeys(t.Context(), m.storage)
		require.NoError(t, err)
		if said != "" {
			require.Empty(t, keys)
			return
		}
		require.Len(t, keys, 1)
		stored, isRole := strings.CutPrefix(keys[0], role.Prefix)
		require.True(t, isRole && stored != "", keys)
		m.engine.roles.Forget()
		resp, err = m.request(t, logical.ReadOperation, rolesPath+stored, nil)
		require.NoError(t, err)
		require.NotNil(t, resp)
		for _, field := range []string{config.FieldTTL, config.FieldMaxKeyAge} {
			if seconds, shown := resp.Data[field].(int64); shown {
				require.True(t, seconds >= 0 && seconds <= 366*24*60*60, field)
			}
		}
	})
}
