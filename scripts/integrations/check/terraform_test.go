// SPDX-License-Identifier: MPL-2.0

package check

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

const terraformDir = "../terraform"

// TestTerraformPlansNoChangeAfterItsWrites does what the provider does for each
// vault_generic_endpoint: it writes the data, reads the path, and counts each field with a
// different value as a change.
func TestTerraformPlansNoChangeAfterItsWrites(t *testing.T) {
	body := terraform(t)
	e := newEngine(t)
	endpoints := blocks(body, "resource", "vault_generic_endpoint")
	require.Len(t, endpoints, 2)
	for _, block := range endpoints {
		path, mounted := strings.CutPrefix(attribute(t, block, "path").AsString(), "mdi/")
		require.True(t, mounted)
		require.True(t, attribute(t, block, "ignore_absent_fields").True(), "%s: a default would be a change", path)
		written := decode(t, []byte(attribute(t, block, "data_json").AsString()))
		require.NoError(t, use{op: "update", path: path, in: keys(written)}.wrong(e.openAPI()))

		e.write(path, withoutVerification(path, written))
		read := e.read(path)
		for field, value := range written {
			require.Equal(t, value, read[field], "mdi/%s: %s would be a change in every plan", path, field)
		}
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

// attribute evaluates an attribute as Terraform would, with GUIDs for the variables.
func attribute(t *testing.T, block *hclsyntax.Block, name string) cty.Value {
	t.Helper()
	require.Contains(t, block.Body.Attributes, name)
	value, diags := block.Body.Attributes[name].Expr.Value(&hcl.EvalContext{
		Variables: map[string]cty.Value{
			"path": object("module", cty.StringVal(terraformDir)),
			"var": cty.ObjectVal(map[string]cty.Value{
				"tenant_id": cty.StringVal("11111111-2222-3333-4444-555555555555"),
				"client_id": cty.StringVal("66666666-7777-8888-9999-000000000000"),
			}),
			"vault_mount": object("mdi", object("path", cty.StringVal("mdi"))),
		},
		Functions: map[string]function.Function{
			"jsonencode": stdlib.JSONEncodeFunc,
			"file": function.New(&function.Spec{
				Params: []function.Parameter{{Name: "path", Type: cty.String}},
				Type:   function.StaticReturnType(cty.String),
				Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
					return cty.StringVal(readFile(t, args[0].AsString())), nil
				},
			}),
		},
	})
	require.False(t, diags.HasErrors(), diags)
	return value
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
