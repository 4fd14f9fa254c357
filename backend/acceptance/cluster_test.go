// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// clusterSize is the least that survives the loss of a node.
const clusterSize = 3

// cluster is a Vault of several processes that keep their state by Raft, with the
// plugin mounted at mdi/.
type cluster struct {
	sc        *scenario
	nodes     []*node
	unsealKey string
	plugins   string         // folder; "": the suite's
	settings  map[string]any // of the nodes
}

// node is one process of a cluster. Its state outlives the process.
type node struct {
	*testbed.Client
	server  testbed.Server
	process *testbed.Process
}

// startCluster runs a cluster that is unsealed and has an active node.
func startCluster(t *testing.T, sc *scenario) *cluster {
	t.Helper()
	c := &cluster{sc: sc}
	t.Cleanup(c.shutdown)
	require.NoError(t, c.start(t.Context(), clusterSize))
	return c
}

// start runs a number of nodes, the first of which becomes active.
func (c *cluster) start(ctx context.Context, size int) error {
	for i := range size {
		if err := c.addNode(ctx, "vault-"+strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if size > 1 {
			n.server.Join = c.urls()
		}
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	if err := c.initialise(ctx); err != nil {
		return err
	}
	if err := c.unseal(ctx, c.nodes[0]); err != nil {
		return err
	}
	if err := c.mount(ctx); err != nil { // while the node is alone: it cannot lose an election
		return err
	}
	for _, n := range c.nodes[1:] {
		if err := c.unseal(ctx, n); err != nil {
			return err
		}
	}
	return c.awaitVoters(ctx)
}

// startSingle runs a cluster of one node, unsealed and without a mount.
func (c *cluster) startSingle(t *testing.T) {
	t.Helper()
	t.Cleanup(c.shutdown)
	require.NoError(t, c.addNode(t.Context(), "vault-1"))
	require.NoError(t, c.nodes[0].start(t.Context()))
	require.NoError(t, c.initialise(t.Context()))
	c.unsealed(t)
}

// unsealed unseals the one node and returns when it is active.
func (c *cluster) unsealed(t *testing.T) {
	t.Helper()
	n := c.nodes[0]
	require.NoError(t, c.unseal(t.Context(), n))
	require.NoError(t, n.process.Await(t.Context(), func(ctx context.Context) bool { return n.Health(ctx) == http.StatusOK }))
}

// vault runs Vault's command line and returns what it prints.
func (c *cluster) vault(t *testing.T, args ...string) string {
	t.Helper()
	n := c.nodes[0]
	env := slices.Concat(c.sc.env, []string{"VAULT_ADDR=" + n.Address(), "VAULT_TOKEN=" + n.Token()})
	out, err := testbed.Output(t.Context(), c.sc.work, env, c.sc.suite.program("vault"), args...)
	require.NoError(t, err)
	return out
}

func (c *cluster) addNode(ctx context.Context, name string) error {
	address, err := testbed.FreeAddress(ctx)
	if err != nil {
		return err
	}
	server := testbed.Server{
		Binary: c.sc.suite.program("vault"), Name: name, Dir: c.sc.work, Log: filepath.Join(c.sc.logs, name+".log"),
		Plugins: cmp.Or(c.plugins, c.sc.suite.plugins), Env: c.sc.env, Address: address, Storage: testbed.Raft, Level: "trace", Settings: c.settings,
	}
	c.nodes = append(c.nodes, &node{Client: testbed.NewClient(server.URL(), "", requestLimit), server: server})
	return nil
}

// urls returns the addresses of the nodes.
func (c *cluster) urls() []string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, n.Address())
	}
	return urls
}

// start runs the process of a node, which is sealed then.
func (n *node) start(ctx context.Context) (err error) {
	n.process, err = n.server.Start(ctx)
	return err
}

// initialise makes the first node a cluster of one, which the others join.
func (c *cluster) initialise(ctx context.Context) error {
	key, token, err := c.nodes[0].Initialise(ctx)
	c.unsealKey = key
	for _, n := range c.nodes {
		n.Client = n.As(token)
	}
	return err
}

// unseal unseals a node and returns when it is active or stands by. A node that joins
// refuses the key until it has found the others. Once it has taken the key it must not
// get it again: it would be unsealed twice, and be deaf to a step-down.
func (c *cluster) unseal(ctx context.Context, n *node) error {
	taken := false
	return n.process.Await(ctx, func(ctx context.Context) bool {
		if !taken {
			taken = n.Unseal(ctx, c.unsealKey) == nil
		}
		state := n.Health(ctx)
		return state == http.StatusOK || state == http.StatusTooManyRequests
	})
}

// awaitVoters returns when all nodes can take part in an election. A node that joins has
// to prove itself first, for 10 s unless told otherwise.
func (c *cluster) awaitVoters(ctx context.Context) error {
	const path = "sys/storage/raft/autopilot/"
	if err := c.Call(ctx, http.MethodPost, path+"configuration", map[string]string{"server_stabilization_time": "1s"}, nil); err != nil {
		return err
	}
	var state struct {
		Data struct {
			Voters []string `json:"voters"`
		} `json:"data"`
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); pause(ctx, 200*time.Millisecond) {
		if err := c.Call(ctx, http.MethodGet, path+"state", nil, &state); err != nil {
			return err
		}
		if len(state.Data.Voters) == len(c.nodes) {
			return nil
		}
	}
	return fmt.Errorf("of %d nodes only %d can vote", len(c.nodes), len(state.Data.Voters))
}

// mount registers the plugin and enables it at mdi/.
func (c *cluster) mount(ctx context.Context) error {
	return errors.Join(
		testbed.Register(ctx, c, c.sc.suite.plugin(), pluginVersion),
		testbed.Enable(ctx, c, testbed.PluginName, "mdi"),
	)
}

// Call calls whatever node answers, for as long as an election may take.
func (c *cluster) Call(ctx context.Context, method, path string, in, out any) error {
	deadline := time.Now().Add(time.Minute)
	for at := 0; ; at++ {
		err := c.nodes[at%len(c.nodes)].Call(ctx, method, path, in, out)
		refused, ok := errors.AsType[*testbed.StatusError](err)
		if err == nil || ok && refused.Status < http.StatusInternalServerError || time.Now().After(deadline) {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// active returns the node that is active, and since when. That must not be the time
// given: a node that has stepped down may be elected again.
func (c *cluster) active(ctx context.Context, but string) (active *node, since string, err error) {
	var leader struct {
		IsSelf bool   `json:"is_self"`
		Since  string `json:"active_time"`
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); pause(ctx, 50*time.Millisecond) {
		for _, n := range c.nodes {
			asking, cancel := context.WithTimeout(ctx, time.Second) // the node may be frozen
			err := n.Call(asking, http.MethodGet, "sys/leader", nil, &leader)
			cancel()
			if err == nil && leader.IsSelf && leader.Since != but && n.Health(ctx) == http.StatusOK {
				return n, leader.Since, nil
			}
		}
	}
	return nil, "", errors.New("no node has become active in a minute")
}

// restart brings back a node that was killed.
func (c *cluster) restart(ctx context.Context, n *node) error {
	return errors.Join(n.start(ctx), c.unseal(ctx, n))
}

// elections returns how often a node has become active.
func (c *cluster) elections(t *testing.T) int {
	t.Helper()
	return c.logged(t, "acquired lock, enabling active operation")
}

// clients returns the nodes as readers need them.
func (c *cluster) clients() []*testbed.Client {
	var clients []*testbed.Client
	for _, n := range c.nodes {
		clients = append(clients, n.Client)
	}
	return clients
}

func (c *cluster) shutdown() {
	for _, n := range c.nodes {
		if n.process != nil {
			n.process.Stop()
		}
	}
}

// engineStatus is what a test wants to know of mdi/status.
type engineStatus struct {
	Version       int    `json:"key_version"`
	Cause         string `json:"cause"`
	LiveLeases    int    `json:"live_leases"`
	IntentPending bool   `json:"intent_pending"`
	OnWatch       bool   `json:"on_watch"`
}

func (c *cluster) status(ctx context.Context) (engineStatus, error) {
	var answer struct {
		Data engineStatus `json:"data"`
	}
	err := c.Call(ctx, http.MethodGet, "mdi/status", nil, &answer)
	return answer.Data, err
}
