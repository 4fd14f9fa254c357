// SPDX-License-Identifier: MPL-2.0

package check

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const (
	// The operator's Go module has its definitions. Nothing of the module is built.
	operatorModule = "github.com/external-secrets/external-secrets@v1.3.2"
	operatorSum    = "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ="
)

var secretField = regexp.MustCompile(`{{ \.(\w+) }}`)

func TestExternalSecretsAreValid(t *testing.T) {
	resources := yamlDocuments(t, "../external-secrets/access-key.yaml")
	require.Len(t, resources, 2)
	generator, secret := resources[0], resources[1]
	for _, resource := range resources {
		require.NoError(t, definition(t, resource).Validate(resource))
	}

	u := use{op: "read", path: strings.TrimPrefix(at(t, generator, "spec", "path").(string), "mdi/")}
	require.Equal(t, "GET", at(t, generator, "spec", "method"))
	template := at(t, secret, "spec", "target", "template", "data", "access-key.txt").(string)
	for _, field := range secretField.FindAllStringSubmatch(template, -1) {
		u.out = append(u.out, field[1])
	}
	require.NotEmpty(t, u.out)
	require.NoError(t, u.wrong(newEngine(t).openAPI()))

	ref := at(t, secret, "spec", "dataFrom").([]any)[0]
	require.Equal(t, map[string]any{
		"apiVersion": generator["apiVersion"],
		"kind":       generator["kind"],
		"name":       at(t, generator, "metadata", "name"),
	}, at(t, ref, "sourceRef", "generatorRef"))
}

// TestDefinitionsAreStrict shows that the test above can fail.
func TestDefinitionsAreStrict(t *testing.T) {
	generator := yamlDocuments(t, "../external-secrets/access-key.yaml")[0]
	schema := definition(t, generator)
	spec := generator["spec"].(map[string]any)
	spec["resulttype"] = "Data"
	require.ErrorContains(t, schema.Validate(generator), "resulttype")
	delete(spec, "resulttype")
	delete(spec, "path")
	require.ErrorContains(t, schema.Validate(generator), "path")
}

// definition returns the operator's schema for a resource.
func definition(t *testing.T, resource map[string]any) *jsonschema.Schema {
	t.Helper()
	group, version, _ := strings.Cut(resource["apiVersion"].(string), "/")
	name := group + "_" + strings.ToLower(resource["kind"].(string)) + "s.yaml"
	crd := yamlDocuments(t, filepath.Join(operatorDir(t), "config", "crds", "bases", name))[0]
	for _, served := range at(t, crd, "spec", "versions").([]any) {
		if at(t, served, "name") != version {
			continue
		}
		schema := strict(at(t, served, "schema", "openAPIV3Schema"))
		compiler := jsonschema.NewCompiler()
		require.NoError(t, compiler.AddResource(name, schema))
		compiled, err := compiler.Compile(name)
		require.NoError(t, err)
		return compiled
	}
	require.Fail(t, "the operator does not serve this version", "%s of %s", version, name)
	return nil
}

// operatorDir downloads the operator's module, if it is not in the module cache yet.
func operatorDir(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", operatorModule).Output()
	require.NoError(t, err, "%s", out)
	var module struct{ Dir, Sum string }
	require.NoError(t, json.Unmarshal(out, &module))
	require.Equal(t, operatorSum, module.Sum)
	return module.Dir
}

// strict changes a schema of Kubernetes, which drops unknown fields, into one that refuses
// them, except in metadata.
func strict(schema any) any {
	switch value := schema.(type) {
	case []any:
		for i := range value {
			value[i] = strict(value[i])
		}
	case map[string]any:
		for _, name := range slices.Collect(maps.Keys(value)) {
			if name != "metadata" {
				value[name] = strict(value[name])
			}
		}
		_, open := value["additionalProperties"]
		if properties, listed := value["properties"].(map[string]any); listed && !open && len(properties) > 0 {
			value["additionalProperties"] = false
		}
	}
	return schema
}

// at returns the value at a path of names in nested objects.
func at(t *testing.T, value any, names ...string) any {
	t.Helper()
	for _, name := range names {
		object, ok := value.(map[string]any)
		require.True(t, ok, "%s of what is no object", name)
		require.Contains(t, object, name)
		value = object[name]
	}
	return value
}

// yamlDocuments returns the documents of a file, with the types of JSON.
func yamlDocuments(t *testing.T, file string) []map[string]any {
	t.Helper()
	var documents []map[string]any
	decoder := yaml.NewDecoder(strings.NewReader(readFile(t, file)))
	for {
		var document map[string]any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return documents
		}
		require.NoError(t, err, file)
		text, err := json.Marshal(document)
		require.NoError(t, err, file)
		documents = append(documents, decode(t, text))
	}
}

func keys[V any](m map[string]V) []string { return slices.Collect(maps.Keys(m)) }
