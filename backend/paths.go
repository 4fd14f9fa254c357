// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/field"
)

// paths are those of every mount. They are made once for all mounts of a process, since they
// take more memory than everything else that a mount needs at first.
var paths = []*framework.Path{
	pathConfig, pathRoles(), pathRole(), pathKey, pathRoleKey, pathKeyVersion, pathRotateKey, pathRotateRoot, pathStatus, pathDeploymentPackage,
}

// method is a method of the mount that a request is for.
type method = func(*backend, context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error)

// mountKey finds that mount in the context of a request.
type mountKey struct{}

// ofMount makes a method callable for the framework.
func ofMount(m method) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		return m(ctx.Value(mountKey{}).(*backend), ctx, req, d)
	}
}

// responses declares what an operation returns, by status.
type responses = map[int][]framework.Response

// operations are those of a path.
type operations = map[logical.Operation]framework.OperationHandler

// path declares a path of the engine, and what its requests may contain. The pattern is
// complete: the framework would add the ^ while another mount reads it.
func path(pattern, synopsis, description string, takes []field.Spec, does operations) *framework.Path {
	p := &framework.Path{
		Pattern:      "^" + pattern + "$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: "mdi"}, // of names in Vault's OpenAPI document
		Fields:       field.Schema(takes),
		Operations:   does,
		HelpSynopsis: synopsis,
	}
	p.HelpDescription = strings.TrimSpace(description) + answers(p)
	if does[logical.CreateOperation] != nil {
		// A write creates what a read does not find.
		p.ExistenceCheck = func(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
			found, err := does[logical.ReadOperation].Handler()(ctx, req, d)
			return found != nil, err
		}
	}
	return p
}

// local declares an operation that any node answers from its own storage. The name, such
// as "read role", is that of the operation in Vault's OpenAPI document.
func local(name string, serve method, summary string, returns responses) *framework.PathOperation {
	verb, suffix, _ := strings.Cut(name, " ")
	return &framework.PathOperation{
		Callback:     ofMount(serve),
		Summary:      summary,
		Responses:    returns,
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: suffix},
	}
}

// forwarded declares an operation that writes, calls Graph, or needs what only the active
// node knows. Performance standbys and secondaries forward it before it does anything.
func forwarded(name string, serve method, summary string, returns responses) *framework.PathOperation {
	o := local(name, serve, summary, returns)
	o.ForwardPerformanceStandby, o.ForwardPerformanceSecondary = true, true
	return o
}

// returning declares a response with data.
func returning(description string, with []field.Spec) responses {
	return responses{http.StatusOK: {{Description: description, Fields: field.ReadSchema(with)}}}
}

// returningNothing declares a response without data: 204, or 200 if there are warnings.
func returningNothing(description string) responses {
	return responses{
		http.StatusNoContent: {{Description: description}},
		http.StatusOK:        {{Description: description + " There are warnings."}},
	}
}

// answers describes the fields that only responses of a path have, in the form in which
// path-help shows parameters: it leaves out responses.
func answers(p *framework.Path) string {
	text, answered := "", map[string]*framework.FieldSchema{}
	for _, o := range p.Operations {
		for _, r := range o.Properties().Responses[http.StatusOK] {
			maps.Copy(answered, r.Fields)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(answered)) {
		if f := answered[name]; p.Fields[name] == nil {
			text += fmt.Sprintf("\n\n    %s (%s)\n\n        %s", name, f.Type, f.Description)
		}
	}
	if text != "" {
		text = "\n\n## RESPONSE" + text
	}
	return text
}

// badName refuses the name of a role that no route takes: the framework would call the
// whole path unsupported.
func badName(req *logical.Request) error {
	name := map[string]string{rolesPath: fieldName, keyPath + "/": fieldRole}[req.Path[:strings.Index(req.Path, "/")+1]]
	if name == "" || req.Secret != nil || req.Operation == logical.ListOperation {
		return nil
	}
	return &field.Error{Field: name, Problem: "must be made of " + roleNames}
}

// shown answers a read with the fields of t, or, if that is nil, by saying that there is none.
func shown[T any](t *T, fields func(*T) []field.Spec, err error) (*logical.Response, error) {
	if err != nil || t == nil {
		return nil, err
	}
	return &logical.Response{Data: field.Read(fields(t))}, nil
}

// warn adds those of some warnings to a response, if there is one, that are not "".
func warn(resp *logical.Response, warnings ...string) *logical.Response {
	for _, warning := range warnings {
		if resp != nil && warning != "" {
			resp.AddWarning(warning)
		}
	}
	return resp
}
