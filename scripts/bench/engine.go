// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// leaseTTL outlasts the measurement, so that no lease expires during it.
const leaseTTL = 24 * time.Hour

// engine is a secrets engine that is measured.
type engine struct {
	name      string   // in the report
	plugin    string   // file
	arguments []string // of the plugin
	mount     string   // that is read from; further mounts have a number after this name
	leased    string   // path that a round reads, below a mount and before the round's number
	calling   string   // path, below a mount, whose read calls upstream; "": that of a round

	// configure prepares a mount for a number of rounds.
	configure func(ctx context.Context, vault *testbed.Vault, mount string, rounds int) error
}

// program is the name of the plugin, in Vault's catalog and as a process.
func (e *engine) program() string { return filepath.Base(e.plugin) }

// path is the path that a round reads. Its leases have their own prefix.
func (e *engine) path(round int) string { return e.pathAt(e.mount, round) }

func (e *engine) pathAt(mount string, round int) string {
	return mount + "/" + e.leased + strconv.Itoa(round)
}

// callingPath is a path of a mount, counted from 0, whose read calls upstream.
func (e *engine) callingPath(mount int) string {
	name := e.mount
	if mount > 0 {
		name = e.further(mount)
	}
	if e.calling == "" {
		return e.pathAt(name, 0)
	}
	return name + "/" + e.calling
}

// further is the name of a further mount, counted from 1.
func (e *engine) further(mount int) string { return e.mount + "-" + strconv.Itoa(mount) }

// open mounts and configures the engine.
func (e *engine) open(ctx context.Context, vault *testbed.Vault, mount string, rounds int) error {
	if err := testbed.Enable(ctx, vault, e.program(), mount); err != nil {
		return err
	}
	return e.configure(ctx, vault, mount, rounds)
}

// writeRoles writes the same role for each round.
func writeRoles(ctx context.Context, vault *testbed.Vault, prefix string, rounds int, role map[string]any) error {
	for round := range rounds {
		if _, err := vault.Logical().WriteWithContext(ctx, prefix+strconv.Itoa(round), role); err != nil {
			return err
		}
	}
	return nil
}
