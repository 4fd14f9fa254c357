// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPosition(t *testing.T) {
	require.Equal(t, "… mutation 1 of 30", position(0, 30, 0))
	require.Equal(t, "… mutation 11 of 30, about 40s to go", position(10, 30, 20*time.Second))
}

func TestParse(t *testing.T) {
	mutants, err := parse("# a comment\n\n== breaks it\n@ a.go\n-old\n-lines\n+new\n@ b.go\n-gone\n")
	require.NoError(t, err)
	require.Equal(t, []mutant{{what: "breaks it", edits: []edit{
		{file: "a.go", old: []string{"old", "lines"}, new: []string{"new"}},
		{file: "b.go", old: []string{"gone"}},
	}}}, mutants)
	for name, list := range map[string]string{
		"edit without mutation": "@ a.go\n-x\n",
		"lines without file":    "== breaks it\n-x\n",
		"nothing to replace":    "== breaks it\n@ a.go\n+x\n",
		"no edit":               "== breaks it\n",
		"old after new":         "== breaks it\n@ a.go\n-x\n+y\n-z\n",
		"something else":        "== breaks it\n@ a.go\nx\n",
	} {
		_, err := parse(list)
		require.Error(t, err, name)
	}
}

func TestApply(t *testing.T) {
	e := edit{file: "a.go", old: []string{"b", "  c"}, new: []string{"x"}}
	text, err := e.apply("a\n\tb\n\tc\nd")
	require.NoError(t, err)
	require.Equal(t, "a\nx\nd", text)
	for name, text := range map[string]string{"not there": "a\nb", "twice": "b\nc\nb\nc"} {
		_, err := e.apply(text)
		require.ErrorContains(t, err, "has to be adapted", name)
	}
}

// The list fits the engine as it is now.
func TestListApplies(t *testing.T) {
	mutants, err := parse(list)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(mutants), 10)
	for _, m := range mutants {
		for _, e := range m.edits {
			text, err := os.ReadFile(filepath.Join("..", "..", e.file))
			require.NoError(t, err)
			_, err = e.apply(string(text))
			require.NoError(t, err, m.what)
		}
	}
}
