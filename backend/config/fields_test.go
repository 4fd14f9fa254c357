// SPDX-License-Identifier: MPL-2.0

package config_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/field"
)

func TestEachFieldIsDeclaredInFull(t *testing.T) {
	seen := map[string]bool{}
	for i, f := range new(config.Config).Fields() {
		require.False(t, seen[f.Name], "%s is declared twice", f.Name)
		seen[f.Name] = true
		require.NotEmpty(t, f.Title, f.Name)
		require.Regexp(t, `^\S.*\.$`, f.Description, f.Name)
		require.False(t, f.Secret && f.Shown() != nil, "%s is secret and read back", f.Name)
		require.False(t, f.Redirects && f.Shown() == nil, "%s redirects and cannot be compared", f.Name)
		if f.At == nil || f.Default == nil {
			continue
		}
		set := func(cfg *config.Config, value any) error {
			d := data(nil)
			d.Raw = map[string]any{f.Name: value}
			return field.Write(cfg.Fields()[i:i+1], d, false)
		}
		cfg := &config.Config{}
		require.NoError(t, set(cfg, data(nil).GetDefaultOrZero(f.Name)), "the default of %s", f.Name)
		for _, value := range f.Allowed {
			require.NoError(t, set(cfg, value), "%s of %s", value, f.Name)
			require.Equal(t, value, cfg.Fields()[i].Shown(), f.Name)
		}
	}
}

// What a read shows is what its schema promises, and what can be written back.
func TestReadShowsWhatWasWritten(t *testing.T) {
	r := newRig(t)
	written := r.fields(unverified, map[string]any{
		config.FieldCACertificate:       strings.TrimSpace(r.sim.CACertificate()),
		config.FieldApplicationObjectID: guid, config.FieldTTL: 60, config.FieldMaxKeyAge: 61, config.FieldDriftCheckInterval: 62,
		config.FieldRegenerateOnRevoke: false, config.FieldDisableAutomatedRotation: true, config.FieldRootRotationPeriod: 3600, config.FieldGraphAPIVersion: "beta",
	})
	shown := field.Read(r.write(written).Config.Fields())
	for name, s := range field.ReadSchema(new(config.Config).Fields()) {
		require.False(t, s.Required && shown[name] == nil, "%s is missing", name)
		require.False(t, s.DisplayAttrs.Sensitive, "%s is secret", name)
		if value, given := written[name]; given {
			require.EqualValues(t, data(written).Get(name), shown[name], "%s was written as %v", name, value)
		}
	}
	again := maps.Clone(shown)
	maps.Copy(again, unverified)
	require.Equal(t, shown, field.Read(r.write(again).Config.Fields()))
	require.Subset(t, slices.Collect(maps.Keys(field.ReadSchema(new(config.Config).Fields()))), slices.Collect(maps.Keys(shown)))
}

// What Windows' editors put around a PEM file is not stored.
func TestPEMIsTrimmed(t *testing.T) {
	r := newRig(t)
	ca := strings.TrimSpace(r.sim.CACertificate())
	shown := field.Read(r.write(r.fields(map[string]any{config.FieldCACertificate: "\uFEFF" + ca + "\r\n"})).Config.Fields())
	require.Equal(t, ca, shown[config.FieldCACertificate])
}
