// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/status"
)

const (
	logsPage    = "../docs/logs.md"
	operatePage = "../docs/operate.md"

	glossaryPage = "../docs/glossary.md"
	securityPage = "../docs/security.md"
)

// logLevels are the methods of a logger, and what the page calls them.
var logLevels = map[string]string{"Trace": "trace", "Debug": "debug", "Info": "info", "Warn": "warn", "Error": "error"}

// TestLogLinesAreDocumented compares the log lines of the shipped packages with the
// page that lists them, both ways.
func TestLogLinesAreDocumented(t *testing.T) {
	said := map[string]string{}
	for _, dir := range shippedFolders(t) {
		maps.Copy(said, logLinesIn(t, dir))
	}
	require.NotEmpty(t, said)
	documented := regexp.MustCompile("(?m)^(\\| `([^`]+)` \\| [a-z]+ \\| .*? \\|) .+ \\| .+ \\|$").FindAllStringSubmatch(readText(t, logsPage), -1)
	for _, row := range documented {
		require.Contains(t, said, row[2], "docs/logs.md lists a line that the engine does not log: remove it, or give it its new words")
		require.Equal(t, said[row[2]], row[1], "the engine logs this with another level or other fields: begin the row of docs/logs.md so (expected)")
		delete(said, row[2])
	}
	missing := strings.Join(slices.Sorted(maps.Values(said)), "\n")
	require.Empty(t, missing, "docs/logs.md misses lines: add a row for each that begins so, and goes on with when it is logged and what to do")
}

// shippedFolders returns the folders of the packages that are in the plugin.
func shippedFolders(t *testing.T) []string {
	t.Helper()
	const module = "example.com/vault-plugin-secrets-mdi/"
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "../cmd/vault-plugin-secrets-mdi")
	packages, err := list.Output()
	require.NoError(t, err)
	var folders []string
	for _, name := range strings.Fields(string(packages)) {
		if inside, ours := strings.CutPrefix(name, module); ours {
			folders = append(folders, "../"+inside)
		}
	}
	return folders
}

// logLinesIn returns the beginnings of the rows for the log lines of a package, by their
// messages.
func logLinesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	lines := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, declaration := range file.Decls {
			ast.Inspect(declaration, func(n ast.Node) bool {
				if level, call := logCall(n); call != nil {
					message, ok := literal(call.Args[0])
					require.True(t, ok, "%s: the message of a log line has to be a literal", name)
					fields := logFields(declaration, call)
					lines[message] = fmt.Sprintf("| `%s` | %s | %s |", message, level, strings.Join(fields, ", "))
				}
				return true
			})
		}
	}
	return lines
}

// logCall returns the call of a logger that a node is. What is called Error and takes
// no message is the method of an error.
func logCall(n ast.Node) (level string, call *ast.CallExpr) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", nil
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || logLevels[selector.Sel.Name] == "" {
		return "", nil
	}
	return logLevels[selector.Sel.Name], call
}

// logFields returns the names of the fields of a log line: every other argument, or,
// of a list of arguments, every other element of what its function makes of it. Those
// that each line can have, and what logFailure adds, the page tells once for all.
func logFields(function ast.Decl, call *ast.CallExpr) []string {
	fields := everyOther(call.Args[1:])
	if !call.Ellipsis.IsValid() {
		return fields
	}
	fields = nil
	more, _ := call.Args[1].(*ast.CallExpr) // append(list, more...) or logFailure(err, more...)
	if more == nil || more.Ellipsis.IsValid() || !isCallOf(more, "LogArgs") {
		ast.Inspect(function, func(n ast.Node) bool {
			if list, ok := n.(*ast.CompositeLit); ok {
				fields = append(fields, everyOther(list.Elts)...)
			}
			return true
		})
	}
	if more != nil {
		fields = append(fields, everyOther(more.Args[1:])...)
	}
	if more != nil && isCallOf(more, "LogArgs") {
		fields = append(fields, "`"+"error"+"`")
	}
	return fields
}

func isCallOf(call *ast.CallExpr, name string) bool {
	function, ok := call.Fun.(*ast.SelectorExpr)
	return ok && function.Sel.Name == name
}

func everyOther(arguments []ast.Expr) []string {
	var names []string
	for i := 0; i < len(arguments); i += 2 {
		if name, ok := literal(arguments[i]); ok {
			names = append(names, "`"+name+"`")
		}
	}
	return names
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// TestEventsAreDocumented compares the types of the events with the page that lists
// them.
func TestEventsAreDocumented(t *testing.T) {
	kinds := regexp.MustCompile("[\"`](mdi/[a-z-]+)[\"`]")
	find := func(text string) []string {
		var found []string
		for _, match := range kinds.FindAllStringSubmatch(text, -1) {
			found = append(found, match[1])
		}
		slices.Sort(found)
		return found
	}
	require.Equal(t, find(readText(t, "event/event.go")), find(section(t, operatePage, "Events")), "docs/operate.md does not list the events of event.go (expected)")
}

// TestAlertsNameFieldsOfTheStatus keeps people from alerting on what does not exist.
func TestAlertsNameFieldsOfTheStatus(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)`").FindAllStringSubmatch(section(t, operatePage, "Status and alerts"), -1)
	require.NotEmpty(t, rows)
	fields := field.ReadSchema(new(status.State).Fields())
	for _, row := range rows {
		require.Contains(t, fields, row[1])
	}
}

// TestGlossary compares the glossary with the words that the status uses: each value of a
// constant that it shows has an entry, and each entry is used elsewhere.
func TestGlossary(t *testing.T) {
	glossary := readText(t, glossaryPage)
	for _, folder := range []string{"accesskey", "health"} {
		for _, name := range values(t, folder, regexp.MustCompile("^(Cause|Work|Drift)[A-Z]")) {
			require.True(t, strings.Contains(glossary, "\n| `"+name+"` | "), "docs/glossary.md lacks a word of mdi/status: %s", name)
		}
	}
	for _, verdict := range regexp.MustCompile(`\{"(\w+): `).FindAllStringSubmatch(readText(t, "status/status.go"), -1) {
		require.True(t, strings.Contains(glossary, "\n| `"+verdict[1]+"` | "), "docs/glossary.md lacks a word of mdi/status: %s", verdict[1])
	}
	pages, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	said := ""
	for _, page := range pages {
		if page != glossaryPage {
			said += strings.ToLower(readText(t, page))
		}
	}
	entries := regexp.MustCompile("(?m)^\\| `?([a-z -]+)`? \\| ").FindAllStringSubmatch(glossary, -1)
	require.NotEmpty(t, entries)
	for _, entry := range entries {
		require.True(t, strings.Contains(said, entry[1]), "docs/glossary.md has a word that no other page uses: %s", entry[1])
	}
}

// values returns the texts of the constants of a package whose names match.
func values(t *testing.T, folder string, names *regexp.Regexp) (found []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	require.NoError(t, err)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if c, ok := n.(*ast.ValueSpec); ok && len(c.Values) == 1 && names.MatchString(c.Names[0].Name) {
				if text, ok := literal(c.Values[0]); ok {
					found = append(found, text)
				}
			}
			return true
		})
	}
	require.NotEmpty(t, found)
	return found
}

// TestAuditedKeysAreNotSecret keeps secrets out of the audit log.
func TestAuditedKeysAreNotSecret(t *testing.T) {
	flags := regexp.MustCompile(`-audit-non-hmac-(\w+)-keys=%s ' ([^)]+)\)`).FindAllStringSubmatch(readText(t, securityPage), -1)
	require.Len(t, flags, 2)
	engine := newRig(t).engine
	open := map[string]map[string]bool{"request": {}, "response": {}}
	for _, path := range engine.Paths {
		for name, f := range path.Fields {
			open["request"][name] = f.DisplayAttrs == nil || !f.DisplayAttrs.Sensitive
		}
		for _, o := range path.Operations {
			for _, answer := range o.Properties().Responses[http.StatusOK] {
				for name := range answer.Fields {
					open["response"][name] = name != fieldDeploymentAccessKey
				}
			}
		}
	}
	for _, flag := range flags {
		for _, name := range strings.Fields(strings.ReplaceAll(flag[2], "\\", "")) {
			require.True(t, open[flag[1]][name], "%s is a secret, or no field of a %s", name, flag[1])
		}
	}
}

// section returns the text under a heading of a page, up to the next one.
func section(t *testing.T, page, title string) string {
	t.Helper()
	_, text, found := strings.Cut(readText(t, page), "\n## "+title+"\n")
	require.True(t, found, "%s has no section %q", page, title)
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // of this repository
	require.NoError(t, err)
	return string(text)
}
