// SPDX-License-Identifier: MPL-2.0

package check

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const alertTestsFile = "../prometheus/alerts_test.yml"

// TestPromtoolTakesTheRecipe runs Prometheus' own linter on the metrics of a healthy engine
// and on the alerts, and the alerts' own tests.
func TestPromtoolTakesTheRecipe(t *testing.T) {
	need(t, "promtool", "prometheus")
	e := configured(t)
	e.read("key")
	promtool(t, rendered(t, e.read("status")), "check", "metrics")
	promtool(t, "", "check", "rules", alertsFile)
	promtool(t, "", "test", "rules", alertTestsFile)
}

// Each alert has a test of when it fires, and one of when it does not.
func TestEachAlertHasTests(t *testing.T) {
	tests := readFile(t, alertTestsFile)
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readFile(t, alertsFile), -1) {
		require.Regexp(t, `\{eval_time: \w+, alertname: `+alert[1]+`\}`, tests)
		require.Regexp(t, `alertname: `+alert[1]+`\n +exp_alerts:`, tests)
	}
}

func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...) //nolint:gosec // this test names the arguments
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "promtool %s: %s", strings.Join(args, " "), out)
	require.NotContains(t, string(out), "error", "a complaint without a status")
}

// TestDashboardOnARealPrometheus runs the whole chain of the recipe, with nothing changed but
// its places and its pace: Vault Agent reads the status, node_exporter serves the file,
// Prometheus scrapes it and evaluates the alerts. Then it asks all that the dashboard asks,
// first of an engine in trouble, whose status has every field, and then of a healthy one.
func TestDashboardOnARealPrometheus(t *testing.T) {
	need(t, "prometheus", "prometheus")
	need(t, "prometheus-node-exporter", "prometheus-node-exporter")
	s := inTrouble(t)
	p := s.monitored()
	s.publishStatus()
	eventually(t, 30*time.Second, "the state is FAILING", func() bool { return p.state() == "FAILING" })
	eventually(t, 30*time.Second, "an alert fires", func() bool { return slices.Contains(p.alerts("firing"), "MdiRegenerationFails") })
	require.Subset(t, p.alerts("pending"), []string{"MdiFailing", "MdiRotateKeyUnconfirmed"})
	for title, queries := range readDashboard(t).queries() {
		for _, query := range queries {
			require.NotEmpty(t, p.query(query), "%s shows nothing: %s", title, query)
		}
	}
	p.draw()

	s.tenant.Clear()
	s.write("mdi/config", map[string]any{"verify_connection": true})
	s.write("mdi/rotate-key", nil)
	s.publishStatus()
	eventually(t, 30*time.Second, "the state is OK", func() bool { return p.state() == "OK" })
	require.Empty(t, p.query(readDashboard(t).queries()["Throttled for"][0]), "it is over")
	eventually(t, 30*time.Second, "no alert is left", func() bool { return len(p.alerts("firing", "pending")) == 0 })
}

// inTrouble returns a server whose engine has found a key that was made in the portal, and
// cannot regenerate it, because Microsoft Graph throttles it. The end of its credential, a
// certificate, is known.
func inTrouble(t *testing.T) *server {
	t.Helper()
	s := startVault(t)
	bundle, err := s.tenant.NewCertificate(graphtest.CertificateRequest{})
	require.NoError(t, err)
	config := testbed.AppFields(s.tenant.Info())
	maps.Copy(config, map[string]any{"client_certificate": bundle, "rotation_period": "24h", "drift_check_interval": "1s"})
	require.NoError(t, s.Mount(t.Context(), testbed.PluginName, "mdi", config))
	require.NoError(t, s.Sys().PutPolicy("monitor", readFile(t, "../../policies/monitor.hcl")))
	s.write("mdi/roles/sensor-hosts", nil)
	s.read("mdi/key/sensor-hosts")
	s.tenant.RegenerateInPortal()
	eventually(t, 10*time.Second, "the key from the portal is found", func() bool {
		s.read("mdi/key/sensor-hosts")
		return s.read("mdi/status")["drift_result"] == "external"
	})
	s.tenant.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: http.StatusTooManyRequests, RetryAfter: "600"})
	for range 3 {
		_, err := s.Logical().WriteWithContext(t.Context(), "mdi/rotate-key", nil)
		require.Error(t, err)
	}
	require.Contains(t, s.read("mdi/status"), "throttled_until")
	s.appRole("monitor")
	return s
}

// publishStatus has the recipe's agent read the status once.
func (s *server) publishStatus() {
	s.t.Helper()
	s.file("mdi.prom.ctmpl", readFile(s.t, metricsFile))
	config := s.file("agent.hcl", adapted(s.t, "../prometheus/agent.hcl", "/etc/mdi-metrics/", s.dir+"/",
		"/var/lib/node_exporter/textfile/", s.textfiles()+"/", "https://vault.example.com:8200", s.Address()))
	out, err := s.output(s.dir, s.env(""), s.binary, "agent", "-config="+config, "-exit-after-auth")
	require.NoError(s.t, err, out)
}

// textfiles is node_exporter's folder.
func (s *server) textfiles() string { return filepath.Join(s.dir, "textfile") }

// prometheus is a server that scrapes the node_exporter of a test.
type prometheus struct {
	t       *testing.T
	address string
}

// monitored starts node_exporter and Prometheus.
func (s *server) monitored() prometheus {
	s.t.Helper()
	require.NoError(s.t, os.Mkdir(s.textfiles(), 0o700))
	exporter, err := testbed.FreeAddress(s.t.Context())
	require.NoError(s.t, err)
	s.start(s.env(""), "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
		"--collector.textfile.directory="+s.textfiles(), "--web.listen-address="+exporter)
	p := prometheus{t: s.t}
	p.address, err = testbed.FreeAddress(s.t.Context())
	require.NoError(s.t, err)
	s.file("alerts.yml", readFile(s.t, alertsFile))
	// Relative, so that the page of the alerts shows no folder.
	s.file("prometheus.yml", `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [alerts.yml]
scrape_configs: [{job_name: node, static_configs: [{targets: ["`+exporter+`"]}]}]
`)
	process := s.start(s.env(""), "sh", "-c", `cd "$0" && exec prometheus "$@"`, s.dir, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--web.listen-address="+p.address)
	require.NoError(s.t, process.Await(s.t.Context(), func(context.Context) bool { return p.get("/-/ready", nil) }))
	return p
}

// get asks Prometheus, and reports whether it answered with success.
func (p prometheus) get(path string, into any) bool {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.address+path, nil)
	require.NoError(p.t, err)
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	if into != nil {
		require.Equal(p.t, http.StatusOK, resp.StatusCode, "%s: %s", path, text)
		require.NoError(p.t, json.Unmarshal(text, into))
	}
	return resp.StatusCode == http.StatusOK
}

type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (p prometheus) query(expr string) []sample {
	p.t.Helper()
	var answer struct{ Data struct{ Result []sample } }
	require.True(p.t, p.get("/api/v1/query?query="+url.QueryEscape(expr), &answer))
	return answer.Data.Result
}

// state is the word that the dashboard's first panel shows.
func (p prometheus) state() string {
	p.t.Helper()
	panel := readDashboard(p.t).Panels[0]
	require.Equal(p.t, "State", panel.Title)
	result := p.query(strings.ReplaceAll(panel.Targets[0].Expr, "$instance", ".*"))
	if len(result) == 0 {
		return panel.FieldConfig.Defaults.NoValue
	}
	require.Len(p.t, result, 1)
	require.NotEmpty(p.t, result[0].Metric["reason"], "the panel's second line")
	return panel.FieldConfig.Defaults.Mappings[0].Options[result[0].Value[1].(string)].Text
}

// alerts returns the names of the alerts in a state, and fails if a rule cannot be evaluated.
func (p prometheus) alerts(states ...string) (names []string) {
	p.t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
	}
	require.True(p.t, p.get("/api/v1/rules", &answer))
	for _, rule := range answer.Data.Groups[0].Rules {
		require.NotEqual(p.t, "err", rule.Health, "%s: %s", rule.Name, rule.LastError)
		if slices.Contains(states, rule.State) {
			names = append(names, rule.Name)
		}
	}
	return names
}

// draw takes the picture of the alerts for docs/operate.md if MDI_UPDATE_DOCS is set.
func (p prometheus) draw() {
	p.t.Helper()
	if os.Getenv("MDI_UPDATE_DOCS") == "" {
		return
	}
	page := "/alerts"
	if !p.get(page, nil) {
		page = "/classic/alerts" // of Debian's Prometheus, which lacks the newer pages
	}
	file, err := filepath.Abs(repository + "/docs/alerts.png")
	require.NoError(p.t, err)
	out, err := exec.CommandContext(p.t.Context(), "chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--user-data-dir="+p.t.TempDir(), //nolint:gosec // a page of this test
		"--window-size=1000,760", "--virtual-time-budget=8000", "--screenshot="+file, "http://"+p.address+page).CombinedOutput()
	require.NoError(p.t, err, string(out))
}
