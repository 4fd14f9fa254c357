// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"vault-plugin-secrets-mdi/backend/graphtest"
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
	vault   *process
	tenants []*tenant
	proxies []*process
	readers *readers // or nil

	vaultEnv []string // of Vault besides
}

// tenant is a simulator that runs as a process.
type tenant struct {
	process *process
	client  *graphtest.Client
	info    graphtest.Info
}

type scenarioKey struct{}

// newScenario returns a scenario that runs in a folder. It has nothing yet.
func (s *suite) newScenario(work string) (*scenario, error) {
	sc := &scenario{
		suite: s,
		work:  work,
		logs:  filepath.Join(s.logs, filepath.Base(work)),
		env:   []string{"PATH=" + os.Getenv("PATH"), "HOME=" + work, "TMPDIR=" + s.sockets},
	}
	return sc, os.Mkdir(sc.logs, 0o700)
}

// setup prepares what a script starts with: see the package's documentation.
func (s *suite) setup(env *testscript.Env) error {
	sc, err := s.newScenario(env.WorkDir)
	if err != nil {
		return err
	}
	env.Values[scenarioKey{}] = sc
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

// vaultPort keeps scenarios from choosing the same port at the same time.
var vaultPort sync.Mutex

// startVault runs a Vault and returns its address. Another program may take the
// port that was just free, hence the attempts.
func (sc *scenario) startVault() (address string, err error) {
	vaultPort.Lock()
	defer vaultPort.Unlock()
	for range 5 {
		address, err = sc.tryVault()
		if err == nil {
			return address, nil
		}
	}
	return "", err
}

func (sc *scenario) tryVault() (string, error) {
	listen, err := freeAddress()
	if err != nil {
		return "", err
	}
	sc.vault, err = start(filepath.Join(sc.logs, "vault.log"), slices.Concat(sc.env, sc.vaultEnv), filepath.Join(sc.suite.bin, "vault"),
		"server", "-dev", "-log-level=trace", "-dev-no-store-token", "-dev-root-token-id="+rootToken,
		"-dev-plugin-dir="+sc.suite.plugins, "-dev-listen-address="+listen)
	if err != nil {
		return "", err
	}
	address := "http://" + listen
	if err := sc.vault.await(func() bool { return health(address) == http.StatusOK }); err != nil {
		sc.vault.shutdown()
		sc.vault = nil
		return "", err
	}
	return address, nil
}

// Ports for servers are below those that Linux gives to outgoing connections, from
// 32768 on: a node of a cluster needs its own again after it has been away.
const (
	firstPort = 10000
	lastPort  = 32000
)

// freeAddress returns a loopback address whose port is free together with the next
// one, which Vault uses as well.
func freeAddress() (string, error) {
	for range 50 {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // any will do
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if isFree(address) && isFree(net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))) {
			return address, nil
		}
	}
	return "", errors.New("no two free ports in a row")
}

func isFree(address string) bool {
	listen := net.ListenConfig{}
	l, err := listen.Listen(context.Background(), "tcp", address)
	return err == nil && l.Close() == nil
}

// health returns how Vault answers the question for its state: 200 active, 429 standby,
// 501 not initialised, 503 sealed; 0: not at all.
func health(address string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return newAPI(address, "").read(ctx, "sys/health").status
}

// startTenant runs a simulator in the folder of that name, with the configuration
// that uses it.
func (sc *scenario) startTenant(name string) error {
	dir := filepath.Join(sc.work, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p, err := start(filepath.Join(sc.logs, name+".log"), sc.env, filepath.Join(sc.suite.bin, simulatorName), "serve", "-dir", dir)
	if err != nil {
		return err
	}
	t := &tenant{process: p}
	sc.tenants = append(sc.tenants, t)
	var text []byte
	err = p.await(func() bool {
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
	fields := map[string]string{
		"tenant_id":      info.TenantID,
		"client_id":      info.ClientID,
		"graph_endpoint": info.URL,
		"authority_host": info.URL,
		"ca_certificate": info.CACertificate,
	}
	if err := writeJSON(filepath.Join(dir, "app.json"), fields); err != nil {
		return err
	}
	fields["client_secret"] = info.ClientSecret
	return writeJSON(filepath.Join(dir, "config.json"), fields)
}

func writeJSON(file string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// end stops all processes and takes down what secrets there were. Of a scenario
// that failed it shows what Vault and the plugin complained about.
func (sc *scenario) end(t interface{ Log(args ...any) }) {
	if sc.readers != nil {
		sc.readers.end()
	}
	if sc.vault != nil {
		sc.vault.shutdown()
	}
	for _, tenant := range sc.tenants {
		if err := sc.suite.evidence.collect(sc.logs, tenant); err != nil {
			t.Log(err)
		}
		tenant.process.shutdown()
	}
	for _, proxy := range sc.proxies {
		proxy.shutdown()
	}
	if test, ok := t.(interface{ Failed() bool }); ok && test.Failed() {
		logs, _ := filepath.Glob(filepath.Join(sc.logs, "vault*.log"))
		for _, log := range logs {
			t.Log(complaints(log))
		}
	}
}

// complaints returns the warnings and errors of a log, the last 20 of them.
func complaints(log string) string {
	text, err := os.ReadFile(log) //nolint:gosec // of this scenario
	if err != nil {
		return fmt.Sprintf("no log of Vault: %v", err)
	}
	lines := []string{"warnings and errors in " + filepath.Base(log) + ":"}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "[WARN]") || strings.Contains(line, "[ERROR]") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(append(lines[:1], lines[max(1, len(lines)-20):]...), "\n")
}
