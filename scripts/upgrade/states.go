// SPDX-License-Identifier: MPL-2.0

package main

import "example.com/vault-plugin-secrets-mdi/backend/graphtest"

const (
	rotateRoot = "rotate-root"

	// The role of the hosts.
	rolePath = "roles/sensor-hosts"
	roleKey  = "key/sensor-hosts"
)

// state is one that a mount is left in.
type state struct {
	tenant      []graphtest.Option
	config      map[string]any // changes to that of the tenant
	certificate bool           // the app signs in with one
	role        map[string]any // nil: there is none
	does        []string       // paths: see mount.do
	faults      []graphtest.Fault
	fails       string // path, because of the faults
}

func states() map[string]state {
	renewal := graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleRead, graphtest.RoleOwnedBy)
	return map[string]state{
		// Three leases on the current key, one of them on mdi/key itself, and one on the key
		// before, under a schedule.
		"leases": {
			config: map[string]any{"ttl": "2h", "rotation_period": "720h"},
			role:   map[string]any{"ttl": "90m", "max_key_age": "24h"},
			does:   []string{"key", "key", roleKey, roleKey},
		},
		// An intent whose request has not arrived.
		"regeneration-lost": {
			does:   []string{"key"},
			faults: []graphtest.Fault{{Operation: graphtest.Regenerate, Reset: true}},
			fails:  "key",
		},
		// An intent that was carried out: the tenant has a key that the engine does not know.
		"regeneration-answered": {
			does: []string{"key"},
			faults: []graphtest.Fault{
				{Operation: graphtest.Regenerate, AfterWork: true, Reset: true},
				{Operation: graphtest.Get, Status: 503},
			},
			fails: "key",
		},
		// A lease on a key that was read with a certificate.
		"certificate": {certificate: true, does: []string{"key"}},
		// A second secret of the engine's own in use, and the first one to be removed.
		"root-retiring": {
			tenant: []graphtest.Option{renewal, graphtest.WithForeignPassword("somebody else's")},
			config: map[string]any{"root_rotation_period": "720h"},
			does:   []string{rotateRoot, rotateRoot, "key"},
		},
		// A new secret that Entra does not accept yet.
		"root-pending": {
			tenant: []graphtest.Option{renewal, graphtest.WithPropagation(1000)},
			does:   []string{rotateRoot, "key"},
		},
		// A secret that was created, but whose answer was lost.
		"root-lost": {
			tenant: []graphtest.Option{renewal},
			does:   []string{"key"},
			faults: []graphtest.Fault{
				{Operation: graphtest.AddPassword, AfterWork: true, Reset: true},
				{Operation: graphtest.Application, Status: 503},
			},
			fails: rotateRoot,
		},
	}
}
