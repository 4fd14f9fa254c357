// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// logInJSON restarts the engine with a log for programs.
func (r *rig) logInJSON() {
	r.t.Helper()
	r.restart()
	require.NoError(r.t, r.engine.Setup(r.t.Context(), &logical.BackendConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: r.log, JSONFormat: true}), System: r.system, StorageView: r.storage,
	}))
}

// logged returns the lines with a message.
func (r *rig) logged(message string) []map[string]any {
	r.t.Helper()
	var found []map[string]any
	for line := range strings.Lines(r.log.String()) {
		var fields map[string]any
		if !strings.HasPrefix(line, "{") {
			continue // from before the log was one for programs
		}
		require.NoError(r.t, json.Unmarshal([]byte(line), &fields), line)
		if fields["@message"] == message || message == "" {
			found = append(found, fields)
		}
	}
	return found
}

func TestLogLinesTellWhoseWorkTheyAre(t *testing.T) {
	r := configured(t)
	r.logInJSON()
	resp, err := r.engine.HandleRequest(t.Context(), &logical.Request{ID: "the-request", Operation: logical.ReadOperation, Path: keyPath, Storage: r.storage})
	require.NoError(t, err)
	require.NoError(t, resp.Error())

	regenerated := r.logged("deployment access key regenerated")
	require.Len(t, regenerated, 1)
	require.Equal(t, "the-request", regenerated[0]["request_id"])
	require.NotEmpty(t, regenerated[0]["graph_request_id"])
	asked := r.logged("answer from Microsoft")
	require.Greater(t, len(asked), 2, "discovery, a token, and the key")
	require.Equal(t, regenerated[0]["graph_request_id"], asked[len(asked)-1]["graph_request_id"])
	for _, line := range asked {
		require.Equal(t, "the-request", line["request_id"], "also of the sign-in, which belongs to nobody")
	}

	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.revoke(resp)
	r.eventually("the retirement is refused", func() bool { return len(r.logged("the deployment access key was not regenerated")) == 1 })
	refused := r.logged("the deployment access key was not regenerated")[0]
	require.NotEmpty(t, refused["work_id"])
	require.NotContains(t, refused, "request_id")
	require.Equal(t, "Forbidden", refused["code"])
	require.NotEmpty(t, refused["graph_request_id"])
	require.NotEqual(t, regenerated[0]["graph_request_id"], refused["graph_request_id"])

	r.idle() // the refusal is logged before the next attempt is planned
	r.clock.advance(3 * health.FirstRetry)
	r.tick()
	require.Len(t, r.logged("deployment access key regenerated"), 2)
	for _, line := range r.logged("") {
		_, ofRequest := line["request_id"]
		_, ofWork := line["work_id"]
		require.NotEqual(t, ofRequest, ofWork, "%v", line)
	}
}
