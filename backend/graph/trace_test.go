// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

func TestLogArgs(t *testing.T) {
	plain := errors.New("not Graph's")
	require.Equal(t, []any{"error", plain}, graph.LogArgs(plain))
	require.Equal(t, []any{"error", plain, "key_version", 3}, graph.LogArgs(plain, "key_version", 3))

	wrapped := fmt.Errorf("reading: %w", &graph.Error{Code: "Forbidden", RequestID: "id"})
	require.Equal(t, []any{"error", wrapped, "key_version", 3, "code", "Forbidden", "graph_request_id", "id"},
		graph.LogArgs(wrapped, "key_version", 3))
}

func TestExplain(t *testing.T) {
	forbidden := &graph.Error{Op: graph.OpGet, Kind: graph.Refused, Status: 403}
	for want, err := range map[string]error{
		"not Graph's": errors.New("not Graph's"),
		"getDeploymentAccessKey: unavailable (HTTP 500)":                  &graph.Error{Op: graph.OpGet, Kind: graph.Unavailable, Status: 500},
		forbidden.Hint() + " (getDeploymentAccessKey: refused, HTTP 403)": forbidden,
		"why (sign-in: unavailable, HTTP 503, request-id r)":              &graph.Error{Op: graph.OpSignIn, Kind: graph.Unavailable, Status: 503, RequestID: "r", Reason: "why"},
		"reading: " + graph.Explain(forbidden):                            fmt.Errorf("reading: %w", forbidden),
	} {
		require.Equal(t, want, graph.Explain(err))
	}
}
