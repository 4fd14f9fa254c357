// SPDX-License-Identifier: MPL-2.0

package check

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// grafanaStandIn notes what it is started with, in the folder that it keeps its data in.
const grafanaStandIn = `#!/bin/sh
/bin/mkdir "$GF_PATHS_DATA"
/usr/bin/env >"$GF_PATHS_DATA/env"
exec /bin/sleep 600
`

// TestDevShowsTheDashboard runs what make dev runs. Prometheus is a real one; Grafana is not, so
// the test reads what Grafana would.
func TestDevShowsTheDashboard(t *testing.T) {
	need(t, "prometheus", "prometheus")
	dev := buildDev(t)
	for name, c := range map[string]struct {
		with  []string
		lacks string
	}{
		"with both":          {with: []string{"prometheus", "grafana"}},
		"with an older name": {with: []string{"prometheus", "grafana-server"}},
		"without Grafana":    {with: []string{"prometheus"}, lacks: "grafana"},
		"without Prometheus": {with: []string{"grafana"}, lacks: "prometheus"},
	} {
		t.Run(name, func(t *testing.T) {
			said := dev.run(t, c.with...)
			if c.lacks != "" {
				require.Equal(t, "No dashboard: it needs Prometheus and Grafana, and "+c.lacks+" is not on PATH.", strings.Split(said, "\n")[0])
				return
			}
			site := regexp.MustCompile(`^Dashboard.*: http://(127\.0\.0\.1:\d+)/d/(\w+)\n`).FindStringSubmatch(said)
			alerts := regexp.MustCompile(`alerts: http://(\S+)/alerts\n`).FindStringSubmatch(said)
			require.True(t, site != nil && alerts != nil, said)
			p := prometheus{t: t, address: alerts[1]}
			eventually(t, time.Minute, "Prometheus is ready", func() bool { return p.get("/-/ready", nil) })
			eventually(t, time.Minute, "the dashboard's state is OK", func() bool { return p.state() == "OK" })
			require.Empty(t, p.alerts("firing"))

			folder := filepath.Dir(regexp.MustCompile(`Their logs: (\S+)\n`).FindStringSubmatch(said)[1])
			env := readFile(t, filepath.Join(folder, "grafana", "env"))
			require.Contains(t, env, "GF_SERVER_HTTP_ADDR=127.0.0.1\n")
			require.Contains(t, env, "GF_SERVER_HTTP_PORT="+strings.TrimPrefix(site[1], "127.0.0.1:")+"\n")
			provisioning := regexp.MustCompile(`(?m)^GF_PATHS_PROVISIONING=(.*)$`).FindStringSubmatch(env)[1]
			sources := yamlDocuments(t, filepath.Join(provisioning, "datasources", "mdi.yml"))[0]
			require.Equal(t, "http://"+p.address, at(t, at(t, sources, "datasources").([]any)[0], "url"))
			providers := yamlDocuments(t, filepath.Join(provisioning, "dashboards", "mdi.yml"))[0]
			shown := at(t, at(t, providers, "providers").([]any)[0], "options", "path").(string)
			var d dashboard
			require.NoError(t, json.Unmarshal([]byte(readFile(t, filepath.Join(shown, "mdi.json"))), &d))
			require.Equal(t, d.UID, site[2])
		})
	}
}

// devServer is the development server, built, and the programs that it needs.
type devServer struct{ root, binary, vault string }

func buildDev(t *testing.T) devServer {
	t.Helper()
	found, err := programs()
	require.NoError(t, err)
	_, err = testbed.Output(t.Context(), found.Root, nil, "make", "--no-print-directory", "simulator")
	require.NoError(t, err)
	binary := filepath.Join(t.TempDir(), "mdi-dev")
	_, err = testbed.Output(t.Context(), found.Root, nil, "go", "build", "-o", binary, "./scripts/dev")
	require.NoError(t, err)
	return devServer{root: found.Root, binary: binary, vault: found.Vault}
}

// run runs the server until the test ends, with nothing but its own programs and those with
// these names on PATH. It returns the end of what the server says, which has no token.
func (d devServer) run(t *testing.T, with ...string) string {
	t.Helper()
	bin := t.TempDir()
	links := map[string]string{"vault": d.vault, "mdi-simulator": filepath.Join(d.root, ".cache", "bin", "mdi-simulator")}
	for _, program := range with {
		links[program] = filepath.Join(bin, "stand-in")
	}
	if slices.Contains(with, "prometheus") {
		program, err := exec.LookPath("prometheus")
		require.NoError(t, err)
		links["prometheus"] = program
	}
	require.NoError(t, os.WriteFile(filepath.Join(bin, "stand-in"), []byte(grafanaStandIn), 0o700)) //nolint:gosec // it is to be run
	for name, file := range links {
		require.NoError(t, os.Symlink(file, filepath.Join(bin, name)))
	}

	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, d.binary) //nolint:gosec // built above
	cmd.Dir, cmd.Env, cmd.Stderr = d.root, []string{"PATH=" + bin, "HOME=" + bin}, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it is no failure to be stopped
	})
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C"); {
		said.WriteString(lines.Text() + "\n")
	}
	_, end, _ := strings.Cut(said.String(), "mdi-simulator calls\n\n")
	return end
}
