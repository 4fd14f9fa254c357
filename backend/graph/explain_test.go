// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

func TestExplain(t *testing.T) {
	forbidden := &graph.Error{Op: graph.OpGet, Kind: graph.Refused, Status: 403}
	for want, err := range map[string]error{
		"not Graph's": errors.New("not Graph's"),
		"getDeploymentAccessKey: unavailable (HTTP 500)": &graph.Error{Op: graph.OpGet, Kind: graph.Unavailable, Status: 500},
		forbidden.Error() + ": " + forbidden.Hint():      forbidden,
		"reading: " + graph.Explain(forbidden):           fmt.Errorf("reading: %w", forbidden),
	} {
		require.Equal(t, want, graph.Explain(err))
	}
}
