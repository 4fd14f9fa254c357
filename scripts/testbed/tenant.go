// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Tenant is a tenant that this process simulates.
type Tenant struct {
	*graphtest.Simulator
	served chan error
}

// StartTenant runs a simulator that listens on the loopback interface.
func StartTenant(ctx context.Context, opts ...graphtest.Option) (*Tenant, error) {
	sim, err := graphtest.New(opts...)
	if err != nil {
		return nil, err
	}
	ln, err := sim.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &Tenant{Simulator: sim, served: make(chan error, 1)}
	go func() { t.served <- sim.Serve(ln) }()
	return t, nil
}

// Stop ends the simulator.
func (t *Tenant) Stop() error { return errors.Join(t.Close(), <-t.served) }

// Config returns the fields of mdi/config that connect it to the tenant.
func (t *Tenant) Config() map[string]any { return ConfigFields(t.Info()) }

// AppFields are the fields of mdi/config for the app of a simulated tenant, without a
// credential.
func AppFields(info graphtest.Info) map[string]any {
	return map[string]any{
		"tenant_id":      info.TenantID,
		"client_id":      info.ClientID,
		"graph_endpoint": info.URL,
		"authority_host": info.URL,
		"ca_certificate": info.CACertificate,
	}
}

// ConfigFields are AppFields with the app's secret.
func ConfigFields(info graphtest.Info) map[string]any {
	fields := AppFields(info)
	fields["client_secret"] = info.ClientSecret
	return fields
}

// SimulatorIn reads how to reach a simulator in another process, which writes it to a file
// in its folder.
func SimulatorIn(dir string) (info graphtest.Info, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "simulator.json")) //nolint:gosec // the user names the folder
	if err != nil {
		return info, err
	}
	return info, json.Unmarshal(text, &info)
}
