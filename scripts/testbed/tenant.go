// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Tenant is a simulated tenant inside this process.
type Tenant struct {
	*graphtest.Simulator
	served chan error
}

// StartTenant lets a simulator listen on the loopback interface.
func StartTenant(ctx context.Context) (*Tenant, error) {
	sim, err := graphtest.New()
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
func (t *Tenant) Stop() error {
	return errors.Join(t.Close(), <-t.served)
}

// Config returns the fields of mdi/config that lead to the tenant.
func (t *Tenant) Config() map[string]any { return ConfigFields(t.Info()) }

// AppFields are the fields of mdi/config that lead to an app of a simulated tenant,
// without a credential.
func AppFields(info graphtest.Info) map[string]any {
	return map[string]any{
		"tenant_id":      info.TenantID,
		"client_id":      info.ClientID,
		"graph_endpoint": info.URL,
		"authority_host": info.URL,
		"ca_certificate": info.CACertificate,
	}
}

// ConfigFields are those with the app's secret.
func ConfigFields(info graphtest.Info) map[string]any {
	fields := AppFields(info)
	fields["client_secret"] = info.ClientSecret
	return fields
}
