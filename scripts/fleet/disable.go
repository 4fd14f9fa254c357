// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// disableWithin is how long Vault may take to give up the mount while Graph is
	// out of reach.
	disableWithin = 15 * time.Second

	// livesOn is what the engine's log says of a key that it could not retire.
	livesOn = "its deployment access key lives on"
)

// disabled is what became of a mount that was disabled, and of its key.
type disabled struct {
	leases int // that were live
	took   time.Duration
	works  bool // a sensor can still be installed with the key
	logged bool // that the key lives on
}

// disable disables the mount with Graph in the state that the options name.
func (s *site) disable(ctx context.Context, o options, key string) (*disabled, error) {
	leases, err := testbed.List(ctx, s.operator, "sys/leases/lookup/"+o.keyPath())
	if err != nil {
		return nil, err
	}
	if err := s.strike(o.thenDisable); err != nil {
		return nil, err
	}
	command.Progress("disabling the mount with %d live leases and Graph %s", len(leases), o.thenDisable)
	d := &disabled{leases: len(leases)}
	start := time.Now()
	if err := s.operator.Call(ctx, http.MethodDelete, "sys/mounts/"+o.mount, nil, nil); err != nil {
		return nil, fmt.Errorf("disabling the mount: %w", err)
	}
	d.took = time.Since(start)
	d.works = s.simulator.CanRegister(key)
	d.logged, err = s.vault.LogHas(livesOn)
	return d, err
}

// strike puts the tenant into a state.
func (s *site) strike(state outage) error {
	switch state {
	case graphDown:
		return s.simulator.Close()
	case graphSilent:
		s.simulator.Inject(graphtest.Fault{Latency: time.Hour})
	case graphUp:
	}
	return nil
}

// problems tells what should not be.
func (d *disabled) problems(state outage) []string {
	var found []string
	switch {
	case state == graphUp && d.works:
		found = append(found, "the key still works although its mount is gone")
	case state != graphUp && d.works && !d.logged:
		found = append(found, "the key still works and the log does not say so")
	}
	if state != graphUp && d.took > disableWithin {
		found = append(found, fmt.Sprintf("disabling the mount took %v, more than %v", d.took, disableWithin))
	}
	return found
}
