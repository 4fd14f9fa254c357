// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// lasting is longer than any lease.
	lasting = "876000h"

	// lifetime is that of a certificate that tests use for years to come.
	lifetime = 100 * 365 * 24 * time.Hour
)

// mount is a mount of the engine with its tenant.
type mount struct {
	session
	tenant *testbed.Tenant
	path   string
	leases []upgradetest.Lease
}

// recordMounts brings a mount into each state and returns what it leaves behind.
func recordMounts(ctx context.Context, vault *testbed.Vault) (map[string]upgradetest.State, error) {
	found := map[string]upgradetest.State{}
	for name, s := range states() {
		tenant, err := testbed.StartTenant(ctx, s.tenant...)
		if err != nil {
			return nil, err
		}
		m := &mount{session: session{ctx: ctx, vault: vault}, tenant: tenant, path: name + "/"}
		m.enter(s)
		found[name] = m.state()
		if err := errors.Join(m.err, tenant.Stop()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return found, nil
}

// enter mounts the engine and brings it into a state.
func (m *mount) enter(s state) {
	config := m.tenant.Config()
	if s.certificate {
		delete(config, "client_secret")
		config["client_certificate"], m.err = m.tenant.NewCertificate(graphtest.CertificateRequest{Validity: lifetime})
	}
	maps.Copy(config, s.config)
	m.write("sys/mounts/"+m.path, map[string]any{"type": testbed.PluginName, "config": map[string]any{"max_lease_ttl": lasting}})
	m.write(m.path+"config", config)
	if s.role != nil {
		m.write(m.path+rolePath, s.role)
	}
	for _, path := range s.does {
		m.do(path)
	}
	if s.fails == "" || m.err != nil {
		return
	}
	m.tenant.Inject(s.faults...)
	if m.do(s.fails); m.err == nil {
		m.err = errors.New(s.fails + " succeeds")
	} else {
		m.err = nil
	}
}

// do renews the app's own secret, or leases a key.
func (m *mount) do(path string) {
	if path == rotateRoot {
		m.write(m.path+path, nil)
		return
	}
	key, id := m.readKey(m.path + path)
	if m.err != nil {
		return
	}
	var entry struct{ Secret *logical.Secret }
	m.err = json.Unmarshal(m.stored("sys/expire/id/"+id), &entry)
	m.leases = append(m.leases, upgradetest.Lease{Path: path, Key: key, Secret: entry.Secret})
}

// storagePath is where Vault stores what the mount stores.
func (m *mount) storagePath() string {
	uuid, _ := m.read("sys/mounts/" + m.path).Data["uuid"].(string)
	return "logical/" + uuid + "/"
}

// state returns what the mount leaves behind.
func (m *mount) state() upgradetest.State {
	left := upgradetest.State{
		At:          time.Now().UTC().Truncate(time.Second),
		Tenant:      m.tenant.Info(),
		Credentials: m.tenant.Credentials(),
		Key:         m.tenant.Key(),
		Leases:      m.leases,
		Answers:     map[string]map[string]any{},
	}
	for _, path := range []string{"config", rolePath, "status"} {
		if answer := m.read(m.path + path); answer.Data != nil {
			left.Answers[path] = answer.Data
		}
	}
	if m.err == nil {
		left.Storage, m.err = upgradetest.Dump(m.ctx, storage{session: &m.session, path: m.storagePath()})
	}
	return left
}
