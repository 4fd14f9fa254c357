// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clusterSize is the least that survives the loss of a node.
const clusterSize = 3

// cluster is a Vault of several processes that keep their state by Raft, with the
// plugin mounted at mdi/.
type cluster struct {
	sc        *scenario
	nodes     []*node
	unsealKey string
}

// node is one process of a cluster. Its state outlives the process.
type node struct {
	*api
	config, log string
	process     *process
}

// startCluster runs a cluster that is unsealed and has an active node.
func startCluster(t *testing.T, sc *scenario) *cluster {
	t.Helper()
	vaultPort.Lock()
	defer vaultPort.Unlock()
	c := &cluster{sc: sc}
	t.Cleanup(c.shutdown)
	for i := range clusterSize {
		require.NoError(t, c.addNode(i+1))
	}
	for _, n := range c.nodes {
		require.NoError(t, c.configure(n))
		require.NoError(t, c.start(n))
	}
	require.NoError(t, c.initialise(t.Context()))
	require.NoError(t, c.unseal(t.Context(), c.nodes[0]))
	require.NoError(t, c.mount(t.Context())) // while the node is alone: it cannot lose an election
	for _, n := range c.nodes[1:] {
		require.NoError(t, c.unseal(t.Context(), n))
	}
	require.NoError(t, c.awaitVoters(t.Context()))
	return c
}

func (c *cluster) addNode(number int) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	name := "vault-" + strconv.Itoa(number)
	c.nodes = append(c.nodes, &node{
		api:    newAPI("http://"+address, ""),
		config: filepath.Join(c.sc.work, name+".hcl"),
		log:    filepath.Join(c.sc.logs, name+".log"),
	})
	return os.Mkdir(filepath.Join(c.sc.work, name), 0o700)
}

// configure writes the configuration of a node. All addresses are known by then.
func (c *cluster) configure(n *node) error {
	listen := strings.TrimPrefix(n.address, "http://")
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	var join strings.Builder
	for _, other := range c.nodes {
		fmt.Fprintf(&join, "  retry_join { leader_api_addr = %q }\n", other.address)
	}
	name := strings.TrimSuffix(filepath.Base(n.config), ".hcl")
	return os.WriteFile(n.config, fmt.Appendf(nil, `
storage "raft" {
  path                   = %q
  node_id                = %q
  performance_multiplier = 1
%s}
listener "tcp" {
  address     = %q
  tls_disable = true
}
api_addr         = %q
cluster_addr     = "https://%s"
plugin_directory = %q
disable_mlock    = true
log_level        = "trace"
`, filepath.Join(c.sc.work, name), name, &join, listen, n.address, net.JoinHostPort(host, strconv.Itoa(first+1)), c.sc.suite.plugins), 0o600)
}

// start runs the process of a node, which is sealed then.
func (c *cluster) start(n *node) (err error) {
	n.process, err = start(n.log, c.sc.env, filepath.Join(c.sc.suite.bin, "vault"), "server", "-config="+n.config)
	if err != nil {
		return err
	}
	return n.process.await(func() bool { return health(n.address) != 0 })
}

// initialise makes the first node a cluster of one, which the others join.
func (c *cluster) initialise(ctx context.Context) error {
	var secrets struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	in := map[string]int{"secret_shares": 1, "secret_threshold": 1}
	if err := c.nodes[0].call(ctx, http.MethodPut, "sys/init", in, &secrets); err != nil {
		return err
	}
	c.unsealKey = secrets.Keys[0]
	for _, n := range c.nodes {
		n.token = secrets.RootToken
	}
	return nil
}

// unseal unseals a node and returns when it is active or stands by. A node that joins
// refuses the key until it has found the others. Once it has taken the key it must not
// get it again: it would be unsealed twice, and be deaf to a step-down.
func (c *cluster) unseal(ctx context.Context, n *node) error {
	taken := false
	return n.process.await(func() bool {
		if !taken {
			taken = n.call(ctx, http.MethodPut, "sys/unseal", map[string]string{"key": c.unsealKey}, nil) == nil
		}
		state := health(n.address)
		return state == http.StatusOK || state == http.StatusTooManyRequests
	})
}

// awaitVoters returns when all nodes can take part in an election. A node that joins has
// to prove itself first, for 10 s unless told otherwise.
func (c *cluster) awaitVoters(ctx context.Context) error {
	const path = "sys/storage/raft/autopilot/"
	if err := c.call(ctx, http.MethodPost, path+"configuration", map[string]string{"server_stabilization_time": "1s"}, nil); err != nil {
		return err
	}
	var state struct {
		Data struct {
			Voters []string `json:"voters"`
		} `json:"data"`
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); pause(ctx, 200*time.Millisecond) {
		if err := c.call(ctx, http.MethodGet, path+"state", nil, &state); err != nil {
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
	binary, err := os.ReadFile(filepath.Join(c.sc.suite.plugins, pluginName))
	if err != nil {
		return err
	}
	return errors.Join(
		c.call(ctx, http.MethodPut, "sys/plugins/catalog/secret/"+pluginName, map[string]string{
			"sha256": fmt.Sprintf("%x", sha256.Sum256(binary)), "command": pluginName, "version": pluginVersion,
		}, nil),
		c.call(ctx, http.MethodPost, "sys/mounts/mdi", map[string]string{"type": pluginName}, nil),
	)
}

// call calls whatever node answers, for as long as an election may take.
func (c *cluster) call(ctx context.Context, method, path string, in, out any) error {
	deadline := time.Now().Add(time.Minute)
	for at := 0; ; at++ {
		err := c.nodes[at%len(c.nodes)].call(ctx, method, path, in, out)
		refused, ok := errors.AsType[*apiError](err)
		if err == nil || ok && refused.status < http.StatusInternalServerError || time.Now().After(deadline) {
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
			err := n.call(ctx, http.MethodGet, "sys/leader", nil, &leader)
			if err == nil && leader.IsSelf && leader.Since != but && health(n.address) == http.StatusOK {
				return n, leader.Since, nil
			}
		}
	}
	return nil, "", errors.New("no node has become active in a minute")
}

// restart brings back a node that was killed.
func (c *cluster) restart(ctx context.Context, n *node) error {
	return errors.Join(c.start(n), c.unseal(ctx, n))
}

// elections returns how often a node has become active.
func (c *cluster) elections(t *testing.T) int {
	t.Helper()
	count := 0
	for _, n := range c.nodes {
		text, err := os.ReadFile(n.log)
		require.NoError(t, err)
		count += strings.Count(string(text), "acquired lock, enabling active operation")
	}
	return count
}

// apis returns the nodes as readers need them.
func (c *cluster) apis() []*api {
	var apis []*api
	for _, n := range c.nodes {
		apis = append(apis, n.api)
	}
	return apis
}

func (c *cluster) shutdown() {
	for _, n := range c.nodes {
		if n.process != nil {
			n.process.shutdown()
		}
	}
}

// list returns the names at a path, none if there is nothing.
func (c *cluster) list(ctx context.Context, path string) ([]string, error) {
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := c.call(ctx, http.MethodGet, path+"?list=true", nil, &answer)
	if refused, ok := errors.AsType[*apiError](err); ok && refused.status == http.StatusNotFound {
		return nil, nil
	}
	return answer.Data.Keys, err
}

// irrevocable returns how many leases Vault has given up revoking.
func (c *cluster) irrevocable(ctx context.Context) (int, error) {
	var answer struct {
		Data struct {
			Count int `json:"lease_count"`
		} `json:"data"`
	}
	err := c.call(ctx, http.MethodGet, "sys/leases?type=irrevocable", nil, &answer)
	return answer.Data.Count, err
}

// engineStatus is what a test wants to know of mdi/status.
type engineStatus struct {
	Version       int    `json:"key_version"`
	Cause         string `json:"cause"`
	LiveLeases    int    `json:"live_leases"`
	IntentPending bool   `json:"intent_pending"`
}

func (c *cluster) status(ctx context.Context) (engineStatus, error) {
	var answer struct {
		Data engineStatus `json:"data"`
	}
	err := c.call(ctx, http.MethodGet, "mdi/status", nil, &answer)
	return answer.Data, err
}

// settings are the fields of mdi/config that lead to a tenant.
func settings(tenantDir string) (map[string]any, error) {
	text, err := os.ReadFile(filepath.Join(tenantDir, "config.json")) //nolint:gosec // of this scenario
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	return fields, json.Unmarshal(text, &fields)
}
