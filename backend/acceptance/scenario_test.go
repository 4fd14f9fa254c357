// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// rootToken is that of every Vault here, each of which lives for one scenario and
// listens on the loopback interface.
const rootToken = "root"

// scenario is one script with its Vault and its tenants.
type scenario struct {
	suite   *suite
	work    string
	logs    string
	env     []string // of the servers
	vault   *testbed.Process
	tenants []*tenant
	proxies []*testbed.Process
	cluster *cluster            // or nil
	test    skipper             // of a script
	readers map[string]*readers // by path
	output  bytes.Buffer        // of the command lines

	vaultEnv []string // of Vault besides
}

// tenant is a simulator that runs as a process.
type tenant struct {
	process *testbed.Process
	client  *graphtest.Client
	info    graphtest.Info
}

type scenarioKey struct{}

// newScenario returns a scenario that runs in a folder. It has nothing yet.
func (s *suite) newScenario(work string) (*scenario, error) {
	sc := &scenario{
		suite:   s,
		work:    work,
		logs:    filepath.Join(s.logs, filepath.Base(work)),
		env:     testbed.Environment(work, s.sockets),
		readers: map[string]*readers{},
	}
	return sc, os.Mkdir(sc.logs, 0o700)
}

// startScenario returns a scenario in a folder of its own, with a tenant for each name.
func (s *suite) startScenario(t *testing.T, name string, tenants ...string) *scenario {
	t.Helper()
	work := filepath.Join(s.work, name)
	require.NoError(t, os.Mkdir(work, 0o700))
	sc, err := s.newScenario(work)
	require.NoError(t, err)
	t.Cleanup(func() { sc.end(t) })
	for _, tenant := range tenants {
		require.NoError(t, sc.startTenant(tenant))
	}
	return sc
}

// setup prepares what a script starts with: see the package's documentation.
func (s *suite) setup(env *testscript.Env) error {
	sc, err := s.newScenario(env.WorkDir)
	if err != nil {
		return err
	}
	env.Values[scenarioKey{}], sc.test = sc, env.T()
	env.Defer(func() { sc.end(env.T()) })
	if err := sc.startTenant("tenant"); err != nil {
		return err
	}
	address, err := sc.startVault()
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"PATH":              s.bin + string(os.PathListSeparator) + env.Getenv("PATH"),
		"HOME":              env.WorkDir,
		"SCRIPTS":           s.scripts,
		"LOGS":              sc.logs,
		"MDI_SIMULATOR_DIR": filepath.Join(env.WorkDir, "tenant"),
		"TENANT_HOST":       strings.TrimPrefix(sc.tenants[0].info.URL, "https://"),
		"VAULT_ADDR":        address,
		"VAULT_TOKEN":       rootToken,
		// A scenario counts requests, and says itself what is worth repeating.
		"VAULT_MAX_RETRIES": "0",
	} {
		env.Setenv(name, value)
	}
	return nil
}

// startVault runs a Vault and returns its address. Another program may take the
// port that was just free, hence the attempts.
func (sc *scenario) startVault() (address string, err error) {
	for range 5 {
		address, err = sc.tryVault()
		if err == nil {
			return address, nil
		}
	}
	return "", err
}

func (sc *scenario) tryVault() (string, error) {
	ctx := context.Background()
	listen, err := testbed.FreeAddress(ctx)
	if err != nil {
		return "", err
	}
	sc.vault, err = testbed.Start(filepath.Join(sc.logs, "vault.log"), slices.Concat(sc.env, sc.vaultEnv), sc.suite.program("vault"),
		"server", "-dev", "-log-level=trace", "-dev-no-store-token", "-dev-root-token-id="+rootToken,
		"-dev-plugin-dir="+sc.suite.plugins, "-dev-listen-address="+listen)
	if err != nil {
		return "", err
	}
	client := testbed.NewClient("http://"+listen, "", 0)
	defer client.CloseIdle()
	if err := sc.vault.Await(ctx, func(ctx context.Context) bool { return client.Health(ctx) == http.StatusOK }); err != nil {
		sc.vault.Stop()
		sc.vault = nil
		return "", err
	}
	return client.Address(), nil
}

// startTenant runs a simulator in the folder of that name, with the configuration
// that uses it.
func (sc *scenario) startTenant(name string) error {
	dir := filepath.Join(sc.work, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p, err := testbed.Start(filepath.Join(sc.logs, name+".log"), sc.env, sc.suite.program(simulatorName), "serve", "-dir", dir)
	if err != nil {
		return err
	}
	t := &tenant{process: p}
	sc.tenants = append(sc.tenants, t)
	var text []byte
	err = p.Await(context.Background(), func(context.Context) bool {
		text, err = os.ReadFile(filepath.Join(dir, "simulator.json")) //nolint:gosec // of this scenario
		return err == nil
	})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &t.info); err != nil {
		return err
	}
	if t.client, err = graphtest.NewClient(t.info); err != nil {
		return err
	}
	return writeConfigs(dir, t.info)
}

// writeConfigs writes the fields of mdi/config that lead to a simulator: without a
// credential, and with the secret.
func writeConfigs(dir string, info graphtest.Info) error {
	return errors.Join(
		writeJSON(filepath.Join(dir, "app.json"), testbed.AppFields(info)),
		writeJSON(filepath.Join(dir, "config.json"), testbed.ConfigFields(info)),
	)
}

func writeJSON(file string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// shown takes down what a command line has shown.
func (sc *scenario) shown(text string) { sc.output.WriteString(text) }

// keepOutput puts what was shown beside the logs, so that secrets are looked for in it.
func (sc *scenario) keepOutput() error {
	if sc.output.Len() == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(sc.logs, "output.log"), sc.output.Bytes(), 0o600)
}

// end stops all processes and takes down what secrets there were. Of a scenario
// that failed it shows what Vault and the plugin complained about.
func (sc *scenario) end(t interface{ Log(args ...any) }) {
	for _, readers := range sc.readers {
		readers.end()
	}
	if err := sc.keepOutput(); err != nil {
		t.Log(err)
	}
	if sc.vault != nil {
		sc.vault.Stop()
	}
	if sc.cluster != nil {
		sc.cluster.shutdown()
	}
	for _, tenant := range sc.tenants {
		if err := sc.suite.evidence.collect(sc.logs, tenant); err != nil {
			t.Log(err)
		}
		tenant.process.Stop()
	}
	for _, proxy := range sc.proxies {
		proxy.Stop()
	}
	if test, ok := t.(interface{ Failed() bool }); ok && test.Failed() {
		logs, _ := filepath.Glob(filepath.Join(sc.logs, "vault*.log"))
		for _, log := range logs {
			lines, err := testbed.Complaints(log)
			if err != nil {
				t.Log(err)
			}
			t.Log("warnings and errors in " + filepath.Base(log) + ":\n" + strings.Join(lines, "\n"))
		}
	}
}
