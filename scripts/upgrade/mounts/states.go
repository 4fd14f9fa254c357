// SPDX-License-Identifier: MPL-2.0

package mounts

import (
	"slices"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const rotateRoot = "rotate-root"

// The paths of the hosts' role, and of the key under it.
const (
	RolePath = "roles/sensor-hosts"
	RoleKey  = "key/sensor-hosts"
)

// State is one that a mount can be left in. Its mount has the role of the hosts.
type State struct {
	Tenant      []graphtest.Option
	Config      map[string]any // changes to that of the tenant
	Certificate bool           // the app signs in with one
	Role        map[string]any // of the hosts
	Does        []string       // paths: see Mount.do
	Faults      []graphtest.Fault
	Fails       string // path, because of the faults, which go on
}

// Rotates reports whether the state is about a rotation of the credential.
func (s State) Rotates() bool { return s.Fails == rotateRoot || slices.Contains(s.Does, rotateRoot) }

// States returns all states by their names.
func States() map[string]State {
	renewal := graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleRead, graphtest.RoleOwnedBy)
	// Only what the engine signs in with anew meets it: its token for the old one is good.
	unknownCredential := graphtest.Fault{Operation: graphtest.Token, Status: 401}
	return map[string]State{
		// Three leases on the current key, one of them on mdi/key itself, and one on the key
		// before, under a schedule.
		"leases": {
			Config: map[string]any{"ttl": "2h", "rotation_period": "720h"},
			Role:   map[string]any{"ttl": "90m", "max_key_age": "24h"},
			Does:   []string{"key", "key", RoleKey, RoleKey},
		},
		// An intent whose request has not arrived. Graph does not name the key, which would
		// settle that.
		"regeneration-lost": {
			Does: []string{"key"},
			Faults: []graphtest.Fault{
				{Operation: graphtest.Regenerate, Reset: true},
				{Operation: graphtest.Get, Status: 503},
			},
			Fails: "key",
		},
		// An intent that was carried out: the tenant has a key that the engine does not know.
		"regeneration-answered": {
			Does: []string{"key"},
			Faults: []graphtest.Fault{
				{Operation: graphtest.Regenerate, AfterWork: true, Reset: true},
				{Operation: graphtest.Get, Status: 503},
			},
			Fails: "key",
		},
		// A lease on a key that was read with a certificate.
		"certificate": {Certificate: true, Does: []string{"key"}},
		// A new certificate that Entra does not accept yet.
		"root-certificate-pending": {
			Tenant:      []graphtest.Option{renewal},
			Certificate: true,
			Does:        []string{"key"},
			Faults:      []graphtest.Fault{unknownCredential},
			Fails:       rotateRoot,
		},
		// A certificate that was added, but whose answer was lost.
		"root-certificate-lost": {
			Tenant:      []graphtest.Option{renewal},
			Certificate: true,
			Does:        []string{"key"},
			Faults:      []graphtest.Fault{{Operation: graphtest.AddKey, AfterWork: true, Reset: true}},
			Fails:       rotateRoot,
		},
		// A second secret of the engine's own in use, and the first one to be removed.
		"root-retiring": {
			Tenant: []graphtest.Option{renewal, graphtest.WithForeignPassword("somebody else's")},
			Config: map[string]any{"root_rotation_period": "720h"},
			Does:   []string{rotateRoot, rotateRoot, "key"},
		},
		// A new secret that Entra does not accept yet.
		"root-pending": {
			Tenant: []graphtest.Option{renewal},
			Does:   []string{"key"},
			Faults: []graphtest.Fault{unknownCredential},
			Fails:  rotateRoot,
		},
		// A secret that was created, but whose answer was lost.
		"root-lost": {
			Tenant: []graphtest.Option{renewal},
			Does:   []string{"key"},
			Faults: []graphtest.Fault{
				{Operation: graphtest.AddPassword, AfterWork: true, Reset: true},
				{Operation: graphtest.Application, Status: 503},
			},
			Fails: rotateRoot,
		},
	}
}
