// SPDX-License-Identifier: MPL-2.0

package check

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// use is what an example does with a path of the engine.
type use struct {
	op   string   // as in a policy: read, update, create, patch, delete or list
	path string   // below the mount
	in   []string // fields that it writes
	out  []string // fields of the answer that it needs
}

// wrong returns the first part of a use that the engine does not have.
func (u use) wrong(doc *framework.OASDocument) error {
	item := lookup(doc, u.path)
	if item == nil {
		return fmt.Errorf("there is no path mdi/%s", u.path)
	}
	op := operation(item, u.op)
	if op == nil {
		return fmt.Errorf("mdi/%s has no operation %s", u.path, u.op)
	}
	var accepted, answered []string
	if op.RequestBody != nil {
		accepted = fields(doc, op.RequestBody.Content)
	}
	if ok := op.Responses[http.StatusOK]; ok != nil {
		answered = fields(doc, ok.Content)
	}
	for _, field := range u.in {
		if !slices.Contains(accepted, field) {
			return fmt.Errorf("mdi/%s has no field %s to write", u.path, field)
		}
	}
	for _, field := range u.out {
		if !slices.Contains(answered, field) {
			return fmt.Errorf("the answer of mdi/%s has no field %s", u.path, field)
		}
	}
	return nil
}

// lookup finds a path, or else one with a parameter as its last part. A * there, as in a
// policy, matches any parameter. The slash at the end of a list is optional.
func lookup(doc *framework.OASDocument, path string) *framework.OASPathItem {
	for _, pattern := range []string{"/" + path, "/" + path + "/"} {
		if item := doc.Paths[pattern]; item != nil {
			return item
		}
	}
	parent, last, _ := strings.Cut(path, "/")
	for pattern, item := range doc.Paths {
		if last != "" && !strings.Contains(last, "/") && strings.HasPrefix(pattern, "/"+parent+"/{") {
			return item
		}
	}
	return nil
}

func operation(item *framework.OASPathItem, op string) *framework.OASOperation {
	switch op {
	case "read", "list":
		return item.Get
	case "create", "update":
		return item.Post
	case "patch":
		return item.Patch
	case "delete":
		return item.Delete
	default:
		return nil
	}
}

// fields returns the fields of a request or an answer.
func fields(doc *framework.OASDocument, content framework.OASContent) []string {
	body := content["application/json"]
	if body == nil || body.Schema == nil {
		return nil
	}
	schema := body.Schema
	if name, found := strings.CutPrefix(schema.Ref, "#/components/schemas/"); found {
		schema = doc.Components.Schemas[name]
	}
	return slices.Collect(maps.Keys(schema.Properties))
}
