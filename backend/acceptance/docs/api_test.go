// SPDX-License-Identifier: MPL-2.0

package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	referencePage = "docs/api.md"

	// updateDocs names the variable with which the tables are written anew.
	updateDocs = "MDI_UPDATE_DOCS"

	mount = "mdi/"
)

// openAPI is what the test needs of the document that Vault serves.
type openAPI struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Summary     string            `json:"summary"`
	ID          string            `json:"operationId"`
	Parameters  []parameter       `json:"parameters"`
	RequestBody json.RawMessage   `json:"requestBody"`
	Responses   map[string]answer `json:"responses"`
}

type answer struct {
	Description string          `json:"description"`
	Content     json.RawMessage `json:"content"`
}

type parameter struct {
	Name        string `json:"name"`
	In          string `json:"in"`
	Description string `json:"description"`
	Schema      field  `json:"schema"`
}

type schema struct {
	Properties map[string]field `json:"properties"`
}

type field struct {
	Type        string `json:"type"`
	Format      string `json:"format"`
	Description string `json:"description"`
	Default     any    `json:"default"`
}

// methods are those of operations, in the order in which they are told of.
var methods = []string{"post", "patch", "get", "delete"}

// TestReference compares the documentation with what a Vault serves that runs the
// engine.
func TestReference(t *testing.T) {
	api := fetchOpenAPI(t)
	t.Run("tables", api.testTables)
	t.Run("commands", api.testCommands)
}

// testTables compares the tables of docs/api.md.
func (api *openAPI) testTables(t *testing.T) {
	page := read(t, referencePage)
	want := generated.ReplaceAllStringFunc(page, func(section string) string {
		found := generated.FindStringSubmatch(section)
		require.Contains(t, api.Paths, "/"+found[2], "%s has a table of a path that Vault does not serve", referencePage)
		return found[1] + "\n" + api.describe(t, found[2]) + "\n" + found[3]
	})
	for path := range api.Paths {
		if strings.HasPrefix(path, "/"+mount) {
			require.Contains(t, page, "<!-- generated: "+path[1:]+" -->", "%s has no table of a path that Vault serves", referencePage)
		}
	}
	if os.Getenv(updateDocs) != "" {
		require.NoError(t, os.WriteFile(filepath.Join(root, referencePage), []byte(want), 0o600))
		return
	}
	require.Equal(t, page, want, "%s=1 go test ./backend/acceptance/docs -run TestReference writes the tables anew", updateDocs)
}

// testCommands checks, of commands that no test here runs, that there are such paths and
// fields.
func (api *openAPI) testCommands(t *testing.T) {
	for _, d := range documents(t) {
		for _, s := range d.steps {
			if s.isRun() {
				continue
			}
			for _, c := range s.commands {
				if words := strings.Fields(c.text); words[0] == "vault" {
					require.NoError(t, api.check(t, words), "%s, line %d", d.name, c.line)
				}
			}
		}
	}
}

// check tells what is wrong with the path and the fields of a command, if it is about the
// engine.
func (api *openAPI) check(t *testing.T, words []string) error {
	t.Helper()
	i := slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, mount) })
	if i < 0 || words[i] == mount { // the mount itself is Vault's
		return nil
	}
	item := api.Paths["/"+words[i]]
	if kind, _, nested := strings.Cut(strings.TrimPrefix(words[i], mount), "/"); nested && item == nil {
		item = api.Paths["/"+mount+kind+"/"+map[string]string{"key": "{role}", "roles": "{name}"}[kind]]
	}
	if item == nil {
		return fmt.Errorf("there is no path %s", words[i])
	}
	for _, word := range words[i+1:] {
		name, _, isField := strings.Cut(word, "=")
		if !isField {
			continue
		}
		if _, known := api.fields(t, decode[operation](t, item["post"]).ID+"-request")[name]; !known {
			return fmt.Errorf("%s has no field %s", words[i], name)
		}
	}
	return nil
}

// generated is a part of the page that this test writes.
var generated = regexp.MustCompile(`(?s)(<!-- generated: (\S+) -->).*?(<!-- end -->)`)

func fetchOpenAPI(t *testing.T) *openAPI {
	t.Helper()
	variables := map[string]string{}
	for _, line := range serve(t, checkout(t), environment(t)) {
		for _, word := range strings.Fields(line) {
			if name, value, ok := strings.Cut(word, "="); ok {
				variables[name] = value
			}
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		variables["VAULT_ADDR"]+"/v1/sys/internal/specs/openapi?generic_mount_paths=false", nil)
	require.NoError(t, err)
	req.Header.Set("X-Vault-Token", variables["VAULT_TOKEN"])
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	api := &openAPI{}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(api))
	return api
}

// describe renders the tables of a path.
func (api *openAPI) describe(t *testing.T, path string) string {
	t.Helper()
	item := api.Paths["/"+path]
	var (
		operations = table{{"operation", "does", "answers"}}
		parameters = table{{"parameter", "in", "type", "meaning"}}
		bodies     tables
	)
	parameters.add(decode[[]parameter](t, item["parameters"]))
	for _, method := range methods {
		if item[method] == nil {
			continue
		}
		op := decode[operation](t, item[method])
		name := strings.ToUpper(method)
		if strings.HasSuffix(path, "/") && method == "get" {
			name = "LIST"
		}
		codes := slices.Sorted(maps.Keys(op.Responses))
		operations = append(operations, []string{code(name), op.Summary, strings.Join(codes, ", ")})
		parameters.add(op.Parameters)
		if op.RequestBody != nil {
			bodies.add(name, "takes", api.fields(t, op.ID+"-request"), true)
		}
		if slices.ContainsFunc(codes, func(c string) bool { return op.Responses[c].Content != nil }) {
			bodies.add(name, "answers", api.fields(t, op.ID+"-response"), false)
		}
	}
	parts := []string{operations.String()}
	if len(parameters) > 1 {
		parts = append(parts, parameters.String())
	}
	return "\n" + strings.Join(append(parts, bodies.render()...), "\n")
}

// fields returns those of a request or response. Vault drops the references to the
// schemas of external plugins, but names the schemas by the operations.
func (api *openAPI) fields(t *testing.T, id string) map[string]field {
	t.Helper()
	var name strings.Builder
	for word := range strings.SplitSeq(id, "-") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	require.Contains(t, api.Components.Schemas, name.String())
	return api.Components.Schemas[name.String()].Properties
}

func decode[T any](t *testing.T, text json.RawMessage) (value T) {
	t.Helper()
	if text != nil {
		require.NoError(t, json.Unmarshal(text, &value))
	}
	return value
}
