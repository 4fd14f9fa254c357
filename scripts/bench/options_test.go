// SPDX-License-Identifier: MPL-2.0

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParametersThatMakeNoSense(t *testing.T) {
	for want, arguments := range map[string][]string{
		"above 0":         {"-clients", "0"},
		"as many leases":  {"-leases", "3", "-rounds", "4"},
		"begins with":     {"-scale", "99"},
		"two mounts":      {"-mounts", "1"},
		"no arguments":    {"fast"},
		"makes no report": {"-profile", "profiles", "-write", "report.md"},
		"or -compare":     {"-profile", "profiles", "-compare", "HEAD"},
	} {
		_, err := parse(arguments)
		require.ErrorContains(t, err, want)
	}
}

func TestShortRunLeavesWhatIsGiven(t *testing.T) {
	o, err := parse([]string{"-short", "-leases", "50", "-write", "report.md"})
	require.NoError(t, err)
	require.Equal(t, 50, o.leases)
	require.Equal(t, 5, o.mounts)
	require.Equal(t, time.Second, o.turn())
	require.Equal(t, `make bench ARGS="-leases=50 -short=true"`, o.line)
}

func TestRoundsShareTheLeases(t *testing.T) {
	o := options{rounds: 4}
	require.Equal(t, []int{3, 3, 3, 2}, []int{o.share(11, 0), o.share(11, 1), o.share(11, 2), o.share(11, 3)})
}

func TestEachEngineIsFirstInTurn(t *testing.T) {
	a, b, c := &engine{}, &engine{}, &engine{}
	require.Equal(t, []*engine{a, b, c}, turns(0, a, b, c))
	require.Equal(t, []*engine{b, c, a}, turns(1, a, b, c))
	require.Equal(t, []*engine{a, b, c}, turns(3, a, b, c))
}
