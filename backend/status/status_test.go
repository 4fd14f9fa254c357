// SPDX-License-Identifier: MPL-2.0

package status_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
	"example.com/vault-plugin-secrets-mdi/backend/status"
)

var noon = time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)

// read returns what a read of the status shows.
func read(s status.State) map[string]any { return field.Read(s.Fields()) }

// Each field that can be read is declared, and none without a value is in the way.
func TestFieldsAreThoseThatAreRead(t *testing.T) {
	full := status.State{
		Config: &config.Config{Schedule: schedule.Schedule{Period: time.Hour}}, Leases: 3, Due: []string{accesskey.WorkRetire}, Unreadable: []string{"key"}, Now: noon,
		Record: accesskey.Record{Version: 7, Key: "a-secret", Salt: []byte("fourteen bytes"), Cause: accesskey.CauseRead, RegeneratedAt: noon, WantedSince: noon},
		Report: health.Report{
			LastError: "x", LastErrorAt: noon, LastErrorCause: "read", LastErrorCode: "c", LastErrorRequestID: "r",
			NextAttempt: noon, ThrottledUntil: noon, MissedRotation: noon, DriftCheckedAt: noon, DriftResult: "failed",
		},
	}
	declared := field.ReadSchema(new(status.State).Fields())
	for _, state := range []status.State{{}, full} {
		data := read(state)
		for name, value := range data {
			require.Contains(t, declared, name)
			require.NotEqual(t, "a-secret", value)
		}
		for name, f := range declared {
			require.True(t, !f.Required || slices.Contains(slices.Collect(maps.Keys(data)), name), name)
		}
	}
	data := read(full)
	require.Equal(t, "2027-02-28T13:00:00Z", data["next_rotation"])
	require.Equal(t, "2027-02-28T12:00:00Z", data["last_success_at"])
	require.Equal(t, []string{"key"}, data["unreadable"])
	require.Equal(t, "2027-02-28T12:00:00Z", data["wanted_since"])
}

// A key that was made elsewhere is no success of the engine's.
func TestLastSuccess(t *testing.T) {
	report := health.Report{LastSuccessAt: noon}
	for cause, want := range map[string]string{accesskey.CauseExternal: "2027-02-28T12:00:00Z", accesskey.CauseManual: "2027-02-28T13:00:00Z"} {
		rec := accesskey.Record{Cause: cause, RegeneratedAt: noon.Add(time.Hour)}
		require.Equal(t, want, read(status.State{Record: rec, Report: report})["last_success_at"])
	}
}
