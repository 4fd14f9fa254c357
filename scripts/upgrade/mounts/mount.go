// SPDX-License-Identifier: MPL-2.0

// Package mounts brings mounts of the engine into the states that another version may
// find: in use, and in the middle of a regeneration or of a rotation of the credential. It
// works on a real Vault with whatever version is registered there, through the API.
package mounts

import (
	"context"
	"encoding/json"
	"errors"
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

// Mount is a mount of the engine with its tenant.
type Mount struct {
	Session
	Tenant *testbed.Tenant
	Path   string // with a slash at the end
	Leases []upgradetest.Lease
}

// New returns a mount that does not exist yet.
func New(ctx context.Context, vault *testbed.Client, tenant *testbed.Tenant, path string) *Mount {
	return &Mount{Session: Session{ctx: ctx, vault: vault}, Tenant: tenant, Path: path}
}

// Enter mounts the engine and brings it into a state.
func (m *Mount) Enter(s State) {
	config := m.Tenant.Config()
	if s.Certificate {
		delete(config, "client_secret")
		config["client_certificate"], m.Err = m.Tenant.NewCertificate(graphtest.CertificateRequest{Validity: lifetime})
	}
	maps.Copy(config, s.Config)
	m.Write("sys/mounts/"+m.Path, map[string]any{"type": testbed.PluginName, "config": map[string]any{"max_lease_ttl": lasting}})
	m.Write(m.Path+"config", config)
	m.Write(m.Path+RolePath, s.Role)
	for _, path := range s.Does {
		m.do(path)
	}
	if s.Fails == "" || m.Err != nil {
		return
	}
	m.Tenant.Inject(s.Faults...)
	if m.do(s.Fails); m.Err == nil {
		m.Err = errors.New(s.Fails + " succeeds")
	} else {
		m.Err = nil
	}
}

var errUnfinished = errors.New("the credential has not been replaced yet")

// do replaces the app's own credential, or leases a key.
func (m *Mount) do(path string) {
	if path == rotateRoot {
		if answer := m.Write(m.Path+path, nil); m.Err == nil && len(answer.Warnings) > 0 {
			m.Err = errUnfinished
		}
		return
	}
	key, id := m.ReadKey(m.Path + path)
	if m.Err != nil {
		return
	}
	var entry struct{ Secret *logical.Secret }
	m.Err = json.Unmarshal(m.Stored("sys/expire/id/"+id), &entry)
	m.Leases = append(m.Leases, upgradetest.Lease{Path: path, Key: key, Secret: entry.Secret})
}

// StoragePath is where Vault stores what the mount stores.
func (m *Mount) StoragePath() string {
	uuid, _ := m.Read("sys/mounts/" + m.Path).Data["uuid"].(string)
	return "logical/" + uuid + "/"
}

// Answers returns what the mount says when it is asked for its configuration, its role
// and its status.
func (m *Mount) Answers() map[string]map[string]any {
	answers := map[string]map[string]any{}
	for _, path := range []string{"config", RolePath, "status"} {
		answers[path] = m.Read(m.Path + path).Data
	}
	return answers
}

// Left returns what the mount leaves behind.
func (m *Mount) Left() upgradetest.State {
	left := upgradetest.State{
		At:          time.Now().UTC().Truncate(time.Second),
		Tenant:      m.Tenant.Info(),
		Credentials: m.Tenant.Credentials(),
		Key:         m.Tenant.Key(),
		Leases:      m.Leases,
		Answers:     m.Answers(),
	}
	if m.Err == nil {
		left.Storage, m.Err = upgradetest.Dump(m.ctx, storage{Session: &m.Session, path: m.StoragePath()})
	}
	return left
}
