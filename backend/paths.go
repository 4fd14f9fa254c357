// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// operationPrefix begins the names of operations in Vault's OpenAPI document.
const operationPrefix = "mdi"

// responses declares what an operation returns, by status.
type responses = map[int][]framework.Response

// path declares a path of the engine.
func path(pattern, synopsis, description string, operations map[logical.Operation]framework.OperationHandler) *framework.Path {
	return &framework.Path{
		Pattern:         pattern,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations:      operations,
		HelpSynopsis:    synopsis,
		HelpDescription: strings.TrimSpace(description),
	}
}

// local declares an operation that any node answers from its own storage. The name, such
// as "read role", is that of the operation in Vault's OpenAPI document.
func local(name string, callback framework.OperationFunc, summary string, returns responses) *framework.PathOperation {
	verb, suffix, _ := strings.Cut(name, " ")
	return &framework.PathOperation{
		Callback:     callback,
		Summary:      summary,
		Responses:    returns,
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: suffix},
	}
}

// forwarded declares an operation that writes, calls Graph, or needs what only the active
// node knows. Performance standbys and
// secondaries forward it before it does anything.
func forwarded(name string, callback framework.OperationFunc, summary string, returns responses) *framework.PathOperation {
	o := local(name, callback, summary, returns)
	o.ForwardPerformanceStandby, o.ForwardPerformanceSecondary = true, true
	return o
}

// returning declares a response with data.
func returning(description string, fields map[string]*framework.FieldSchema) responses {
	return responses{http.StatusOK: {{Description: description, Fields: fields}}}
}

// returningNothing declares a response without data: 204, or 200 if there are warnings.
func returningNothing(description string) responses {
	declared := returning(description+" There are warnings.", map[string]*framework.FieldSchema{})
	declared[http.StatusNoContent] = []framework.Response{{Description: description, Fields: map[string]*framework.FieldSchema{}}}
	return declared
}
