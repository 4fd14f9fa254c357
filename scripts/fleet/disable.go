// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	// disableWithin is how long Vault may take to disable the mount while Graph is out of
	// reach.
	disableWithin = 15 * time.Second

	// livesOn is in the engine's log message about a key that it could not retire.
	livesOn = "its deployment access key lives on"
)

// disabled is the outcome of disabling a mount.
type disabled struct {
	leases int // that were live
	took   time.Duration
	works  bool // a sensor can still be installed with the key
	logged bool // that the key lives on
}

// disable disables the mount with Graph in the state that the options name.
func (e *env) disable(ctx context.Context, o options, key string) (*disabled, error) {
	leases, err := testbed.List(ctx, e.operator, "sys/leases/lookup/"+o.keyPath())
	if err != nil {
		return nil, err
	}
	if err := e.setGraphState(o.thenDisable); err != nil {
		return nil, err
	}
	command.Progress("disabling the mount with %d live leases and Graph %s", len(leases), o.thenDisable)
	d := &disabled{leases: len(leases)}
	start := time.Now()
	if err := e.operator.Sys().UnmountWithContext(ctx, o.mount); err != nil {
		return nil, fmt.Errorf("disabling the mount: %w", err)
	}
	d.took = time.Since(start)
	d.works = e.simulator.CanRegister(key)
	log, err := os.ReadFile(e.vault.LogFile())
	d.logged = strings.Contains(string(log), livesOn)
	return d, err
}

// setGraphState puts Graph into a state.
func (e *env) setGraphState(state outage) error {
	switch state {
	case graphDown:
		return e.simulator.Close()
	case graphSilent:
		e.simulator.Inject(graphtest.Fault{Latency: time.Hour})
	case graphUp:
	}
	return nil
}

// problems returns what is not as it should be.
func (d *disabled) problems(state outage) (found problems) {
	found.add(state == graphUp && d.works, "the key still works although its mount is gone")
	found.add(state != graphUp && d.works && !d.logged, "the key still works and the log does not say so")
	found.add(state != graphUp && d.took > disableWithin, "disabling the mount took %v, more than %v", d.took, disableWithin)
	return found
}
