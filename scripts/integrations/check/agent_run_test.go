// SPDX-License-Identifier: MPL-2.0

package check

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// TestCacheInFrontOfTheKey runs Vault Proxy and Vault Agent with a cache, as several clients
// of one host use them. A cache keeps no lease that cannot be renewed, so it hands every read
// on: mdi/key regenerates for each, and under a role a key that was replaced is never served.
func TestCacheInFrontOfTheKey(t *testing.T) {
	for _, kind := range []string{"proxy", "agent"} {
		t.Run(kind, func(t *testing.T) {
			s := mounted(t)
			require.NoError(t, s.Sys().PutPolicy("cached", readFile(t, "../../policies/app.hcl")+readFile(t, "../../policies/sensor-host.hcl")))
			client := s.cache(kind, "cached")
			version := func(path string) string {
				secret, err := client.Logical().ReadWithContext(t.Context(), path)
				require.NoError(t, err)
				if key, isKey := secret.Data["deployment_access_key"].(string); isKey {
					require.True(t, s.tenant.CanRegister(key))
				}
				return fmt.Sprint(secret.Data["key_version"])
			}
			require.Equal(t, []string{"1", "2"}, []string{version("mdi/key"), version("mdi/key")})
			require.Equal(t, []string{"2", "2"}, []string{version("mdi/key/sensor-hosts"), version("mdi/key/sensor-hosts")})
			s.write("mdi/rotate-key", nil)
			require.Equal(t, []string{"3", "3"}, []string{version("mdi/key-version"), version("mdi/key/sensor-hosts")})
			require.Equal(t, 3, s.regenerations())
		})
	}
}

// cache starts an agent or a proxy that signs in for its clients, and caches.
func (s *server) cache(kind, policy string) *testbed.Client {
	s.t.Helper()
	s.appRole(policy)
	address, err := testbed.FreeAddress(s.t.Context())
	require.NoError(s.t, err)
	config := s.agentConfig(map[string]any{
		"cache":     map[string]any{},
		"api_proxy": map[string]any{"use_auto_auth_token": true},
		"listener":  map[string]any{"tcp": map[string]any{"address": address, "tls_disable": true}},
	})
	client := testbed.NewClient("http://"+address, "", 0)
	s.t.Cleanup(client.CloseIdle)
	process := s.start(s.env(""), s.binary, kind, "-config="+config)
	require.NoError(s.t, process.Await(s.t.Context(), func(ctx context.Context) bool {
		_, err := client.Logical().ReadWithContext(ctx, "mdi/key-version")
		return err == nil
	}))
	return client
}

// agentConfig writes a configuration that signs in with the AppRole of the test.
func (s *server) agentConfig(more map[string]any) string {
	s.t.Helper()
	more["vault"] = map[string]any{"address": s.Address()}
	more["auto_auth"] = map[string]any{"method": []map[string]any{{"type": "approle", "config": map[string]any{
		"role_id_file_path":   filepath.Join(s.dir, "role-id"),
		"secret_id_file_path": filepath.Join(s.dir, "secret-id"),

		"remove_secret_id_file_after_reading": false,
	}}}}
	text, err := json.Marshal(more)
	require.NoError(s.t, err)
	return s.file("config.json", string(text))
}

func (s *server) regenerations() int { return s.tenant.Calls(graphtest.Regenerate).Performed }

// TestAgentStartsAProgramWithTheKey has Vault Agent run a program with the key in its
// environment (env_template and exec). By default the agent ends and starts the program again
// when it has read another key, which is right for a service and wrong for an installation:
// with restart_on_secret_changes = "never" it does not.
func TestAgentStartsAProgramWithTheKey(t *testing.T) {
	for restarts, starts := range map[string]int{"always": 2, "never": 1} {
		t.Run(restarts, func(t *testing.T) {
			s := mounted(t)
			s.write("mdi/roles/sensor-hosts", map[string]any{"ttl": "6s"})
			s.appRole("sensor-host")
			script := s.file("program.sh", `printf '%s\n' "$MDI_KEY" >>"`+s.dir+`/started"; exec sleep 60`)
			s.start(s.env(""), s.binary, "agent", "-config="+s.agentConfig(map[string]any{
				"env_template": []map[string]any{{"MDI_KEY": map[string]any{
					"contents": `{{ with secret "mdi/key/sensor-hosts" }}{{ .Data.deployment_access_key }}{{ end }}`, "error_on_missing_key": true,
				}}},
				"exec": map[string]any{"command": []string{"sh", script}, "restart_on_secret_changes": restarts, "restart_stop_signal": "SIGTERM"},
			}))
			eventually(t, 20*time.Second, "the program runs", func() bool { return len(s.started()) == 1 })
			require.True(t, s.tenant.CanRegister(s.started()[0]))
			s.write("mdi/rotate-key", nil)
			eventually(t, 30*time.Second, "the agent reads the new key", func() bool { return fmt.Sprint(s.read("mdi/status")["live_leases"]) != "0" })
			if starts == 2 {
				eventually(t, 20*time.Second, "the program runs with the new key", func() bool { return len(s.started()) == 2 })
				require.True(t, s.tenant.CanRegister(s.started()[1]))
			}
			require.Len(t, s.started(), starts)
		})
	}
}

// started returns the key of each start of the program.
func (s *server) started() []string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "started"))
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(s.t, err)
	return strings.Fields(string(text))
}
