// SPDX-License-Identifier: MPL-2.0

package clients

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// javaScript is where `make clients-check` installs the packages.
const javaScript = "../../.cache/javascript"

//go:embed javascript/use-key.mjs
var useKey string

// TestJavaScript does with MSAL and Graph's client for JavaScript what TestApp does with
// those for Go. Half of MSAL's assertions begin in the future.
func TestJavaScript(t *testing.T) {
	if supported, err := exec.CommandContext(t.Context(), "node", "-p", "parseInt(process.versions.node) >= 20").Output(); err != nil || string(supported) != "true\n" {
		t.Skip("SKIPPED: MSAL for JavaScript needs Node 20 or later, which this machine does not have")
	}
	if _, err := os.Stat(javaScript + "/node_modules"); err != nil {
		t.Skip("SKIPPED: the packages are not installed: run `make clients-check` on a machine with npm")
	}
	for name, credential := range map[string]func(*testing.T, *graphtest.Simulator) map[string]any{
		"secret": func(_ *testing.T, sim *graphtest.Simulator) map[string]any {
			return map[string]any{"clientSecret": sim.App().ClientSecret}
		},
		"certificate with chain": func(t *testing.T, sim *graphtest.Simulator) map[string]any {
			bundle, root := newChain(t)
			sim.Update(graphtest.WithSubjectName(root, chainName))
			leaf, _ := pem.Decode([]byte(bundle))
			public, private, _ := strings.Cut(bundle, "-----BEGIN PRIVATE KEY-----")
			return map[string]any{"clientCertificate": map[string]any{
				"thumbprintSha256": digest(string(leaf.Bytes)),
				"privateKey":       "-----BEGIN PRIVATE KEY-----" + private,
				"x5c":              public,
			}}
		},
		"assertion": func(t *testing.T, sim *graphtest.Simulator) map[string]any {
			assertion, err := sim.Assertion(graphtest.AssertionRequest{})
			require.NoError(t, err)
			return map[string]any{"clientAssertion": assertion}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sim := graphtest.Start(t)
			auth := credential(t, sim)
			auth["clientId"] = sim.App().ClientID
			auth["authority"] = sim.URL() + "/" + sim.App().TenantID
			auth["knownAuthorities"] = []string{strings.TrimPrefix(sim.URL(), "https://")}
			auth["clientCapabilities"] = []string{"CP1"}
			sim.Inject(graphtest.Fault{Operation: graphtest.Get, Times: 1, Claims: true})

			result := runScript(t, sim, map[string]any{"auth": auth, "graph": sim.URL()})
			require.Equal(t, digest(sim.Key()), result.Regenerated)
			require.Equal(t, result.Regenerated, result.Read)
			require.True(t, result.Challenged)
			require.Equal(t, graphtest.Challenges{Sent: 1, Answered: 1}, sim.Challenges())
			require.Equal(t, graphtest.Calls{Started: 1, Performed: 1, Answered: 1}, sim.Calls(graphtest.Regenerate))
			require.NotEmpty(t, result.Version)
			require.Equal(t, http.StatusBadRequest, result.Refused.Status)
			require.Equal(t, "BadRequest", result.Refused.Code)
			require.NoError(t, uuid.Validate(result.Refused.RequestID))
		})
	}
}

// scriptResult is what use-key.mjs prints.
type scriptResult struct {
	Regenerated, Read, Version string
	Challenged                 bool
	Refused                    struct {
		Status    int
		Code      string
		RequestID string
	}
}

// runScript runs use-key.mjs where the packages are. No secret is in its command line, nor in
// what a failure shows.
func runScript(t *testing.T, sim *graphtest.Simulator, input any) (result scriptResult) {
	t.Helper()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(authority, []byte(sim.CACertificate()), 0o600))
	text, err := json.Marshal(input)
	require.NoError(t, err)
	script := exec.CommandContext(t.Context(), "node", "--input-type=module", "--eval")
	script.Args = append(script.Args, useKey)
	script.Dir = javaScript
	script.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+authority)
	script.Stdin = bytes.NewReader(text)
	var problem strings.Builder
	script.Stderr = &problem
	out, err := script.Output()
	said := problem.String()
	for _, secret := range sim.Issued() {
		said = strings.ReplaceAll(said, secret, "…")
	}
	require.NoError(t, err, said)
	require.NoError(t, json.Unmarshal(out, &result))
	return result
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
