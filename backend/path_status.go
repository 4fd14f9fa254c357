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
	statusPath = "status"

	fieldConfigured          = "configured"
	fieldCause               = "cause"
	fieldDisclosed           = "disclosed"
	fieldFingerprint         = "fingerprint"
	fieldLiveLeases          = "live_leases"
	fieldIntentPending       = "intent_pending"
	fieldIntentStartedAt     = "intent_started_at"
	fieldConsecutiveFailures = "consecutive_failures"
	fieldLastError           = "last_error"
	fieldLastErrorAt         = "last_error_at"
	fieldLastErrorCause      = "last_error_cause"
	fieldLastErrorCode       = "last_error_code"
	fieldLastErrorRequestID  = "last_error_request_id"

	statusHelpSynopsis = `Read the state of the engine, without any secret.`

	statusHelpDescription = `
Tells which version of the key is current and why, how many leases on it are live,
whether the outcome of a regeneration is still unknown, and what failed last.
Fields that have nothing to tell are left out.
`
)

func (b *backend) pathStatus() *framework.Path {
	return &framework.Path{
		Pattern:      statusPath + "$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:                    b.statusRead,
				Summary:                     "Read the state of the engine.",
				Responses:                   map[int][]framework.Response{http.StatusOK: {{Description: "The state of the engine.", Fields: statusResponseFields()}}},
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "status"},
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    statusHelpSynopsis,
		HelpDescription: strings.TrimSpace(statusHelpDescription),
	}
}

func statusResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldConfigured:          {Type: framework.TypeBool, Required: true, Description: "Whether the mount is configured."},
		fieldKeyVersion:          {Type: framework.TypeInt, Required: true, Description: "Version of the current key; 0 before the first."},
		fieldRegeneratedAt:       {Type: framework.TypeTime, Description: "When the current key was regenerated, or was found at Graph."},
		fieldCause:               {Type: framework.TypeString, Description: "Why it was regenerated: read, manual, retired, external (by somebody else) or recovered (found after an answer was lost)."},
		fieldDisclosed:           {Type: framework.TypeBool, Required: true, Description: "Whether the current key has ever been handed out."},
		fieldFingerprint:         {Type: framework.TypeString, Description: "Salted HMAC of the current key, to tell keys apart."},
		fieldLiveLeases:          {Type: framework.TypeInt, Required: true, Description: "Number of live leases on the current key."},
		fieldIntentPending:       {Type: framework.TypeBool, Required: true, Description: "Whether the outcome of a regeneration is not known yet."},
		fieldIntentStartedAt:     {Type: framework.TypeTime, Description: "When that regeneration began."},
		fieldConsecutiveFailures: {Type: framework.TypeInt, Required: true, Description: "Number of failed regenerations since the last that succeeded."},
		fieldLastError:           {Type: framework.TypeString, Description: "What failed last."},
		fieldLastErrorAt:         {Type: framework.TypeTime, Description: "When it failed."},
		fieldLastErrorCause:      {Type: framework.TypeString, Description: "Why the regeneration that failed had been begun, as in cause."},
		fieldLastErrorCode:       {Type: framework.TypeString, Description: "Code of Entra or Graph for it."},
		fieldLastErrorRequestID:  {Type: framework.TypeString, Description: "Request or correlation ID for Microsoft's support."},
	}
}

// statusRead serves GET mdi/status. It asks storage only, so it answers whatever
// state Graph is in.
func (b *backend) statusRead(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	rec, err := b.keeper.stored(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		rec = rec.in(cfg.workspace())
	}
	leases, err := b.keeper.ledger.live(ctx, req.Storage, rec.Version, b.now())
	if err != nil {
		return nil, err
	}
	report, err := b.health.get(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		fieldConfigured:          cfg != nil,
		fieldKeyVersion:          rec.Version,
		fieldDisclosed:           rec.Disclosed,
		fieldLiveLeases:          leases,
		fieldIntentPending:       rec.Intent != nil,
		fieldConsecutiveFailures: report.Failures,
	}
	rec.describe(data)
	report.describe(data)
	return &logical.Response{Data: data}, nil
}

// describe adds to the status what the record tells.
func (r *keyRecord) describe(data map[string]any) {
	if r.Key != "" {
		data[fieldRegeneratedAt] = timestamp(r.RegeneratedAt)
		data[fieldCause] = string(r.Cause)
		data[fieldFingerprint] = r.fingerprint()
	}
	if r.Intent != nil {
		data[fieldIntentStartedAt] = timestamp(r.Intent.StartedAt)
	}
}

// describe adds to the status what the report tells.
func (r *healthReport) describe(data map[string]any) {
	if r.LastError == "" {
		return
	}
	data[fieldLastError] = r.LastError
	data[fieldLastErrorAt] = timestamp(r.LastErrorAt)
	data[fieldLastErrorCause] = string(r.LastErrorCause)
	if r.LastErrorCode != "" {
		data[fieldLastErrorCode] = r.LastErrorCode
	}
	if r.LastErrorRequestID != "" {
		data[fieldLastErrorRequestID] = r.LastErrorRequestID
	}
}
