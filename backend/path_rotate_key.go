// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	rotateKeyPath = "rotate-key"

	rotateKeyHelpSynopsis = `Regenerate the deployment access key now and disclose nothing.`

	rotateKeyHelpDescription = `
For the case that a key may have leaked: every key known so far becomes useless
for new installations, at once, whatever leases there are on it. Installed sensors
are not affected. The new key is returned to nobody; readers get one when they
read again.
`
)

func (b *backend) pathRotateKey() *framework.Path {
	return &framework.Path{
		Pattern:      rotateKeyPath + "$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.rotateKey,
				Summary:  "Regenerate the deployment access key and disclose nothing.",
				Responses: map[int][]framework.Response{http.StatusOK: {{
					Description: "The key has been regenerated.",
					Fields: map[string]*framework.FieldSchema{
						fieldKeyVersion:    {Type: framework.TypeInt, Description: "Version of the new key.", Required: true},
						fieldRegeneratedAt: {Type: framework.TypeTime, Description: "When the key was regenerated.", Required: true},
					},
				}}},
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "rotate", OperationSuffix: "key"},
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    rotateKeyHelpSynopsis,
		HelpDescription: strings.TrimSpace(rotateKeyHelpDescription),
	}
}

// rotateKey serves POST mdi/rotate-key.
func (b *backend) rotateKey(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	rec, err := b.rotation.Rotate(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	return &logical.Response{Data: map[string]any{
		fieldKeyVersion:    rec.Version,
		fieldRegeneratedAt: timestamp(rec.RegeneratedAt),
	}}, nil
}
