// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// leaseTTL outlasts the measurement, so that no lease ends by itself.
const leaseTTL = 24 * time.Hour

// contestant is an engine that is measured.
type contestant struct {
	name      string   // in the report
	plugin    string   // file
	arguments []string // of the plugin
	mount     string   // of the one that is read from; others have a number behind it
	leased    string   // what is read in a round, below a mount and before the round's number

	// configure makes a mount ready for a number of rounds.
	configure func(ctx context.Context, vault testbed.Caller, mount string, rounds int) error
}

// program is the name of the plugin, in Vault's catalog and as a process.
func (c *contestant) program() string { return filepath.Base(c.plugin) }

// path is what is read in a round, for its leases to have a prefix of their own.
func (c *contestant) path(round int) string { return c.pathAt(c.mount, round) }

func (c *contestant) pathAt(mount string, round int) string {
	return mount + "/" + c.leased + strconv.Itoa(round)
}

// numbered is the name of a mount; the first has none.
func (c *contestant) numbered(mount int) string {
	if mount == 0 {
		return c.mount
	}
	return c.mount + "-" + strconv.Itoa(mount)
}

// open mounts the engine.
func (c *contestant) open(ctx context.Context, vault testbed.Caller, mount string, rounds int) error {
	if err := testbed.Enable(ctx, vault, c.program(), mount); err != nil {
		return err
	}
	return c.configure(ctx, vault, mount, rounds)
}

// roles writes the same role for each round.
func roles(ctx context.Context, vault testbed.Caller, prefix string, rounds int, role map[string]any) error {
	for round := range rounds {
		if err := vault.Call(ctx, http.MethodPost, prefix+strconv.Itoa(round), role, nil); err != nil {
			return err
		}
	}
	return nil
}
