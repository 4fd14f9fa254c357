// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// The names of what only some servers have.
const (
	namespaces      = "namespaces"
	namespaceSeals  = "namespace-seals"
	declaredPlugins = "declared-plugins"
	declaredAudit   = "declared-audit"
	standbyReads    = "standby-reads"
)

// capability is what only some servers have. Whether one has it is asked of a node of it,
// and never concluded from its version.
type capability struct {
	what string
	ask  func(context.Context, *node) (bool, error)
}

// capabilities is the one place that knows how servers differ.
func capabilities() map[string]capability {
	return map[string]capability{
		namespaces:      {"namespaces", makesNamespaces},
		namespaceSeals:  {"namespaces that can be sealed", describesSeals},
		declaredPlugins: {"plugins that its configuration registers", lists("sys/plugins/catalog/secret", testbed.PluginName)},
		declaredAudit:   {"audit devices that its configuration enables", hasKey("sys/audit", declared+"/")},
		standbyReads:    {"standbys that answer reads", runsPlugin},
	}
}

// makesNamespaces makes a namespace: Vault Community describes the path, and refuses it.
func makesNamespaces(ctx context.Context, n *node) (bool, error) {
	err := n.Call(ctx, http.MethodPut, "sys/namespaces/asked", nil, nil)
	if refused, ok := errors.AsType[*testbed.StatusError](err); ok && refused.Status == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// describesSeals asks whether a namespace can be sealed, by the description of the API.
func describesSeals(ctx context.Context, n *node) (bool, error) {
	var document struct{ Paths map[string]any }
	err := n.Call(ctx, http.MethodGet, "sys/internal/specs/openapi", nil, &document)
	return document.Paths["/sys/namespaces/{path}/seal"] != nil, err
}

// hasKey asks whether the data at a path has a key.
func hasKey(path, key string) func(context.Context, *node) (bool, error) {
	return func(ctx context.Context, n *node) (bool, error) {
		var answer struct{ Data map[string]any }
		err := n.Call(ctx, http.MethodGet, path, nil, &answer)
		return answer.Data[key] != nil, err
	}
}

// lists asks whether a name is listed at a path.
func lists(path, name string) func(context.Context, *node) (bool, error) {
	return func(ctx context.Context, n *node) (bool, error) {
		names, err := testbed.List(ctx, n, path)
		return slices.Contains(names, name), err
	}
}

// runsPlugin asks whether a standby has a plugin that could answer.
func runsPlugin(_ context.Context, standby *node) (bool, error) {
	plugins, err := standby.process.Children()
	return len(plugins) > 0, err
}

// skipper is the part of a test or of a script's that ends it.
type skipper interface {
	Skip(args ...any)
	Fatal(args ...any)
}

// needs ends a test unless the node's server has a capability. It names server and
// capability, so that nobody takes the test for one that has passed.
func (s *suite) needs(ctx context.Context, t skipper, n *node, name string) {
	c, known := capabilities()[name]
	if !known {
		t.Fatal("there is no capability " + name)
	}
	has, err := c.ask(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if !has {
		version, err := testbed.Output(ctx, "", nil, s.program("vault"), "version")
		if err != nil {
			t.Fatal(err)
		}
		product := strings.Fields(version)[:2]
		t.Skip(fmt.Sprintf("SKIPPED: %s lacks %s", strings.Trim(strings.Join(product, " "), ","), c.what))
	}
}

// needs is the command for scripts, which asks the scenario's server.
func needs(ts *testscript.TestScript, args []string) error {
	sc := scenarioOf(ts)
	for _, name := range args {
		n := &node{Client: testbed.NewClient(ts.Getenv("VAULT_ADDR"), ts.Getenv("VAULT_TOKEN"), 0), process: sc.vault}
		sc.suite.needs(context.Background(), sc.test, n, name)
	}
	return nil
}

// TestServer shows with -v what the server lacks, and so which tests of the others are
// skipped: go test is silent about those of a package that passes.
func TestServer(t *testing.T) {
	s := newSuite(t)
	d := s.startDeclared(t, "server", map[string]any{"command": testbed.PluginName})
	standby := s.startCluster(t, "server-standby", 2).nodes[1]
	for name := range capabilities() {
		t.Run(name, func(t *testing.T) {
			n := d.nodes[0]
			if name == standbyReads {
				n = standby
			}
			s.needs(t.Context(), t, n, name)
		})
	}
	require.NotEmpty(t, capabilities())
}

// startCluster starts a cluster with a scenario of its own, which has one tenant.
func (s *suite) startCluster(t *testing.T, name string, size int) *cluster {
	t.Helper()
	sc := s.startScenario(t, name, "tenant")
	sc.cluster = &cluster{sc: sc}
	require.NoError(t, sc.cluster.start(t.Context(), size))
	return sc.cluster
}
