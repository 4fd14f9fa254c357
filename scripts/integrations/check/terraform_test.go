// SPDX-License-Identifier: MPL-2.0

package check

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

const terraformDir = "../terraform"

// TestTerraformPlansNoChangeAfterItsWrites does what the provider does for each
// vault_generic_endpoint: it writes the data, reads the path, and counts each difference as a
// change.
func TestTerraformPlansNoChangeAfterItsWrites(t *testing.T) {
	body := terraform(t)
	e := newEngine(t)
	endpoints := blocks(body, "resource", "vault_generic_endpoint")
	require.Len(t, endpoints, 2)
	for _, block := range endpoints {
		path, mounted := strings.CutPrefix(attribute(t, block, "path").AsString(), "mdi/")
		require.True(t, mounted)
		require.NotContains(t, block.Body.Attributes, "ignore_absent_fields", "%s: a field that is not written would not be compared", path)
		require.NotContains(t, block.Body.Attributes, "disable_read", path)
		written := decode(t, []byte(attribute(t, block, "data_json").AsString()))
		require.NoError(t, use{op: "update", path: path, in: keys(written)}.wrong(e.openAPI()))

		e.write(path, withoutVerification(path, written))
		require.Equal(t, e.read(path), written, "mdi/%s: a difference would be a change in every plan", path)
	}
}

// TestTerraformHoldsNoSecret looks for secrets that would get into the state.
func TestTerraformHoldsNoSecret(t *testing.T) {
	body := terraform(t)
	require.Empty(t, blocks(body, "data"), "reading a key puts it into the state, and regenerates it at every plan")
	for _, block := range blocks(body, "resource", "vault_generic_endpoint") {
		data := attribute(t, block, "data_json").AsString()
		require.NotContains(t, data, "client_secret\":")
		require.NotContains(t, data, "client_certificate\":")
	}
}

func TestTerraformPoliciesAreTheProjects(t *testing.T) {
	policies := blocks(terraform(t), "resource", "vault_policy")
	require.Len(t, policies, 2)
	for _, block := range policies {
		require.NotEmpty(t, policiesIn(t, block.Labels[1], attribute(t, block, "policy").AsString()))
	}
}

// terraform returns all blocks of the example.
func terraform(t *testing.T) *hclsyntax.Body {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(terraformDir, "*.tf"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	all := &hclsyntax.Body{}
	for _, file := range files {
		all.Blocks = append(all.Blocks, parseHCL(t, file, readFile(t, file)).Blocks...)
	}
	return all
}

// attribute evaluates an attribute as Terraform would.
func attribute(t *testing.T, block *hclsyntax.Block, name string) cty.Value {
	t.Helper()
	require.Contains(t, block.Body.Attributes, name)
	context := evaluation(t)
	config, diags := blocks(terraform(t), "locals")[0].Body.Attributes["config"].Expr.Value(context)
	require.False(t, diags.HasErrors(), diags)
	context.Variables["local"] = object("config", config)
	value, diags := block.Body.Attributes[name].Expr.Value(context)
	require.False(t, diags.HasErrors(), diags)
	return value
}

// evaluation has the variables and functions of the example, with GUIDs for the connection.
func evaluation(t *testing.T) *hcl.EvalContext {
	t.Helper()
	expr := blocks(terraform(t), "variable", "connection")[0].Body.Attributes["type"].Expr
	kind, defaults, diags := typeexpr.TypeConstraintWithDefaults(expr)
	require.False(t, diags.HasErrors(), diags)
	connection, err := convert.Convert(defaults.Apply(cty.ObjectVal(map[string]cty.Value{
		"tenant_id": cty.StringVal("11111111-2222-3333-4444-555555555555"),
		"client_id": cty.StringVal("66666666-7777-8888-9999-000000000000"),
	})), kind)
	require.NoError(t, err)
	return &hcl.EvalContext{
		Variables: map[string]cty.Value{
			"path":        object("module", cty.StringVal(terraformDir)),
			"var":         object("connection", connection),
			"vault_mount": object("mdi", object("path", cty.StringVal("mdi"))),
		},
		Functions: map[string]function.Function{
			"jsonencode": stdlib.JSONEncodeFunc,
			"merge":      stdlib.MergeFunc,
			"file": function.New(&function.Spec{
				Params: []function.Parameter{{Name: "path", Type: cty.String}},
				Type:   function.StaticReturnType(cty.String),
				Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
					return cty.StringVal(readFile(t, args[0].AsString())), nil
				},
			}),
		},
	}
}

func object(name string, value cty.Value) cty.Value {
	return cty.ObjectVal(map[string]cty.Value{name: value})
}

// withoutVerification adds the field that keeps the engine from signing in to the tenant of
// the example.
func withoutVerification(path string, data map[string]any) map[string]any {
	if path != "config" {
		return data
	}
	unverified := map[string]any{"verify_connection": false}
	for field, value := range data {
		unverified[field] = value
	}
	return unverified
}

// The binaries have the names of a release.
func TestTerraformNamesTheBinariesOfARelease(t *testing.T) {
	release := yamlDocuments(t, repository+"/.goreleaser.yaml")[0]
	name := at(t, at(t, release, "archives").([]any)[0], "name_template").(string)
	require.Equal(t, "{{ .ProjectName }}_{{ .Version }}_{{ .Os }}_{{ .Arch }}", name)
	context := &hcl.EvalContext{
		Variables: map[string]cty.Value{
			"each": object("key", cty.StringVal("v1.2.3")),
			"var":  object("platform", cty.StringVal("linux_amd64")),
		},
		Functions: map[string]function.Function{"trimprefix": stdlib.TrimPrefixFunc},
	}
	plugin := blocks(terraform(t), "resource", "vault_plugin")[0]
	command, diags := plugin.Body.Attributes["command"].Expr.Value(context)
	require.False(t, diags.HasErrors(), diags)
	require.Equal(t, at(t, release, "project_name").(string)+"_1.2.3_linux_amd64", command.AsString())
}
