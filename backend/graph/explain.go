// SPDX-License-Identifier: MPL-2.0

package graph

import "errors"

// Explain returns the text of an error and, if it is one of Entra or Graph, what to do
// about it.
func Explain(err error) string {
	if remote, ok := errors.AsType[*Error](err); ok && remote.Hint() != "" {
		return err.Error() + ": " + remote.Hint()
	}
	return err.Error()
}

// LogArgs returns what a log line says of an error: its text and, on their own, the code
// and the ID by which Microsoft can find the request.
func LogArgs(err error, more ...any) []any {
	args := append([]any{"error", err}, more...)
	if remote, ok := errors.AsType[*Error](err); ok {
		args = append(args, "code", remote.Code, "graph_request_id", remote.RequestID)
	}
	return args
}
