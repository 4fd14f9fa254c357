// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"

	"github.com/stretchr/testify/require"
)

// program is a running simulator with its directory.
type program struct {
	t    *testing.T
	dir  string
	out  bytes.Buffer
	stop context.CancelFunc
	code chan int
}

// start runs a simulator and returns as soon as the directory says that it is ready.
func start(t *testing.T) *program {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &program{t: t, dir: filepath.Join(t.TempDir(), "sim"), stop: stop, code: make(chan int, 1)}
	go func() {
		p.code <- run(ctx, []string{"serve", "-dir", p.dir}, terminal{nil, &p.out, &p.out})
	}()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(p.dir, infoFile))
		return err == nil
	}, 20*time.Second, time.Millisecond)
	t.Cleanup(stop)
	return p
}

// run runs a command on the simulator.
func (p *program) run(input string, args ...string) (code int, out, problem string) {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{args[0], "-dir", p.dir}, args[1:]...)
	code = run(p.t.Context(), args, terminal{strings.NewReader(input), &stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

// expect runs a command that must succeed and print out.
func (p *program) expect(out string, args ...string) {
	p.t.Helper()
	code, got, problem := p.run("", args...)
	require.Zero(p.t, code, problem)
	require.Equal(p.t, out, got)
	require.Empty(p.t, problem)
}

func (p *program) info() graphtest.Info {
	p.t.Helper()
	info, err := lookup(p.dir)
	require.NoError(p.t, err)
	return info
}

func (p *program) key() string {
	p.t.Helper()
	code, out, _ := p.run("", "issued")
	require.Zero(p.t, code)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func TestServe(t *testing.T) {
	p := start(t)
	info := p.info()
	ca, err := os.ReadFile(filepath.Join(p.dir, caFile))
	require.NoError(t, err)
	require.Equal(t, info.CACertificate, string(ca))
	for _, name := range []string{caFile, infoFile} {
		stat, err := os.Stat(filepath.Join(p.dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), stat.Mode())
	}
	key := p.key()
	p.stop()
	require.Equal(t, exitOK, <-p.code)
	require.NoFileExists(t, filepath.Join(p.dir, infoFile))
	for _, want := range []string{info.URL, info.TenantID, info.ClientID, info.MetadataURL, p.dir} {
		require.NotEmpty(t, want)
		require.Contains(t, p.out.String(), want)
	}
	require.NotContains(t, p.out.String(), info.ClientSecret)
	require.NotContains(t, p.out.String(), info.IdentityHeader)
	require.NotContains(t, p.out.String(), key)
}

func TestServeStopsWithHeldCalls(t *testing.T) {
	p := start(t)
	p.expect("injected\n", "fault", "-operation", "register", "-latency", "1h", "-stubborn")
	failed := make(chan int, 1)
	go func() {
		code, _, _ := p.run("any", "register", "-")
		failed <- code
	}()
	p.expect("register started=1 performed=0 answered=0\n", "wait", "-operation", "register", "-started", "1")
	p.stop()
	require.Equal(t, exitOK, <-p.code)
	require.Equal(t, exitFailure, <-failed)
}

// onWrite calls a function whenever something is written.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// loopback returns the default options of serve.
func loopback(dir string) serveOptions {
	return serveOptions{"127.0.0.1:0", "127.0.0.1:0", dir}
}

func TestServeWithoutDirectory(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	require.NoError(t, serve(ctx, io.MultiWriter(&out, onWrite(cancel)), loopback("")))
	require.Contains(t, out.String(), "set -dir")
}

func TestServeFails(t *testing.T) {
	var out bytes.Buffer
	require.Error(t, serve(t.Context(), &out, serveOptions{address: "no address"}))
	require.Error(t, serve(t.Context(), &out, serveOptions{address: "127.0.0.1:0", metadataAddress: "no address"}))
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Error(t, serve(t.Context(), &out, loopback(file)), "a file is not a directory")
	require.Empty(t, out.String())
}

func TestRegister(t *testing.T) {
	p := start(t)
	key := p.key()
	file := filepath.Join(t.TempDir(), "key.txt")
	require.NoError(t, os.WriteFile(file, []byte(key), 0o600))
	p.expect("registered\n", "register", "-key-file", file)

	code, out, problem := p.run(key, "register", "-")
	require.Equal(t, exitOK, code, problem)
	require.Equal(t, "registered\n", out)

	require.NoError(t, os.WriteFile(file, []byte(key+"\n"), 0o600))
	code, out, problem = p.run("", "register", "-key-file", file)
	require.Equal(t, exitFailure, code)
	require.Equal(t, "refused\n", out)
	require.Empty(t, problem)

	p.expect("regenerated\n", "portal-regenerate")
	code, out, _ = p.run(key, "register", "-")
	require.Equal(t, exitFailure, code)
	require.Equal(t, "refused\n", out)
	p.expect("register started=4 performed=2 answered=4\n", "calls", "register")

	code, _, problem = p.run("", "register", "-key-file", file+".missing")
	require.Equal(t, exitFailure, code)
	require.Contains(t, problem, "key.txt.missing")
}

func TestCalls(t *testing.T) {
	p := start(t)
	_, _, _ = p.run("any", "register", "-")
	p.expect(`instance started=0 performed=0 answered=0
discovery started=0 performed=0 answered=0
token started=0 performed=0 answered=0
regenerate started=0 performed=0 answered=0
get started=0 performed=0 answered=0
package started=0 performed=0 answered=0
register started=1 performed=0 answered=1
managed-identity started=0 performed=0 answered=0
application started=0 performed=0 answered=0
add-password started=0 performed=0 answered=0
remove-password started=0 performed=0 answered=0
add-key started=0 performed=0 answered=0
remove-key started=0 performed=0 answered=0
`, "calls")
	p.expect("get started=0 performed=0 answered=0\n", "calls", "get")
}

func TestFault(t *testing.T) {
	p := start(t)
	p.expect("injected\n", "fault", "-operation", "register", "-status", "429", "-times", "1", "-retry-after", "2")
	code, _, problem := p.run("any", "register", "-")
	require.Equal(t, exitFailure, code)
	require.Contains(t, problem, "429")
	code, out, _ := p.run("any", "register", "-")
	require.Equal(t, exitFailure, code)
	require.Equal(t, "refused\n", out)

	for _, flags := range []string{
		"-operation get -reset -after-work", "-lost -stubborn -latency 5s", "-claims -code X", "-operation get -body html",
		"-operation token -status 401 -code 7000222", "-operation add-password -status 409 -code Directory_ConcurrencyViolation",
	} {
		p.expect("injected\n", append([]string{"fault"}, strings.Fields(flags)...)...)
	}
	p.expect("cleared\n", "clear")
}

func TestWaitTimesOut(t *testing.T) {
	p := start(t)
	code, out, problem := p.run("", "wait", "-operation", "regenerate", "-performed", "1", "-timeout", "1ms")
	require.Equal(t, exitFailure, code)
	require.Empty(t, out)
	require.Contains(t, problem, "waiting for regenerate")
}

func TestTenant(t *testing.T) {
	p := start(t)
	p.expect("changed\n", "tenant", "-roles", "A,B", "-token-lifetime", "5s", "-shape", "root-deploymentAccessKey",
		"-client-secret", "a new secret", "-expire-secret", "-stale-reads", "1")
	p.expect("changed\n", "tenant", "-roles", "")
	code, out, _ := p.run("", "issued")
	require.Zero(t, code)
	require.Contains(t, strings.Split(out, "\n"), "a new secret")
	code, _, problem := p.run("", "tenant", "-shape", "round")
	require.Equal(t, exitFailure, code)
	require.Contains(t, problem, `unknown body shape "round"`)
}

func TestUsage(t *testing.T) {
	p := start(t)
	for name, args := range map[string][]string{
		"unknown flag":       {"calls", "-x"},
		"unknown operation":  {"calls", "gets"},
		"stray argument":     {"clear", "get"},
		"no key":             {"register"},
		"two keys":           {"register", "-key-file", "x", "-"},
		"fault of no effect": {"fault", "-operation", "get"},
		"fault, argument":    {"fault", "get"},
		"wait for nothing":   {"wait", "-operation", "get"},
		"wait, argument":     {"wait", "get"},
		"issued, argument":   {"issued", "get"},
		"no certificate":     {"tenant", "-certificate", "missing.pem"},
		"no number":          {"tenant", "-propagation", "2,one"},
		"nowhere to write":   {"certificate"},
		"out without dash":   {"assertion", "out"},
		"id without flag":    {"credentials", "id"},
		"serve, argument":    {"serve", "now"},
		"unknown command":    {"start"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, problem := p.run("", args...)
			require.Equal(t, exitUsage, code)
			require.Empty(t, out)
			require.Contains(t, problem, "mdi-simulator: ")
		})
	}
	code, out, usage := p.run("", "issued", "-h")
	require.Equal(t, exitOK, code)
	require.Empty(t, out)
	require.Contains(t, usage, "Usage: mdi-simulator issued")
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"help", "-h", "-help", "--help"} {
		var out, problem bytes.Buffer
		require.Equal(t, exitOK, run(t.Context(), []string{arg}, terminal{nil, &out, &problem}))
		require.Contains(t, out.String(), "Usage: mdi-simulator COMMAND")
		require.Contains(t, out.String(), "portal-regenerate")
		require.Empty(t, problem.String())
	}
}

func TestNoSimulator(t *testing.T) {
	t.Setenv(dirVariable, "")
	var problem bytes.Buffer
	none := terminal{nil, &problem, &problem}
	require.Equal(t, exitUsage, run(t.Context(), nil, none))
	require.Contains(t, problem.String(), "portal-regenerate")
	require.Equal(t, exitUsage, run(t.Context(), []string{"calls"}, none), "neither flag nor variable")

	dir := t.TempDir()
	t.Setenv(dirVariable, dir)
	require.Equal(t, exitFailure, run(t.Context(), []string{"calls"}, none))
	require.Contains(t, problem.String(), "no simulator answers")

	require.NoError(t, publish(dir, graphtest.Info{CACertificate: "none"}))
	require.Equal(t, exitFailure, run(t.Context(), []string{"calls"}, none))
}
