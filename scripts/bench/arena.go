// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"vault-plugin-secrets-mdi/scripts/internal/testbed"
)

// leaseTTL outlasts the measurement, so that no lease ends by itself.
const leaseTTL = 24 * time.Hour

// contestant is an engine, by where it is read from.
type contestant struct {
	name   string
	prefix string
}

// path is what is read in a round, for its leases to have a prefix of their own.
func (c contestant) path(round int) string { return c.prefix + strconv.Itoa(round) }

// arena is a Vault with both engines.
type arena struct {
	vault    *testbed.Vault
	tenant   *testbed.Tenant
	clients  []*testbed.Client
	baseline contestant
	engine   contestant
}

func openArena(ctx context.Context, o options) (*arena, error) {
	programs, err := testbed.Build(ctx)
	if err != nil {
		return nil, err
	}
	a := &arena{
		baseline: contestant{name: "baseline", prefix: "baseline/key/bench-"},
		engine:   contestant{name: "engine", prefix: "mdi/key/bench-"},
	}
	if err := a.open(ctx, o, programs); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *arena) open(ctx context.Context, o options, programs testbed.Programs) error {
	dir, err := os.MkdirTemp("", "mdi-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // Vault has a copy
	baseline := filepath.Join(dir, "baseline")
	if err := programs.BuildPackage(ctx, "./scripts/bench/baseline", baseline); err != nil {
		return err
	}
	if a.tenant, err = testbed.StartTenant(ctx); err != nil {
		return err
	}
	a.vault, err = testbed.StartVault(ctx, testbed.ServerOptions{Binary: programs.Vault, Storage: "raft", LogLevel: "error"})
	if err != nil {
		return err
	}
	if err := errors.Join(a.vault.Mount(ctx, baseline, "baseline"), a.vault.Mount(ctx, programs.Plugin, "mdi")); err != nil {
		return err
	}
	if err := a.vault.Call(ctx, http.MethodPost, "mdi/config", a.tenant.Config(), nil); err != nil {
		return err
	}
	role := map[string]any{"ttl": leaseTTL.String()}
	for round := range o.rounds {
		if err := a.vault.Call(ctx, http.MethodPost, "mdi/roles/bench-"+strconv.Itoa(round), role, nil); err != nil {
			return err
		}
	}
	tokens, err := a.vault.IssueTokens(ctx, o.clients, "bench", leaseTTL, a.baseline.prefix+"*", a.engine.prefix+"*")
	for _, token := range tokens {
		a.clients = append(a.clients, a.vault.As(token))
	}
	return err
}

func (a *arena) close() error {
	var err error
	if a.vault != nil {
		err = a.vault.Stop()
	}
	if a.tenant != nil {
		err = errors.Join(err, a.tenant.Stop())
	}
	return err
}

// measure lets the engines take turns. Revocation comes first, while there are no
// other leases; nobody has to revoke those of the readers.
func (a *arena) measure(ctx context.Context, o options) (*result, error) {
	res := &result{}
	for _, sync := range []bool{false, true} {
		r, err := a.revocation(ctx, o, sync)
		if err != nil {
			return nil, err
		}
		res.revocations = append(res.revocations, r)
	}
	for round := range o.rounds {
		for _, who := range a.order(round) {
			r, err := a.reading(ctx, who, round, o.turn())
			if err != nil {
				return nil, err
			}
			res.readings = append(res.readings, r)
		}
	}
	var err error
	res.irrevocable, err = a.vault.Irrevocable(ctx)
	return res, err
}

// order is that of the turns in a round: who is first is second in the next, so
// that what grows from turn to turn strikes both.
func (a *arena) order(round int) []contestant {
	if round%2 == 0 {
		return []contestant{a.baseline, a.engine}
	}
	return []contestant{a.engine, a.baseline}
}
