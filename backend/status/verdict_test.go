// SPDX-License-Identifier: MPL-2.0

package status_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/status"
)

func TestVerdict(t *testing.T) {
	doubtful := accesskey.Record{}
	require.NoError(t, json.Unmarshal([]byte(`{"intent":{"doubt":true}}`), &doubtful))
	worst := []struct { // the worst last: each outranks those before it
		want  string
		spoil func(*status.State)
	}{
		{"ok: ", func(*status.State) {}},
		{"attention: rotation and retirement are paused", func(s *status.State) { s.Config.DisableRotation = true }},
		{"attention: the app's own credential ends soon", func(s *status.State) { s.Config.Root.EndsAt = noon.Add(13 * 24 * time.Hour) }},
		{"attention: the key was regenerated outside", func(s *status.State) { s.Report.DriftResult = health.DriftExternal }},
		{"attention: Graph cannot be asked", func(s *status.State) { s.Report.DriftResult = health.DriftUnknown }},
		{"failing: the app's own credential", func(s *status.State) { s.Config.Root.Failures = 1 }},
		{"failing: the key could not be regenerated", func(s *status.State) { s.Report.Failures = 1 }},
		{"failing: it is not known which key", func(s *status.State) { s.Record = doubtful }},
		{"unconfigured: ", func(s *status.State) { s.Config = nil }},
		{"failing: entries of the storage", func(s *status.State) { s.Unreadable = []string{"key"} }},
	}
	s := status.State{Config: &config.Config{}, Now: noon}
	for _, c := range worst {
		alone := status.State{Config: &config.Config{}, Now: noon}
		c.spoil(&alone)
		c.spoil(&s)
		for _, state := range []status.State{alone, s} {
			got := read(state)["state"].(string)
			require.True(t, strings.HasPrefix(got, c.want), got)
		}
	}
	replaced := &config.Config{}
	replaced.Root.Period, replaced.Root.EndsAt = time.Hour, noon.Add(time.Hour)
	require.Contains(t, read(status.State{Config: replaced, Now: noon})["state"], "ok", "the engine replaces it")
}
