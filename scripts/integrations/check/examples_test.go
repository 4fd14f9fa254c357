// SPDX-License-Identifier: MPL-2.0

package check

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/stretchr/testify/require"
)

// Uses of the engine in any kind of example.
var (
	// A path below the mount. Folders called mdi come after a slash or a backslash.
	mention = regexp.MustCompile(`(?:^|[^/\\\w-])mdi/([a-z][a-z-]*(?:/[a-z][a-z-]*)?)`)
	// A read in a template of Vault Agent, and the fields that it uses.
	templateRead  = regexp.MustCompile(`secret "mdi/([^"]+)"`)
	templateField = regexp.MustCompile(`\.Data\.(\w+)|index \.Data "(\w+)"`)
	// A command line of Vault.
	command      = regexp.MustCompile(`vault (read|write|patch|delete|list)((?: -\S+)*) mdi/(\S+)((?: \w+=\S+)*)`)
	commandField = regexp.MustCompile(`-field=(\w+)`)
	commandData  = regexp.MustCompile(` (\w+)=`)
)

func TestExamplesUseWhatTheEngineHas(t *testing.T) {
	doc := newEngine(t).openAPI()
	all := examples(t)
	require.NotEmpty(t, all)
	for _, file := range all {
		text := readFile(t, file)
		uses := append(commandsIn(text), templatesIn(text)...)
		if filepath.Base(filepath.Dir(file)) == "policies" {
			uses = append(uses, policiesIn(t, file, text)...)
		}
		for _, found := range mention.FindAllStringSubmatch(text, -1) {
			require.NotNil(t, lookup(doc, found[1]), "%s: there is no path mdi/%s", file, found[1])
		}
		for _, u := range uses {
			require.NoError(t, u.wrong(doc), file)
		}
	}
}

// TestUsesThatAreWrong shows that the test above can fail.
func TestUsesThatAreWrong(t *testing.T) {
	doc := newEngine(t).openAPI()
	require.NoError(t, use{op: "update", path: "config", in: []string{"ttl"}}.wrong(doc))
	require.NoError(t, use{op: "read", path: "key/hosts", out: []string{"key_version"}}.wrong(doc))
	for _, u := range []use{
		{op: "read", path: "keys"},
		{op: "read", path: "key/a/b"},
		{op: "delete", path: "key"},
		{op: "read", path: "rotate-key"},
		{op: "update", path: "config", in: []string{"tenent_id"}},
		{op: "read", path: "status", out: []string{"deployment_access_key"}},
	} {
		require.Error(t, u.wrong(doc), u)
	}
}

// examples returns all files of the examples, and the page that describes them.
func examples(t *testing.T) []string {
	t.Helper()
	files := []string{"../../../docs/integrations.md"}
	for _, dir := range []string{"..", "../../agent", "../../sensor-host", "../../policies"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if entry != nil && entry.IsDir() && entry.Name() == "check" {
				return filepath.SkipDir
			}
			if err == nil && !entry.IsDir() {
				files = append(files, path)
			}
			return err
		}))
	}
	return files
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // of this repository
	require.NoError(t, err)
	return string(text)
}

func commandsIn(text string) []use {
	var uses []use
	for _, found := range command.FindAllStringSubmatch(text, -1) {
		u := use{op: found[1], path: found[3]}
		if u.op == "write" {
			u.op = "update"
		}
		for _, field := range commandField.FindAllStringSubmatch(found[2], -1) {
			u.out = append(u.out, field[1])
		}
		for _, field := range commandData.FindAllStringSubmatch(found[4], -1) {
			u.in = append(u.in, field[1])
		}
		uses = append(uses, u)
	}
	return uses
}

// templatesIn assumes that all fields of a template belong to the one path that it reads.
func templatesIn(text string) []use {
	read := templateRead.FindStringSubmatch(text)
	if read == nil {
		return nil
	}
	u := use{op: "read", path: read[1]}
	for _, field := range templateField.FindAllStringSubmatch(text, -1) {
		u.out = append(u.out, field[1]+field[2])
	}
	return []use{u}
}

// policiesIn returns what a policy allows below the mount.
func policiesIn(t *testing.T, file, text string) []use {
	t.Helper()
	var uses []use
	for _, block := range parseHCL(t, file, text).Blocks {
		path, ours := strings.CutPrefix(block.Labels[0], "mdi/")
		if !ours {
			continue
		}
		capabilities, diags := block.Body.Attributes["capabilities"].Expr.Value(nil)
		require.False(t, diags.HasErrors(), "%s: %s", file, diags)
		for _, value := range capabilities.AsValueSlice() {
			uses = append(uses, use{op: value.AsString(), path: path})
		}
	}
	require.NotEmpty(t, uses, "%s allows nothing", file)
	return uses
}

func parseHCL(t *testing.T, file, text string) *hclsyntax.Body {
	t.Helper()
	parsed, diags := hclsyntax.ParseConfig([]byte(text), file, hcl.InitialPos)
	require.False(t, diags.HasErrors(), diags)
	return parsed.Body.(*hclsyntax.Body)
}

// blocks returns the blocks of a kind, such as resource "vault_policy".
func blocks(body *hclsyntax.Body, kind ...string) []*hclsyntax.Block {
	var found []*hclsyntax.Block
	for _, block := range body.Blocks {
		head := append([]string{block.Type}, block.Labels...)
		if len(head) >= len(kind) && slices.Equal(head[:len(kind)], kind) {
			found = append(found, block)
		}
	}
	return found
}
