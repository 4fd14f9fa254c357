// SPDX-License-Identifier: MPL-2.0

// Command upgrade records what a release leaves behind, for the tests of later versions:
//
//	upgrade TAG FOLDER
//
// It builds the plugin of the tag and uses it in a real Vault. server.snap is a snapshot
// of that Vault, which server.json describes; mounts.json has the states of further
// mounts, each with its own tenant. See package upgradetest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
	"example.com/vault-plugin-secrets-mdi/scripts/upgrade/mounts"
)

// Only the proxy knows where these names of the first tenant lead: a test can be the same
// tenant again on any day and at any port.
const (
	loginHost = "login.upgrade.test"
	graphHost = "graph.upgrade.test"
)

func main() { command.Main(run) }

func run(ctx context.Context, arguments []string) (err error) {
	if len(arguments) != 2 {
		return errors.New("usage: upgrade TAG FOLDER")
	}
	tag, into := arguments[0], arguments[1]
	dir, err := os.MkdirTemp("", "mdi-upgrade")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	plugin := filepath.Join(dir, testbed.PluginName+"_"+tag)
	err = testbed.BuildRevision(ctx, ".", tag, tag, plugin)
	if err != nil {
		return err
	}
	tenant, err := testbed.StartTenant(ctx, graphtest.WithServerNames(loginHost, graphHost))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tenant.Stop()) }()
	vault, err := startVault(ctx, dir, tenant)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Stop()) }()
	if err := vault.Install(ctx, plugin, tag); err != nil {
		return err
	}
	command.Progress("recording a Vault with %s", tag)
	if err := recordServer(ctx, vault, tenant, into); err != nil {
		return err
	}
	command.Progress("recording mounts with %s: half a minute", tag)
	states, err := recordMounts(ctx, vault.Client)
	if err != nil {
		return err
	}
	return save(into, "mounts.json", states)
}

// recordMounts brings a mount into each state and returns what it leaves behind.
func recordMounts(ctx context.Context, vault *testbed.Client) (map[string]upgradetest.State, error) {
	found := map[string]upgradetest.State{}
	for name, s := range mounts.States() {
		tenant, err := testbed.StartTenant(ctx, s.Tenant...)
		if err != nil {
			return nil, err
		}
		m := mounts.New(ctx, vault, tenant, name+"/")
		m.Enter(s)
		found[name] = m.Left()
		if err := errors.Join(m.Err, tenant.Stop()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return found, nil
}

// startVault runs a Vault whose plugins reach the tenant under its names and trust it.
func startVault(ctx context.Context, dir string, tenant *testbed.Tenant) (*testbed.Vault, error) {
	authority := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(authority, []byte(tenant.CACertificate()), 0o600); err != nil {
		return nil, err
	}
	binary, err := testbed.FindVault(ctx, ".")
	if err != nil {
		return nil, err
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { connect(w, r, tenant.URL()) }))
	return testbed.StartVault(ctx, testbed.Server{
		Binary: binary, Storage: testbed.Raft, Level: "warn",
		Env:      []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + authority},
		Settings: map[string]any{"raw_storage_endpoint": true},
	})
}

// connect answers a CONNECT request with a connection to the tenant.
func connect(w http.ResponseWriter, r *http.Request, tenant string) {
	server, err := new(net.Dialer).DialContext(r.Context(), "tcp", tenant[len("https://"):])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n") // if this fails, so does the next
	go func() { _, _ = io.Copy(server, client) }()           // it ends with the program
	_, _ = io.Copy(client, server)
}

// save writes a value to a file of the record.
func save(into, name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(into, name), append(text, '\n'), 0o600)
}
