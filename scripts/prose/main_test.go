// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindings(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", longest+1))
	within := strings.TrimSpace(strings.Repeat("word ", longest))
	for name, c := range map[string]struct {
		file, text string
		want       []string // phrases, or the numbers of lines of long sentences
	}{
		"short sentences":      {"a.md", within + ". " + within + ".\n", nil},
		"a long sentence":      {"a.md", "# Title\n\n" + long + ".\n", []string{"a.md:3"}},
		"the last of two":      {"a.md", "A short one. " + long + ".\n", []string{"a.md:1"}},
		"without an end":       {"a.md", "A short one. " + long + "\n", []string{"a.md:1"}},
		"across lines":         {"a.md", "one\n" + within + "\n", []string{"a.md:1"}},
		"after a colon":        {"a.md", "Some words first: " + within + ".", nil},
		"a full stop within":   {"a.md", "Version 1.21.1 is " + within + ".", []string{"a.md:1"}},
		"code":                 {"a.md", "```\n" + long + "\n```\n\n<!-- set up: " + long + " -->\n", nil},
		"a comment of lines":   {"a.md", "<!--\n" + long + "\nsomebody -->\n\nfine\n", nil},
		"a list":               {"a.md", "- " + within + "\n- " + within + "\n", nil},
		"cells":                {"a.md", "| " + within + " | " + long + " |\n", []string{"a.md:1"}},
		"a link's address":     {"a.md", "[word](https://example.com/by itself)", nil},
		"a phrase":             {"a.md", "It starts by itself, and somebody stops it.", []string{"by itself", "somebody"}},
		"a phrase across ends": {"a.md", "not\nany more", []string{"any more"}},
		"a phrase in code":     {"a.md", "`somebody`", nil},
		"a comment of Go":      {"a.go", "package a\n\n// A tells whether\n// it is.\nfunc A() {} // " + long + "\n", []string{"tells whether", "a.go:5"}},
		"a string of Go":       {"a.go", "package a\n\nconst b = \"somebody\"\n", nil},
		"a picture":            {"a.go", "package a\n\n// A has\n//\n//\tsomebody " + long + "\nfunc A() {}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			require.NoError(t, os.WriteFile(c.file, []byte(c.text), 0o600))
			findings, err := check([]string{c.file})
			require.NoError(t, err)
			var got []string
			for _, f := range findings {
				if f.phrase != "" {
					got = append(got, f.phrase)
				} else {
					got = append(got, f.place)
				}
			}
			require.ElementsMatch(t, c.want, got)
			require.Equal(t, len(c.want) == 0, report(findings, 0, 1))
		})
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	_, err := check([]string{filepath.Join(t.TempDir(), "none.md")})
	require.Error(t, err)
	broken := filepath.Join(t.TempDir(), "broken.go")
	require.NoError(t, os.WriteFile(broken, []byte("no package"), 0o600))
	_, err = check([]string{broken})
	require.Error(t, err)
}
