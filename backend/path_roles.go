// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/role"
)

const (
	rolesPath = event.PathRoles
	fieldName = "name"

	roleNames = "ASCII letters, digits and _, with - and dots between them"
)

// roleName is a field with the name of a role, which is in the path.
func roleName(called string) field.Spec {
	return field.Spec{Name: called, Type: framework.TypeString, Description: "Name of the role: " + roleNames + "."}
}

func pathRoles() *framework.Path {
	p := path(rolesPath+"?", `List the roles.`, `The names of all roles, in alphabetical order, in pages if "after" and "limit" are given.`, []field.Spec{
		{Name: "after", Type: framework.TypeString, Query: true, Description: "Name after which the list begins."},
		{Name: "limit", Type: framework.TypeInt, Query: true, Description: "How many names to list at most; 0 or less lists all."},
	}, operations{
		logical.ListOperation: local("list roles", (*backend).rolesList, "List the roles.", returning("The names of the roles.", []field.Spec{
			field.IfKnown("keys", framework.TypeStringSlice, "The names; missing if there are none.", nil),
		})),
	})
	p.DisplayAttrs.Navigation, p.DisplayAttrs.ItemType = true, "Role"
	return p
}

func pathRole() *framework.Path {
	stored := returningNothing("The role has been stored.")
	p := path(rolesPath+framework.GenericNameRegex(fieldName), `Manage the roles under which the key is shared.`, `
A role says on which terms its readers get the key at key/:role: for how long, and
how old a key may be to be shared with them. Without max_key_age a key of any age
is shared until something replaces it, which suits many hosts that install within
the same days; a duration bounds its age; an explicit 0 regenerates it at every
read, so that readers break each other's installations.

Roles are the unit of policy: path "mdi/key/sensor-hosts" { capabilities = ["read"] }.
Deleting a role leaves the leases that were given under it as they are.
`, append(new(role.Role).Fields(), roleName(fieldName)), operations{
		logical.CreateOperation: forwarded("write role", (*backend).roleWrite, "Create a role.", stored),
		logical.UpdateOperation: forwarded("write role", (*backend).roleWrite, "Change a role; fields that are not named keep their value.", stored),
		logical.PatchOperation:  forwarded("patch role", (*backend).roleWrite, "Change the named fields of a role; null unsets one.", stored),
		logical.DeleteOperation: forwarded("delete role", (*backend).roleDelete, "Delete a role.", returningNothing("There is no such role.")),
		logical.ReadOperation:   local("read role", (*backend).roleRead, "Read a role.", returning("The role.", new(role.Role).Fields())),
	})
	p.DisplayAttrs.ItemType, p.DisplayAttrs.Action = "Role", "Create"
	return p
}

// rolesList serves LIST mdi/roles.
func (b *backend) rolesList(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := b.roles.List(ctx, d.Get("after").(string), d.Get("limit").(int))
	return logical.ListResponse(names), err
}

// roleRead serves GET mdi/roles/:name.
func (b *backend) roleRead(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	found, err := b.roles.Get(ctx, d.Get(fieldName).(string))
	return shown(found, (*role.Role).Fields, err)
}

// roleWrite serves POST and PATCH mdi/roles/:name.
func (b *backend) roleWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	written, err := b.roles.Change(ctx, name, func(old *role.Role) (*role.Role, error) {
		if old == nil && req.Operation == logical.PatchOperation {
			return nil, logical.CodedError(http.StatusNotFound, "there is no role of this name to patch; create it with a write")
		}
		return old.Update(d)
	})
	if err != nil {
		return nil, err
	}
	b.events.Send(ctx, event.RoleWrite, rolesPath+name)
	return warn(&logical.Response{}, b.core.warningOfMax(written.TTL)), nil
}

// roleDelete serves DELETE mdi/roles/:name.
func (b *backend) roleDelete(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	if err := b.roles.Remove(ctx, name); err != nil {
		return nil, err
	}
	b.events.Send(ctx, event.RoleDelete, rolesPath+name)
	return nil, nil
}
