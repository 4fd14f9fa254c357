// SPDX-License-Identifier: MPL-2.0

package status

import (
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// endsSoon is how long before its end a credential that the engine does not replace
// deserves attention.
const endsSoon = 14 * 24 * time.Hour

// verdicts say in a word and a sentence what is wrong, the worst first. Whether a
// comparison failed, and so on, is of the last time: what is over has been replaced.
var verdicts = []struct {
	text  string
	holds func(*State) bool
}{
	{"failing: entries of the storage cannot be decoded, see unreadable", func(s *State) bool { return len(s.Unreadable) > 0 }},
	{"unconfigured: write tenant_id, client_id and a credential to config", func(s *State) bool { return s.Config == nil }},
	{"failing: it is not known which key is the tenant's, and Graph does not say, see last_error", func(s *State) bool { return s.Record.InDoubt() }},
	{"failing: the key could not be regenerated, see last_error", func(s *State) bool { return s.Report.Failures > 0 }},
	{"failing: the app's own credential could not be rotated, see root_last_error", func(s *State) bool { return s.Config.Root.Failures > 0 }},
	{"attention: Graph cannot be asked which key is the tenant's, and what is shared is unchecked, see drift_error", func(s *State) bool { return s.Report.DriftResult == health.DriftUnknown }},
	{"attention: the key was regenerated outside the engine", func(s *State) bool { return s.Report.DriftResult == health.DriftExternal }},
	{"attention: the app's own credential ends soon, see root_credential_expires_at", func(s *State) bool {
		return s.Config.Root.Period == 0 && !s.Config.Root.EndsAt.IsZero() && s.Config.Root.EndsAt.Sub(s.Now) < endsSoon
	}},
	{"attention: rotation and retirement are paused, see disable_automated_rotation", func(s *State) bool { return s.Config.DisableRotation }},
	{"ok: nothing is wrong", func(*State) bool { return true }},
}

// verdict returns the worst that holds.
func (s *State) verdict() string {
	for _, v := range verdicts {
		if v.holds(s) {
			return v.text
		}
	}
	return ""
}
