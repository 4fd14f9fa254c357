// SPDX-License-Identifier: MPL-2.0

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaults(t *testing.T) {
	o, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, 1000, o.members())
	require.Equal(t, "mdi/key/fleet", o.keyPath())
	require.Equal(t, 57*time.Second, o.bound())
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for _, test := range []struct {
		name      string
		arguments []string
		problem   string
	}{
		{"no hosts", []string{"-hosts", "0"}, "no hosts"},
		{"a negative time", []string{"-window", "-1s"}, "negative"},
		{"a short ttl", []string{"-ttl", "10ms"}, "less than a second"},
		{"no time left after the rotation", []string{"-rotate-after", "5s", "-for", "20s"}, "at least 1m2s"},
		{"an unknown outage", []string{"-then-disable", "maybe"}, "none of"},
		{"a mount in use", []string{"-vault-addr", "http://127.0.0.1:8200", "-then-disable", "up"}, "not a mount in use"},
		{"no simulator", []string{"-vault-addr", "http://127.0.0.1:8200", "-simulator-dir", ""}, "-simulator-dir"},
		{"an argument", []string{"1000"}, "no arguments"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parse(test.arguments)
			require.ErrorContains(t, err, test.problem)
		})
	}
}
