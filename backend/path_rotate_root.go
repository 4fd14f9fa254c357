// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/event"
)

var pathRotateRoot = path(event.PathRotateRoot, `Replace the app's own client secret or certificate.`, `
The engine adds a credential to the app registration, signs in with it several times,
and uses it from then on; it is never shown. The one before is removed after a grace
period, if the engine made it. Credentials that were made by others are never touched, so
remove by hand the one that you configured at first.

A client secret needs the permission Application.ReadWrite.OwnedBy, and the app as an
owner of itself. A certificate needs no permission, if application_object_id is
configured.
`, nil, operations{
	logical.UpdateOperation: forwarded("rotate root-credential", (*backend).rotateRoot, "Replace the app's own client secret or certificate.",
		returningNothing("The credential has been replaced.")),
})

// rotateRoot serves POST mdi/rotate-root.
func (b *backend) rotateRoot(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	warning, err := b.root.Rotate(ctx)
	return warn(&logical.Response{}, warning), err
}
