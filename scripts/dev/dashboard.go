// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// examples has the recipe's files, which docs/integrations.md describes.
const examples = "scripts/integrations/"

// startDashboard has Grafana show the engine's status, and returns a line for the user: where,
// or what is missing. It is the recipe, but for its pace and for node_exporter, in whose place
// this process serves the metrics.
func (s *server) startDashboard(ctx context.Context) (string, error) {
	grafana := []string{"grafana", "server"}
	if _, err := exec.LookPath(grafana[0]); err != nil {
		grafana = []string{"grafana-server"} // of older releases
	}
	for _, program := range []string{"prometheus", grafana[0]} {
		if _, err := exec.LookPath(program); err != nil {
			return "No dashboard: it needs Prometheus and Grafana, and " + strings.TrimSuffix(program, "-server") + " is not on PATH.", nil
		}
	}
	metrics, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	prometheus, errPrometheus := testbed.FreeAddress(ctx, 9090)
	site, errSite := testbed.FreeAddress(ctx, 3000)
	root, errRoot := os.Getwd()
	if err := errors.Join(err, errPrometheus, errSite, errRoot); err != nil {
		return "", err
	}
	go func() { // until this process ends
		_ = http.Serve(metrics, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // only this machine asks
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			http.ServeFile(w, r, s.file("mdi.prom"))
		}))
	}()

	datasource, err := os.ReadFile(examples + "grafana/provisioning/datasources/mdi.yml")
	dashboards, errDashboards := os.ReadFile(examples + "grafana/provisioning/dashboards/mdi.yml")
	errs := []error{err, errDashboards}
	for name, text := range map[string]string{
		"token": s.vault.Token(),
		"agent.hcl": fmt.Sprintf("vault { address = %q }\nauto_auth { method \"token_file\" { config = { token_file_path = %q } } }\n"+
			"template_config { static_secret_render_interval = \"5s\" }\ntemplate {\n source = %q\n destination = %q\n}\n",
			s.vault.Address(), s.file("token"), examples+"prometheus/mdi.prom.ctmpl", s.file("mdi.prom")),
		"prometheus.yml": fmt.Sprintf("global: {scrape_interval: 5s, evaluation_interval: 5s}\nrule_files: [%q]\n"+
			"scrape_configs: [{job_name: node, static_configs: [{targets: [%q]}]}]\n", filepath.Join(root, examples, "prometheus/alerts.yml"), metrics.Addr()),
		"provisioning/datasources/mdi.yml": strings.ReplaceAll(string(datasource), "localhost:9090", prometheus),
		"provisioning/dashboards/mdi.yml":  strings.ReplaceAll(string(dashboards), "/var/lib/grafana/dashboards", filepath.Join(root, examples, "grafana")),
	} {
		errs = append(errs, os.MkdirAll(filepath.Dir(s.file(name)), 0o700), os.WriteFile(s.file(name), []byte(text), 0o600))
	}
	_, port, _ := net.SplitHostPort(site)
	settings := []string{
		"GF_SERVER_HTTP_ADDR=127.0.0.1", "GF_SERVER_HTTP_PORT=" + port, "GF_AUTH_ANONYMOUS_ENABLED=true",
		"GF_PATHS_PROVISIONING=" + s.file("provisioning"), "GF_PATHS_DATA=" + s.file("grafana"), "GF_PATHS_LOGS=" + s.file("grafana"),
	}
	for _, program := range [][]string{
		{"vault", "agent", "-config=" + s.file("agent.hcl")},
		{"prometheus", "--config.file=" + s.file("prometheus.yml"), "--storage.tsdb.path=" + s.file("tsdb"), "--web.listen-address=" + prometheus},
		append(grafana, "--homepath=/usr/share/grafana"), // where its packages put it
	} {
		process, err := testbed.Start(s.file("dashboard-"+program[0]+".log"), append(environment(), settings...), program[0], program[1:]...)
		if errs = append(errs, err); err == nil {
			s.watchers = append(s.watchers, process)
		}
	}
	return fmt.Sprintf("Dashboard, in a moment: http://%s/d/mdi\nIts alerts: http://%s/alerts\nTheir logs: %s", site, prometheus, s.file("dashboard-*.log")), errors.Join(errs...)
}
