// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// traceKey finds a trace in a context: the id that Graph gave to the last request that it
// answered.
type traceKey struct{}

// WithTrace returns a context that records the ids of Graph's answers, for
// [LastRequestID].
func WithTrace(ctx context.Context) context.Context {
	return context.WithValue(ctx, traceKey{}, &atomic.Value{})
}

// Detach returns a context that ends with base, for work that outlives the request which
// asked for it. Its log lines name that request, and it has a trace of its own.
func Detach(base, request context.Context) context.Context {
	return WithTrace(hclog.WithContext(base, hclog.FromContext(request)))
}

// LastRequestID returns the request-id of Graph's last answer in a context, or "" if
// there was none.
func LastRequestID(ctx context.Context) string {
	trace, ok := ctx.Value(traceKey{}).(*atomic.Value)
	if !ok {
		return ""
	}
	id, _ := trace.Load().(string) // nil at first
	return id
}

func answered(ctx context.Context, requestID string) {
	if trace, ok := ctx.Value(traceKey{}).(*atomic.Value); ok {
		trace.Store(requestID)
	}
}

// LogArgs returns the arguments of a log line about err: the error, more, and, if there
// is an [Error] in its chain, the code and the id by which Microsoft can find the
// request.
func LogArgs(err error, more ...any) []any {
	args := append([]any{"error", err}, more...)
	if e, ok := errors.AsType[*Error](err); ok {
		args = append(args, "code", e.Code, "graph_request_id", e.RequestID)
	}
	return args
}
