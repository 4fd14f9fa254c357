// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// configFields returns the fields of the configuration. Their descriptions name the
// allowed values and the default, which path-help does not show otherwise.
func configFields() map[string]*framework.FieldSchema {
	fields := plainConfigFields()
	for _, f := range fields {
		if len(f.AllowedValues) > 0 {
			f.Description += " One of " + commaSeparated(f.AllowedValues) + "."
		}
		if f.Default != nil {
			f.Description += " Default: " + shownDefault(f) + "."
		}
	}
	return fields
}

func commaSeparated(values []any) string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = fmt.Sprint(value)
	}
	return strings.Join(texts, ", ")
}

// shownDefault returns a default as somebody would write it: 1h and not 3600.
func shownDefault(f *framework.FieldSchema) string {
	seconds, isNumber := f.Default.(int)
	if f.Type != framework.TypeDurationSecond || !isNumber || seconds == 0 {
		return fmt.Sprint(f.Default)
	}
	text := (time.Duration(seconds) * time.Second).String()
	text = strings.Replace(text, "m0s", "m", 1)
	return strings.Replace(text, "h0m", "h", 1)
}

func plainConfigFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldTenantID: {
			Type:         framework.TypeString,
			Description:  "Directory (tenant) ID of the Entra tenant, a GUID.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Tenant ID"},
		},
		fieldClientID: {
			Type:         framework.TypeString,
			Description:  "Application (client) ID of the app registration, a GUID.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Client ID"},
		},
		fieldCredentialType: {
			Type:          framework.TypeString,
			Description:   "How the app signs in. Inferred when the write carries a secret or a certificate; what the environment or Vault provides must be asked for by name.",
			AllowedValues: anySlice(credentialTypes()),
			DisplayAttrs:  &framework.DisplayAttributes{Name: "Credential type"},
		},
		fieldClientSecret: {
			Type:         framework.TypeString,
			Description:  "A client secret of the app registration: its value, not its ID. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Client secret", Sensitive: true},
		},
		fieldClientCertificate: {
			Type:         framework.TypeString,
			Description:  "A PEM bundle of the app registration's certificate, its chain if it has one, and its unencrypted RSA private key. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Client certificate", Sensitive: true, EditType: "textarea"},
		},
		fieldIdentityTokenAudience: {
			Type:         framework.TypeString,
			Description:  "Audience of the identity tokens that Vault issues for vault_identity_token; " + defaultIdentityTokenAudience + " by default.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Identity token audience"},
		},
		fieldIdentityTokenTTL: {
			Type:         framework.TypeDurationSecond,
			Description:  "How long these tokens are valid; 1h by default.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Identity token TTL"},
		},
		fieldApplicationObjectID: {
			Type:         framework.TypeString,
			Description:  "Object ID of the app registration (not of the enterprise application), for rotating a certificate without any permission.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Application object ID"},
		},
		fieldRootRotationPeriod: {
			Type:         framework.TypeDurationSecond,
			Description:  "How often the client secret or certificate is replaced by itself, 1h at least; 0: not.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Root rotation period", Group: "Rotation"},
		},
		fieldEnvironment: {
			Type:          framework.TypeString,
			Default:       graph.AzurePublicCloud,
			Description:   "The Microsoft cloud of the tenant.",
			AllowedValues: anySlice(graph.CloudNames()),
			DisplayAttrs:  &framework.DisplayAttributes{Name: "Environment"},
		},
		fieldGraphEndpoint: {
			Type:         framework.TypeString,
			Description:  "Root of an https endpoint to use instead of the cloud's Microsoft Graph, such as a private endpoint.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Graph endpoint", Group: "Network"},
		},
		fieldAuthorityHost: {
			Type:         framework.TypeString,
			Description:  "Root of an https endpoint to use instead of the cloud's Entra sign-in.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Authority host", Group: "Network"},
		},
		fieldCACertificate: {
			Type:         framework.TypeString,
			Description:  "PEM certificates to trust in addition to the system's, such as that of a TLS-inspecting proxy.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "CA certificate", Group: "Network", EditType: "textarea"},
		},
		fieldGraphAPIVersion: {
			Type:          framework.TypeString,
			Default:       graph.Beta,
			Description:   "Version of Microsoft Graph to call.",
			AllowedValues: []any{graph.Beta, graph.V1},
			DisplayAttrs:  &framework.DisplayAttributes{Name: "Graph API version", Group: "Network"},
		},
		fieldTTL: {
			Type:         framework.TypeDurationSecond,
			Default:      int(defaultTTL.Seconds()),
			Description:  "Duration of the leases on the key, capped by the mount's maximum.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "TTL"},
		},
		fieldMaxKeyAge: {
			Type:         framework.TypeDurationSecond,
			Default:      0,
			Description:  "How old a key may be for a read of key to share it; 0 regenerates it at every read. Roles have their own.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Maximum key age"},
		},
		fieldDriftCheckInterval: {
			Type:         framework.TypeDurationSecond,
			Default:      int(defaultDriftCheckInterval.Seconds()),
			Description:  "A key is compared with the tenant's before it is shared if the last comparison is older than this; 0 never does.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Drift check interval"},
		},
		fieldRegenerateOnRevoke: {
			Type:         framework.TypeBool,
			Default:      true,
			Description:  "Whether the key is regenerated when its last lease has ended.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Regenerate on revoke"},
		},
		fieldRotationPeriod: {
			Type:         framework.TypeDurationSecond,
			Description:  "How long after a regeneration the key is regenerated by itself, 60s at least; 0: not. Clears rotation_schedule.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Rotation period", Group: "Rotation"},
		},
		fieldRotationSchedule: {
			Type:         framework.TypeString,
			Description:  "When the key is regenerated by itself: a cron expression of five fields, in UTC. Clears rotation_period.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Rotation schedule", Group: "Rotation"},
		},
		fieldRotationWindow: {
			Type:         framework.TypeDurationSecond,
			Description:  "How long after its time a rotation by rotation_schedule may still happen, 1h at least; 0: until it has.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Rotation window", Group: "Rotation"},
		},
		fieldDisableAutomatedRotation: {
			Type:         framework.TypeBool,
			Description:  "Pauses the rotation by schedule and the retirement of keys without leases.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Disable automated rotation", Group: "Rotation"},
		},
		fieldVerifyConnection: {
			Type:         framework.TypeBool,
			Default:      true,
			Description:  "Whether a write that changes how Graph is reached first signs in and calls Graph, and stores nothing if that fails; where a write says true, it does so whatever it changes. Not stored.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Verify connection"},
		},
	}
}
