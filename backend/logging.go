// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// Names of what stands in log lines. Each line has the id of a request, the same as in
// Vault's audit log, or of the work that no request has asked for.
const (
	logRequestID      = "request_id"
	logWorkID         = "work_id"
	logError          = "error"
	logCode           = "code"
	logGraphRequestID = "graph_request_id"
)

// log returns the logger for what is done in a context.
func (b *backend) log(ctx context.Context) hclog.Logger {
	return graph.LoggerOf(ctx, b.Logger())
}

// ofRequest returns a context whose log lines name a request. Those that core makes by
// itself, to revoke a lease or for the periodic tick, have no id.
func (b *backend) ofRequest(ctx context.Context, req *logical.Request) context.Context {
	if req.ID == "" {
		return b.ofWork(ctx)
	}
	return hclog.WithContext(ctx, b.Logger(), logRequestID, req.ID)
}

// ofWork returns a context whose log lines name a piece of work by a new id.
func (b *backend) ofWork(ctx context.Context) context.Context {
	return hclog.WithContext(ctx, b.Logger(), logWorkID, uuid.NewString())
}

// onBehalf returns a context that ends with base, for work that outlives the request
// which asked for it. In the log it stands as that request's.
func onBehalf(base, request context.Context) context.Context {
	return graph.WithTrace(hclog.WithContext(base, hclog.FromContext(request)))
}

// logFailure is what a log line tells of a failure: the error, and by themselves the
// code and the id by which Microsoft can find the request.
func logFailure(err error, more ...any) []any {
	args := append([]any{logError, err}, more...)
	if remote, ok := errors.AsType[*graph.Error](err); ok {
		args = append(args, logCode, remote.Code, logGraphRequestID, remote.RequestID)
	}
	return args
}
