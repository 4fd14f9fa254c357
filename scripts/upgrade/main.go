// SPDX-License-Identifier: MPL-2.0

// Command upgrade writes what mounts of this version of the engine leave behind, as
// package upgradetest wants it. record.sh runs it in a checkout of a released version.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/upgradetest"
)

// The role in whose name the hosts of a state have read.
const (
	role    = "sensor-hosts"
	roleKey = "key/" + role
)

// fullRoles let an app regenerate the key and renew its own secret.
var fullRoles = []string{graphtest.RoleReadWrite, graphtest.RoleRead, graphtest.RoleOwnedBy}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	states := map[string]upgradetest.State{}
	for name, prepare := range map[string]func(context.Context, *mount) error{
		"leases":                leases,
		"regeneration-lost":     regenerationLost,
		"regeneration-answered": regenerationAnswered,
		"certificate":           certificate,
		"root-retiring":         rootRetiring,
		"root-pending":          rootPending,
		"root-lost":             rootLost,
	} {
		state, err := record(ctx, prepare)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		states[name] = state
	}
	text, err := json.MarshalIndent(states, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(text))
	return err
}

func record(ctx context.Context, prepare func(context.Context, *mount) error) (upgradetest.State, error) {
	m, err := newMount(ctx)
	if err != nil {
		return upgradetest.State{}, err
	}
	err = prepare(ctx, m)
	state, dumping := m.leave(ctx)
	return state, errors.Join(err, dumping)
}

// leases leaves three leases on the current key, one of them on mdi/key itself, and one
// on the key before, under a schedule.
func leases(ctx context.Context, m *mount) error {
	return errors.Join(
		m.configure(ctx, map[string]any{"ttl": "2h", "rotation_period": "720h"}),
		m.do(ctx, logical.CreateOperation, "roles/"+role, map[string]any{"ttl": "90m", "max_key_age": "24h"}),
		m.lease(ctx, "key"),
		m.lease(ctx, "key"),
		m.lease(ctx, roleKey),
		m.lease(ctx, roleKey),
	)
}

// regenerationLost leaves an intent whose request has never arrived.
func regenerationLost(ctx context.Context, m *mount) error {
	if err := errors.Join(m.configure(ctx, nil), m.lease(ctx, "key")); err != nil {
		return err
	}
	m.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Reset: true})
	return m.refused(ctx, logical.ReadOperation, "key")
}

// regenerationAnswered leaves an intent that was carried out: the tenant has a key of
// which the engine knows nothing.
func regenerationAnswered(ctx context.Context, m *mount) error {
	if err := errors.Join(m.configure(ctx, nil), m.lease(ctx, "key")); err != nil {
		return err
	}
	m.sim.Inject(
		graphtest.Fault{Operation: graphtest.Regenerate, AfterWork: true, Reset: true},
		graphtest.Fault{Operation: graphtest.Get, Status: 503},
	)
	return m.refused(ctx, logical.ReadOperation, "key")
}

// certificate leaves a lease on a key that was read with a certificate.
func certificate(ctx context.Context, m *mount) error {
	bundle, err := m.sim.NewCertificate(graphtest.CertificateRequest{Validity: lifetime})
	if err != nil {
		return err
	}
	return errors.Join(
		m.configure(ctx, map[string]any{"client_secret": nil, "client_certificate": bundle}),
		m.lease(ctx, "key"),
	)
}

// rootRetiring leaves a second secret of the engine's own in use, and the first one
// waiting for its removal.
func rootRetiring(ctx context.Context, m *mount) error {
	m.sim.Update(graphtest.WithRoles(fullRoles...), graphtest.WithForeignPassword("somebody else's"))
	return errors.Join(
		m.configure(ctx, map[string]any{"root_rotation_period": "720h"}),
		m.do(ctx, logical.UpdateOperation, "rotate-root", nil),
		m.do(ctx, logical.UpdateOperation, "rotate-root", nil),
		m.lease(ctx, "key"),
	)
}

// rootPending leaves a new secret that Entra did not accept yet.
func rootPending(ctx context.Context, m *mount) error {
	m.sim.Update(graphtest.WithRoles(fullRoles...), graphtest.WithPropagation(1000))
	return errors.Join(
		m.configure(ctx, nil),
		m.do(ctx, logical.UpdateOperation, "rotate-root", nil),
		m.lease(ctx, "key"),
	)
}

// rootLost leaves a secret that was made and whose answer was lost.
func rootLost(ctx context.Context, m *mount) error {
	m.sim.Update(graphtest.WithRoles(fullRoles...))
	if err := errors.Join(m.configure(ctx, nil), m.lease(ctx, "key")); err != nil {
		return err
	}
	m.sim.Inject(
		graphtest.Fault{Operation: graphtest.AddPassword, AfterWork: true, Reset: true},
		graphtest.Fault{Operation: graphtest.Application, Status: 503},
	)
	return m.refused(ctx, logical.UpdateOperation, "rotate-root")
}
