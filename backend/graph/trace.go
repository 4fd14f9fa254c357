// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// trace records Graph's id of the last request that it answered.
type trace struct {
	mu        sync.Mutex
	requestID string
}

type traceKey struct{}

// WithTrace returns a context that records the ids of Graph's answers, for
// [LastRequestID].
func WithTrace(ctx context.Context) context.Context {
	return context.WithValue(ctx, traceKey{}, &trace{})
}

// Detach returns a context that ends with base, for work that outlives the request which
// asked for it. Its log lines name that request, and it has a trace of its own.
func Detach(base, request context.Context) context.Context {
	return WithTrace(hclog.WithContext(base, hclog.FromContext(request)))
}

// LastRequestID returns the request-id of Graph's last answer in a context, or "" if
// there was none.
func LastRequestID(ctx context.Context) string {
	t, ok := ctx.Value(traceKey{}).(*trace)
	if !ok {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requestID
}

func answered(ctx context.Context, requestID string) {
	if t, ok := ctx.Value(traceKey{}).(*trace); ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.requestID = requestID
	}
}
