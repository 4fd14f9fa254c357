// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// token is chosen here, since one that Vault creates looks worth protecting.
const token = "token-of-the-upgrade-tests"

// recordServer leases keys at mdi/ and takes a snapshot of the Vault.
func recordServer(ctx context.Context, vault *testbed.Vault, tenant *testbed.Tenant, into string) error {
	info := tenant.Info()
	left := upgradetest.Server{
		UnsealKey: vault.UnsealKey, Token: token, LoginHost: loginHost, GraphHost: graphHost,
		TenantID: info.TenantID, ClientID: info.ClientID, ClientSecret: info.ClientSecret,
	}
	m := &mount{session: session{ctx: ctx, vault: vault}, tenant: tenant, path: "mdi/"}
	m.write("auth/token/create", map[string]any{"id": token, "policies": "root"})
	m.enter(state{role: map[string]any{}, config: map[string]any{
		"authority_host": "https://" + loginHost, "graph_endpoint": "https://" + graphHost, "ca_certificate": "", "ttl": "24h",
	}})
	m.lengthenLeases()
	for _, path := range []string{"key", "key", roleKey, roleKey} { // the first key is superseded by the second
		key, lease := m.readKey(m.path + path)
		left.Key, left.Leases = key, append(left.Leases, lease)
	}
	var snapshot bytes.Buffer
	if err := errors.Join(m.err, vault.Sys().RaftSnapshotWithContext(ctx, &snapshot)); err != nil {
		return err
	}
	about := "A Vault with nothing in it but this test's mount, and a simulated tenant. The secrets open nothing else."
	return errors.Join(
		os.MkdirAll(into, 0o750),
		os.WriteFile(filepath.Join(into, "server.snap"), snapshot.Bytes(), 0o600),
		save(into, "server.json", struct {
			About string `json:"about"`
			upgradetest.Server
		}{about, left}),
	)
}

// lengthenLeases changes the stored duration of leases from a day to 50 years, which a
// configuration cannot have, so that the leases outlive the tests.
func (m *mount) lengthenLeases() {
	path := m.storagePath() + "config"
	longer := strings.Replace(string(m.stored(path)), `"ttl":86400000000000,`, `"ttl":1576800000000000000,`, 1)
	m.write("sys/raw/"+path, map[string]any{"value": longer})
	m.write("sys/plugins/reload/backend", map[string]any{"plugin": testbed.PluginName})
	if ttl := m.read(m.path + "config").Data["ttl"]; m.err == nil && fmt.Sprint(ttl) != "1576800000" {
		m.err = fmt.Errorf("leases last %v s", ttl)
	}
}
