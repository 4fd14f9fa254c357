// SPDX-License-Identifier: MPL-2.0

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCommands runs the commands of each document.
func TestCommands(t *testing.T) {
	env := environment(t)
	for _, d := range documents(t) {
		if !slices.ContainsFunc(d.steps, step.isRun) {
			continue
		}
		t.Run(d.short(), func(t *testing.T) {
			dir := checkout(t)
			exports := serve(t, dir, env)
			term := openTerminal(t, dir, env)
			for _, line := range exports {
				_, code, err := term.run(line)
				require.NoError(t, err)
				require.Zero(t, code, line)
			}
			for _, s := range d.steps {
				if s.isRun() {
					require.NoError(t, term.walk(s), d.name)
				}
			}
		})
	}
}

// isRun tells whether the commands of a step are run by this test.
func (s step) isRun() bool {
	for _, mark := range []string{markRunBy, markCheckedBy, markByHand} {
		if _, marked := s.marks[mark]; marked {
			return false
		}
	}
	return !strings.Contains(s.introduction, needsTenant)
}

var (
	makeTarget = regexp.MustCompile(`^(?:\w+=\S+ )*make ([a-z-]+)`)
	ownFile    = regexp.MustCompile(`(?:^|[\s=@"])((?:scripts|docs|cmd|backend)/[\w./-]*)`)
)

// TestMarks checks that whatever is not run here is run elsewhere, or cannot be.
func TestMarks(t *testing.T) {
	known := []string{markFails, markUnless, markOneCommand, markRunBy, markCheckedBy, markByHand}
	for _, d := range documents(t) {
		for _, s := range d.steps {
			for mark := range s.marks {
				require.Contains(t, known, mark, "%s: there is no such mark", d.name)
			}
			if s.isRun() {
				continue
			}
			if folder, checked := s.marks[markCheckedBy]; checked {
				requireExists(t, folder, d.name)
			}
			for _, c := range s.commands {
				requireSense(t, s, c, fmt.Sprintf("%s, line %d", d.name, c.line))
			}
		}
	}
}

// requireSense fails if a command that is not run here cannot be right.
func requireSense(t *testing.T, s step, c command, where string) {
	t.Helper()
	target := makeTarget.FindStringSubmatch(c.text)
	if target != nil {
		require.Regexp(t, `(?m)^`+target[1]+`:`, read(t, "Makefile"), "%s: the Makefile has no target %s", where, target[1])
	}
	for _, found := range ownFile.FindAllStringSubmatch(c.text, -1) {
		requireExists(t, found[1], where)
	}
	if file, elsewhere := s.marks[markRunBy]; elsewhere {
		requireMention(t, file, c, where)
	}
	if reason, byHand := s.marks[markByHand]; byHand {
		require.NotEmpty(t, reason, "%s: why is it not run?", where)
		require.NotNil(t, target, "%s: only targets of the Makefile may be left to the reader", where)
	}
}

var (
	variable   = regexp.MustCompile(`\$\{?([A-Z][A-Z0-9_]+)`)
	assignment = regexp.MustCompile(`(?:^|[\s(])([A-Z][A-Z0-9_]*)=`)
	// fromOutside are the variables that a terminal of make dev has.
	fromOutside = []string{"HOME", "MDI_SIMULATOR_DIR", "PATH", "VAULT_ADDR", "VAULT_TOKEN"}
)

// TestVariables checks that each page assigns the variables of its commands before it uses
// them, also in commands that only a tenant can run.
func TestVariables(t *testing.T) {
	for _, d := range documents(t) {
		assigned := slices.Clone(fromOutside)
		for _, s := range d.steps {
			for _, c := range s.commands {
				for _, found := range assignment.FindAllStringSubmatch(c.text, -1) {
					assigned = append(assigned, found[1])
				}
				for _, found := range variable.FindAllStringSubmatch(c.text, -1) {
					require.Contains(t, assigned, found[1], "%s, line %d: assign it", d.name, c.line)
				}
			}
		}
	}
}

var (
	toFile  = regexp.MustCompile(`(?:secret|password|wrapping_token|access_key)[^|]*> ?[^&>]`)
	private = regexp.MustCompile(`umask 077|mkdir (?:-p )?-m 700`)
)

// TestSecretFiles checks that whatever a page writes into a file is its reader's alone, if
// the command looks as if it has a secret.
func TestSecretFiles(t *testing.T) {
	for _, d := range documents(t) {
		safe := false
		for _, s := range d.steps {
			for _, c := range s.commands {
				safe = safe || private.MatchString(c.text) && !strings.Contains(c.text, "(umask")
				if toFile.MatchString(strings.ReplaceAll(c.text, "\n", " ")) && !makeTarget.MatchString(c.text) {
					require.True(t, safe || strings.Contains(c.text, "(umask 077;"), "%s, line %d: (umask 077; %s)", d.name, c.line, c.text)
				}
			}
		}
	}
}

// TestGate checks that docs/development.md has all that .ci/run makes.
func TestGate(t *testing.T) {
	steps := regexp.MustCompile(`(?m)^\tstep ".*" (make [a-z-]+)$`).FindAllStringSubmatch(read(t, ".ci/run"), -1)
	require.NotEmpty(t, steps)
	for _, step := range steps {
		require.Contains(t, read(t, "docs/development.md"), "\n$ "+step[1]+"\n")
	}
}

func requireExists(t *testing.T, path, where string) {
	t.Helper()
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(path)))
	require.NoError(t, err, where)
}

// requireMention fails unless a file has the first words of a command, in any order:
// it may be a script, or a test that has them one by one.
func requireMention(t *testing.T, file string, c command, where string) {
	t.Helper()
	text := read(t, file)
	words := strings.Fields(c.text)
	for _, word := range words[:min(2, len(words))] {
		require.Contains(t, text, word, "%s: %s does not run this", where, file)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	require.NoError(t, err)
	return string(text)
}

var (
	link     = regexp.MustCompile(`\]\(([^)]+)\)`)
	notAWord = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks follows the links from page to page, and to their headings.
func TestLinks(t *testing.T) {
	pages := documents(t)
	for _, d := range pages {
		for _, found := range link.FindAllStringSubmatch(strings.Join(d.lines, "\n"), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(found[1], "#")
			target := d.name
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(d.name), path))
			}
			requireExists(t, target, d.name+": a link leads nowhere")
			if i := slices.IndexFunc(pages, func(p *document) bool { return p.name == target }); anchor != "" && i >= 0 {
				require.Contains(t, pages[i].anchors(), anchor, "%s: %s has no such heading", d.name, target)
			}
		}
	}
}

// anchors returns those that GitHub gives to the headings of a page.
func (d *document) anchors() []string {
	var anchors []string
	for _, line := range d.lines {
		if title := strings.TrimLeft(line, "#"); title != line && strings.HasPrefix(title, " ") {
			words := notAWord.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			anchors = append(anchors, strings.ReplaceAll(words, " ", "-"))
		}
	}
	return anchors
}
