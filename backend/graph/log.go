// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
)

// LoggerOf returns the logger that a context carries (see [hclog.WithContext]), whose
// lines name the work that they belong to, or fallback if it carries none.
func LoggerOf(ctx context.Context, fallback hclog.Logger) hclog.Logger {
	if carried := hclog.FromContext(ctx); carried != hclog.L() {
		return carried
	}
	return fallback
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
