// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// restartVault starts another Vault in the place of the scenario's, which has nothing
// of what the first one stored, in an environment that the plugin inherits.
func restartVault(ts *testscript.TestScript, args []string) error {
	for _, arg := range args {
		if !strings.Contains(arg, "=") {
			return fmt.Errorf("expected NAME=VALUE and not %s", arg)
		}
	}
	sc := scenarioOf(ts)
	sc.vault.Stop()
	sc.vault, sc.vaultEnv = nil, args
	address, err := sc.startVault()
	if err != nil {
		return err
	}
	ts.Setenv("VAULT_ADDR", address)
	return nil
}

// startRaft starts a cluster in the place of the scenario's Vault, with storage on disk that
// sys/raw can write, and with the plugin mounted at mdi/.
func startRaft(ts *testscript.TestScript, args []string) error {
	sc := scenarioOf(ts)
	if len(args) != 1 || sc.cluster != nil {
		return errors.New("usage: start-raft N, once")
	}
	size, err := positive(args[0])
	if err != nil {
		return err
	}
	sc.vault.Stop()
	sc.vault = nil
	sc.cluster = &cluster{sc: sc, settings: map[string]any{"raw_storage_endpoint": true}}
	if err := sc.cluster.start(context.Background(), size); err != nil {
		return err
	}
	ts.Setenv("VAULT_ADDR", sc.cluster.nodes[0].Address())
	ts.Setenv("VAULT_TOKEN", sc.cluster.nodes[0].Token())
	return nil
}

// blackHole opens a port for the length of the scenario, on which connections are
// made, and nobody ever says a word.
func blackHole(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: black-hole NAME")
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ts.Defer(func() { _ = ln.Close() })
	ts.Setenv(args[0], ln.Addr().String())
	return nil
}

// startProxy runs a forward proxy in the folder of that name.
func startProxy(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("start-proxy needs a name, and flags of the proxy")
	}
	for i, arg := range args {
		if arg == "-intercept" && i+1 < len(args) {
			args[i+1] = ts.MkAbs(args[i+1])
		}
	}
	return scenarioOf(ts).startProxy(args[0], args[1:]...)
}

// startProxy runs a forward proxy, which writes its URL into the folder of that name.
func (sc *scenario) startProxy(name string, flags ...string) error {
	dir := filepath.Join(sc.work, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p, err := testbed.Start(filepath.Join(sc.logs, name+".log"), sc.env, sc.suite.program(proxyName),
		slices.Concat([]string{"-dir", dir}, flags)...)
	if err != nil {
		return err
	}
	sc.proxies = append(sc.proxies, p)
	err = p.Await(context.Background(), func(context.Context) bool {
		_, err := os.Stat(filepath.Join(dir, "proxy.json"))
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("starting the proxy: %w", err)
	}
	return nil
}
