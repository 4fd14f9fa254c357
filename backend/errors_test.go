// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// What passes is a 503, also if the service that is being updated answers 410.
func TestStatusOfRemoteFailures(t *testing.T) {
	for want, failures := range map[int][]graph.Error{
		400: {{Kind: graph.Refused}, {Kind: graph.Refused, Status: 404}, {Kind: graph.Refused, Status: 403}},
		502: {{Kind: graph.Unavailable, Status: 500}, {Kind: graph.Unavailable, Status: 504}, {Kind: graph.Unreadable, Status: 200}},
		503: {
			{Kind: graph.Unavailable},
			{Kind: graph.Timeout},
			{Kind: graph.Throttled, Status: 429},
			{Kind: graph.Unavailable, Status: 410},
			{Kind: graph.Unavailable, Status: 503},
		},
	} {
		for _, e := range failures {
			require.Equal(t, want, statusFor(&e), http.StatusText(e.Status))
		}
	}
}
