// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// Names of fields of log lines. Each line has the ID of a request, the same as in Vault's
// audit log, or of the work that no request has asked for.
const (
	logRequestID = "request_id"
	logWorkID    = "work_id"
)

// ofRequest returns a context whose log lines name a request. Requests that core makes of
// its own, to revoke a lease or for the periodic tick, have no ID.
func (b *backend) ofRequest(ctx context.Context, req *logical.Request) context.Context {
	if req.ID == "" {
		return b.ofWork(ctx)
	}
	return hclog.WithContext(ctx, b.Logger(), logRequestID, req.ID)
}

// ofWork returns a context whose log lines name a piece of work by a new ID.
func (b *backend) ofWork(ctx context.Context) context.Context {
	return hclog.WithContext(ctx, b.Logger(), logWorkID, uuid.NewString())
}
