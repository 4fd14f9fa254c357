// SPDX-License-Identifier: MPL-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is that of the repository.
const root = "../../.."

// marks are the comments that change how a block is run; see the documentation of the
// package.
const (
	markSetUp      = "set up"
	markFails      = "fails"
	markUnless     = "unless it says"
	markOneCommand = "one command"
	markRunBy      = "run by"
	markCheckedBy  = "checked by"
	markByHand     = "run by hand"
)

// needsTenant, in a block's introduction, says that the commands are for a real tenant.
const needsTenant = "needs a tenant"

// document is a page of the documentation.
type document struct {
	name  string // README.md, docs/api.md
	lines []string
	steps []step
}

// step is a console block, or a hidden command.
type step struct {
	marks        map[string]string
	introduction string // the paragraph before it
	commands     []command
}

// command is what a reader is told to type.
type command struct {
	line int // in the document, from 1
	text string
	want []string // what it prints, if the document shows it
}

var (
	fence   = regexp.MustCompile("^( *)```(.*)$")
	comment = regexp.MustCompile(`^ *<!-- ([a-z ]+?)(?:: (.*?))? -->$`)
)

// documents returns the README and all of docs.
func documents(t *testing.T) []*document {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	more, err := filepath.Glob(filepath.Join(root, "docs", "*", "*.md"))
	require.NoError(t, err)
	pages := make([]*document, 0, len(files)+len(more)+1)
	for _, file := range append(append([]string{filepath.Join(root, "README.md")}, files...), more...) {
		text, err := os.ReadFile(file) //nolint:gosec // of this repository
		require.NoError(t, err)
		name, err := filepath.Rel(root, file)
		require.NoError(t, err)
		pages = append(pages, parse(filepath.ToSlash(name), string(text)))
	}
	return pages
}

// short is the document's name as a test's.
func (d *document) short() string {
	return strings.TrimSuffix(strings.TrimPrefix(d.name, "docs/"), ".md")
}

// parse finds the console blocks of a document, and the comments that are for them.
func parse(name, text string) *document {
	d := &document{name: name, lines: strings.Split(text, "\n")}
	next := step{marks: map[string]string{}}
	for i := 0; i < len(d.lines); i++ {
		if found := comment.FindStringSubmatch(d.lines[i]); found != nil {
			if found[1] == markSetUp {
				d.steps = append(d.steps, step{commands: []command{{line: i + 1, text: found[2]}}})
			} else {
				next.marks[found[1]] = found[2]
			}
			continue
		}
		opening := fence.FindStringSubmatch(d.lines[i])
		if opening == nil {
			continue
		}
		end := i + 1
		for end < len(d.lines) && strings.TrimSpace(d.lines[end]) != "```" {
			end++
		}
		if opening[2] == "console" {
			next.introduction = introduction(d.lines[:i])
			_, one := next.marks[markOneCommand]
			next.commands = commandsIn(d.lines[i+1:min(end, len(d.lines))], opening[1], i+2, one)
			d.steps = append(d.steps, next)
		}
		next = step{marks: map[string]string{}}
		i = end
	}
	return d
}

// introduction returns the last paragraph of lines, without comments.
func introduction(lines []string) string {
	var words []string
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(lines[i])
		switch {
		case comment.MatchString(line), line == "" && len(words) == 0:
		case line == "", strings.HasPrefix(line, "```"):
			return strings.Join(words, " ")
		default:
			words = append([]string{line}, words...)
		}
	}
	return strings.Join(words, " ")
}

// commandsIn reads the commands of a block that begins at a line of its document. What
// stands before the first, and comments of the shell, are for the reader.
func commandsIn(lines []string, indent string, first int, one bool) []command {
	var commands []command
	open := false // the last command goes on
	for i, line := range lines {
		line = strings.TrimPrefix(line, indent)
		last := len(commands) - 1
		switch text, prompt := strings.CutPrefix(line, "$ "); {
		case prompt && (!one || last < 0):
			commands = append(commands, command{line: first + i, text: text})
			open = strings.HasSuffix(text, `\`)
		case last < 0:
		case open:
			commands[last].text += "\n" + line
			open = strings.HasSuffix(line, `\`)
		case strings.HasPrefix(line, "> ") && len(commands[last].want) == 0:
			commands[last].text += "\n" + strings.TrimPrefix(line, "> ")
		case strings.TrimSpace(line) != "" && (one || !strings.HasPrefix(line, "# ")):
			commands[last].want = append(commands[last].want, line)
		}
	}
	return commands
}

func TestParse(t *testing.T) {
	d := parse("x.md", strings.Join([]string{
		"Two commands:",
		"",
		"<!-- set up: first -->",
		"<!-- fails -->",
		"   ```console",
		"   # for the reader",
		"   $ one \\",
		"       more",
		"   printed",
		"   $ for x in y; do",
		"   > two",
		"   > done",
		"   ```",
		"This needs a",
		"tenant.",
		"```console",
		"$ three",
		"```",
		"```hcl",
		"$ no",
		"```",
	}, "\n"))
	require.Equal(t, []step{
		{commands: []command{{line: 3, text: "first"}}},
		{
			marks: map[string]string{markFails: ""}, introduction: "Two commands:",
			commands: []command{
				{line: 7, text: "one \\\n    more", want: []string{"printed"}},
				{line: 10, text: "for x in y; do\ntwo\ndone"},
			},
		},
		{
			marks: map[string]string{}, introduction: "This needs a tenant.",
			commands: []command{{line: 17, text: "three"}},
		},
	}, d.steps)
}
