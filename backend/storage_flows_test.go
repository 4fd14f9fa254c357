// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

// storageFlow is something that the engine does with its storage.
type storageFlow struct {
	name    string
	prepare func(*storageCase) // with a storage that works
	run     func(*storageCase)
}

func (c *storageCase) configure() {
	c.write(configPath, c.config(nil))
	c.settled()
}

// share brings a mount to where its key is leased under a role.
func (c *storageCase) share() {
	c.configure()
	c.write("roles/hosts", nil)
	c.do(logical.ReadOperation, hosts, nil)
}

func (c *storageCase) rotateDaily() {
	c.share()
	c.write(configPath, map[string]any{schedule.FieldPeriod: "24h"})
	c.settled()
	c.clock.advance(24 * time.Hour)
}

// doubt leaves an intent whose outcome nobody knows.
func (c *storageCase) doubt(carriedOut bool) {
	c.share()
	c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, AfterWork: carriedOut},
		graphtest.Fault{Operation: graphtest.Get, Times: 1, Status: 403})
	c.do(logical.UpdateOperation, rotateKeyPath, nil)
	c.sim.Clear()
	c.clock.advance(flight.Budget)
}

func (c *storageCase) revokeAll() {
	for _, resp := range c.leases {
		_ = c.tryRevoke(resp.Secret) // core tries again later
		c.settled()
	}
}

func (c *storageCase) reads(path string) { c.do(logical.ReadOperation, path, nil) }

func (c *storageCase) writes(path string, data map[string]any) {
	c.do(logical.UpdateOperation, path, data)
}

func (c *storageCase) ticks() {
	c.tick()
	c.settled()
}

var storageFlows = []storageFlow{
	{
		"first read", (*storageCase).configure,
		func(c *storageCase) { c.reads(keyPath) },
	},
	{
		"reused read", (*storageCase).share,
		func(c *storageCase) { c.reads(hosts) },
	},
	{
		"reused read after a restart",
		func(c *storageCase) { c.share(); c.begin() },
		func(c *storageCase) { c.reads(hosts) },
	},
	{
		"regenerating read", (*storageCase).share,
		func(c *storageCase) { c.reads(keyPath) },
	},
	{
		"regenerating read after a restart",
		func(c *storageCase) { c.share(); c.begin() },
		func(c *storageCase) { c.reads(keyPath) },
	},
	{
		"read of a key that nobody has had",
		func(c *storageCase) { c.share(); c.writes(rotateKeyPath, nil) },
		func(c *storageCase) { c.reads(hosts) },
	},
	{
		"rotate-key", (*storageCase).share,
		func(c *storageCase) { c.writes(rotateKeyPath, nil) },
	},
	{
		"regeneration that Graph refuses", (*storageCase).share,
		func(c *storageCase) {
			c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
			c.reads(keyPath)
			c.sim.Clear()
		},
	},
	{
		"regeneration whose answer is lost", (*storageCase).share,
		func(c *storageCase) {
			c.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Reset: true, AfterWork: true})
			c.reads(keyPath)
			c.sim.Clear()
		},
	},
	{
		"last lease", (*storageCase).share,
		func(c *storageCase) { c.revokeAll() },
	},
	{
		"last lease after a restart",
		func(c *storageCase) { c.share(); c.begin() },
		func(c *storageCase) { c.revokeAll() },
	},
	{
		"last lease that ends by time",
		func(c *storageCase) { c.share(); c.clock.advance(config.DefaultTTL + lease.Grace) },
		func(c *storageCase) { c.ticks() },
	},
	{
		"leases on superseded keys",
		func(c *storageCase) { c.share(); c.reads(keyPath); c.reads(keyPath) },
		func(c *storageCase) { c.ticks() },
	},
	{
		"due rotation", (*storageCase).rotateDaily,
		func(c *storageCase) { c.ticks() },
	},
	{
		"due rotation after a restart",
		func(c *storageCase) { c.rotateDaily(); c.begin() },
		func(c *storageCase) { c.ticks() },
	},
	{
		"tick with an intent that was carried out",
		func(c *storageCase) { c.doubt(true) },
		func(c *storageCase) { c.ticks() },
	},
	{
		"tick with an intent that was not",
		func(c *storageCase) { c.doubt(false) },
		func(c *storageCase) { c.ticks() },
	},
	{
		"read with an intent",
		func(c *storageCase) { c.doubt(true) },
		func(c *storageCase) { c.reads(hosts) },
	},
	{
		"comparison by a read",
		func(c *storageCase) { c.share(); c.clock.advance(config.DefaultDriftCheckInterval) },
		func(c *storageCase) { c.reads(hosts) },
	},
	{
		"comparison by a tick",
		func(c *storageCase) { c.share(); c.clock.advance(config.DefaultDriftCheckInterval) },
		func(c *storageCase) { c.ticks() },
	},
	{
		"comparison that finds a key of the portal",
		func(c *storageCase) {
			c.share()
			c.sim.RegenerateInPortal()
			c.clock.advance(config.DefaultDriftCheckInterval)
		},
		func(c *storageCase) { c.reads(hosts) },
	},
	{
		"first configuration", func(*storageCase) {},
		func(c *storageCase) { c.writes(configPath, c.config(nil)) },
	},
	{
		"another schedule", (*storageCase).share,
		func(c *storageCase) { c.writes(configPath, map[string]any{schedule.FieldCron: "0 3 * * *"}) },
	},
	{
		"another tenant", (*storageCase).share,
		func(c *storageCase) { c.writes(configPath, configOf(c.other)); c.reads(hosts) },
	},
	{
		"no configuration left", (*storageCase).share,
		func(c *storageCase) { c.do(logical.DeleteOperation, configPath, nil) },
	},
	{
		"reading the configuration", (*storageCase).share,
		func(c *storageCase) { c.reads(configPath) },
	},
	{
		"roles", (*storageCase).share,
		func(c *storageCase) {
			c.writes("roles/more", map[string]any{config.FieldTTL: 600})
			c.writes("roles/more", map[string]any{config.FieldMaxKeyAge: 600})
			c.do(logical.PatchOperation, "roles/more", map[string]any{config.FieldTTL: nil})
			c.reads("roles/more")
			c.do(logical.ListOperation, rolesPath, nil)
			c.reads("key/more")
			c.do(logical.DeleteOperation, "roles/more", nil)
		},
	},
	{
		"status", (*storageCase).share,
		func(c *storageCase) { c.reads(statusPath) },
	},
	{
		"status after a restart",
		func(c *storageCase) { c.share(); c.begin() },
		func(c *storageCase) { c.reads(statusPath) },
	},
	{
		"unmount", (*storageCase).share,
		func(c *storageCase) {
			c.goingAway = true
			c.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
			c.ticks()
		},
	},
	{
		"unmount after a restart",
		func(c *storageCase) { c.share(); c.begin() },
		func(c *storageCase) {
			c.goingAway = true
			c.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = true })
			c.ticks()
		},
	},
}
