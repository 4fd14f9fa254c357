// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

func TestLoggerOf(t *testing.T) {
	carried, fallback := hclog.NewNullLogger(), hclog.NewNullLogger().Named("fallback")
	require.Same(t, fallback, graph.LoggerOf(t.Context(), fallback))
	require.Same(t, carried, graph.LoggerOf(hclog.WithContext(t.Context(), carried), fallback))
}

func TestLogArgs(t *testing.T) {
	plain := errors.New("not Graph's")
	require.Equal(t, []any{"error", plain}, graph.LogArgs(plain))
	require.Equal(t, []any{"error", plain, "key_version", 3}, graph.LogArgs(plain, "key_version", 3))

	wrapped := fmt.Errorf("reading: %w", &graph.Error{Code: "Forbidden", RequestID: "id"})
	require.Equal(t, []any{"error", wrapped, "key_version", 3, "code", "Forbidden", "graph_request_id", "id"},
		graph.LogArgs(wrapped, "key_version", 3))
}
