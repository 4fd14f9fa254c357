// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// Every single storage operation of every flow fails once: refused, or carried out
// and reported as failed; with or without a restart of the plugin after it.

func TestEveryStorageOperationFailsOnce(t *testing.T) {
	besideOthers(t)
	for _, f := range storageFlows {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			other := graphtest.Start(t)
			clean := newStorageCase(r, other, f)
			clean.play()
			require.NotZero(t, clean.storage.count, "the flow does not touch the storage")
			for range soakRounds(t) {
				failEach(t, clean, false, true)
				failEach(t, clean, true, false)
			}
			failEach(t, clean, false, false)
			failEach(t, clean, true, true)
		})
	}
}

// failEach has one operation of a flow fail after the other.
func failEach(t *testing.T, clean *storageCase, carriedOut, restart bool) {
	for n := 1; ; n++ {
		c := newStorageCase(clean.rig, clean.other, clean.flow)
		c.storage.failAt, c.storage.carriedOut, c.restart = n, carriedOut, restart
		c.play()
		if c.storage.failed == "" {
			require.True(t, n > 1 || carriedOut)
			return
		}
		require.LessOrEqual(t, c.posts, clean.posts+2, "%s: no storm of regenerations", c)
	}
}

// soakRounds is how often the long version of a test is to be played; without the
// environment variable that says so it is not.
func soakRounds(t *testing.T) int {
	text := os.Getenv("MDI_SOAK_ROUNDS")
	if text == "" {
		return 0
	}
	rounds, err := strconv.Atoi(text)
	require.NoError(t, err, "MDI_SOAK_ROUNDS")
	return rounds
}

// storageCase is one run of a flow, for which it plays the part of Vault's core.
type storageCase struct {
	*rig
	flow    storageFlow
	other   *graphtest.Simulator // another tenant
	storage *trippingStorage
	restart bool        // after the flow
	woken   func() bool // see held

	leases    []*logical.Response
	livesOn   bool // a warning has said that a key lives on
	posts     int
	goingAway bool
}

func newStorageCase(r *rig, other *graphtest.Simulator, f storageFlow) *storageCase {
	c := &storageCase{rig: r, flow: f, other: other, storage: &trippingStorage{Storage: &logical.InmemStorage{}}}
	r.storage.Storage = c.storage // below the rig's own, which stays quiet
	r.system.set(func(core *logical.StaticSystemView) { core.TaintedVal = false })
	r.log = &syncBuffer{}
	c.begin()
	return c
}

func (c *storageCase) String() string {
	return fmt.Sprintf("%s: failed %q, carried out: %t, restart: %t", c.flow.name, c.storage.failed, c.storage.carriedOut, c.restart)
}

// begin starts the engine anew. The goroutine that looks after revocations is kept
// from starting, and settled does its work, so that each run is like the others.
func (c *storageCase) begin() {
	c.rig.restart()
	c.woken = held(&c.engine.wakeRetirement)
}

func (c *storageCase) settled() {
	if c.woken() {
		c.engine.retireIfDue(c.t.Context())
	}
}

func (c *storageCase) play() {
	before := c.sim.Calls(graphtest.Regenerate).Performed + c.other.Calls(graphtest.Regenerate).Performed
	c.flow.prepare(c)
	c.storage.arm(true)
	c.flow.run(c)
	c.storage.arm(false)
	if c.restart {
		c.begin()
	}
	_, err := c.request(c.t.Context(), logical.ReadOperation, statusPath, nil)
	require.NoError(c.t, err, c)
	if c.goingAway {
		c.checkFarewell()
	} else {
		c.checkAfterwards()
	}
	c.posts = c.sim.Calls(graphtest.Regenerate).Performed + c.other.Calls(graphtest.Regenerate).Performed - before
	c.noSecretLogged()
}

// do makes a request. It may fail; a key that it returns must work.
func (c *storageCase) do(op logical.Operation, path string, data map[string]any) {
	resp, err := c.request(c.t.Context(), op, path, data)
	if err == nil && resp != nil {
		c.livesOn = c.livesOn || strings.Contains(strings.Join(resp.Warnings, " "), "lives on")
		if resp.Secret != nil {
			require.True(c.t, c.registers(keyIn(resp)), "%s: a key that does not work", c)
			c.leases = append(c.leases, resp)
		}
	}
	c.settled()
}

func (c *storageCase) registers(key string) bool {
	return c.sim.CanRegister(key) || c.other.CanRegister(key)
}

// end revokes all leases, as often as it takes.
func (c *storageCase) end() {
	for _, resp := range c.leases {
		if c.tryRevoke(resp.Secret) != nil {
			require.NoError(c.t, c.tryRevoke(resp.Secret), c)
		}
		c.settled()
	}
}

// checkAfterwards lets time pass, in which the engine has to settle everything.
func (c *storageCase) checkAfterwards() {
	c.tickFor(3 * time.Minute)
	if cfg, err := c.engine.configs.Stored(c.t.Context()); err == nil && cfg != nil {
		c.write("roles/afterwards", nil)
		before := len(c.leases)
		c.do(logical.ReadOperation, "key/afterwards", nil)
		require.Len(c.t, c.leases, before+1, "%s: a read works again", c)
	}
	c.end()
	c.tickFor(10 * time.Minute)
	// Records of leases that were never given end by time.
	c.clock.advance(config.DefaultTTL + lease.Grace)
	c.tickFor(2 * time.Minute)
	c.checkNoKeyIsLeft()
	require.Zero(c.t, c.leaseRecords(), c)
	status := c.status()
	require.Empty(c.t, status[fieldDue], c)
	require.Equal(c.t, 0, status[fieldLiveLeases], c)
	if status[fieldConfigured] == true || !c.livesOn {
		require.Equal(c.t, false, status[fieldIntentPending], c)
	}
}

// checkFarewell ends the leases after the last tick of a mount, as core does.
func (c *storageCase) checkFarewell() {
	c.end()
	c.livesOn = c.livesOn || strings.Contains(c.log.String(), "lives on")
	c.checkNoKeyIsLeft()
}

func (c *storageCase) checkNoKeyIsLeft() {
	for _, resp := range c.leases {
		if c.registers(keyIn(resp)) {
			require.True(c.t, c.livesOn, "%s: a key has survived its leases, and nobody was told", c)
		}
	}
}

// trippingStorage fails one operation of those that are made while it is armed.
type trippingStorage struct {
	logical.Storage
	failAt     int  // counted from 1; 0: none
	carriedOut bool // writes are carried out and reported as failed; reads do not count

	mu     sync.Mutex
	armed  bool
	count  int
	failed string // the operation that did
}

func (s *trippingStorage) arm(armed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = armed
}

func (s *trippingStorage) trips(op, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.armed || s.carriedOut && (op == "get" || op == "list") {
		return false
	}
	s.count++
	if s.count != s.failAt {
		return false
	}
	s.failed = op + " " + key
	return true
}

func (s *trippingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if s.trips("get", key) {
		return nil, storagetest.ErrBroken
	}
	return s.Storage.Get(ctx, key)
}

func (s *trippingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if s.trips("list", prefix) {
		return nil, storagetest.ErrBroken
	}
	return s.Storage.List(ctx, prefix)
}

func (s *trippingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.change("put", entry.Key, func() error { return s.Storage.Put(ctx, entry) })
}

func (s *trippingStorage) Delete(ctx context.Context, key string) error {
	return s.change("delete", key, func() error { return s.Storage.Delete(ctx, key) })
}

func (s *trippingStorage) change(op, key string, change func() error) error {
	if !s.trips(op, key) {
		return change()
	}
	if s.carriedOut {
		if err := change(); err != nil {
			return err
		}
	}
	return storagetest.ErrBroken
}
