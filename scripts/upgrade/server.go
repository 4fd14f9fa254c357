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
	"example.com/vault-plugin-secrets-mdi/scripts/upgrade/mounts"
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
	m := mounts.New(ctx, vault.Client, tenant, "mdi/")
	m.Write("auth/token/create", map[string]any{"id": token, "policies": "root"})
	m.Enter(mounts.State{Config: map[string]any{
		"authority_host": "https://" + loginHost, "graph_endpoint": "https://" + graphHost, "ca_certificate": "", "ttl": "24h",
	}})
	lengthenLeases(m)
	for _, path := range []string{"key", "key", mounts.RoleKey, mounts.RoleKey} { // the first key is superseded by the second
		key, lease := m.ReadKey(m.Path + path)
		left.Key, left.Leases = key, append(left.Leases, lease)
	}
	var snapshot bytes.Buffer
	if err := errors.Join(m.Err, vault.Sys().RaftSnapshotWithContext(ctx, &snapshot)); err != nil {
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
func lengthenLeases(m *mounts.Mount) {
	path := m.StoragePath() + "config"
	longer := strings.Replace(string(m.Stored(path)), `"ttl":86400000000000,`, `"ttl":1576800000000000000,`, 1)
	m.Write("sys/raw/"+path, map[string]any{"value": longer})
	m.Write("sys/plugins/reload/backend", map[string]any{"plugin": testbed.PluginName})
	if ttl := m.Read(m.Path + "config").Data["ttl"]; m.Err == nil && fmt.Sprint(ttl) != "1576800000" {
		m.Err = fmt.Errorf("leases last %v s", ttl)
	}
}
