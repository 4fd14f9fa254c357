// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// arena is a Vault in which contestants are measured.
type arena struct {
	*field
	vault   *testbed.Vault
	clients []*testbed.Client
}

// openArena starts a Vault and mounts each contestant once.
func openArena(ctx context.Context, f *field, o options) (*arena, error) {
	vault, err := testbed.StartVault(ctx, testbed.ServerOptions{Binary: f.programs.Vault, Storage: testbed.Raft, LogLevel: "error"})
	if err != nil {
		return nil, err
	}
	a := &arena{field: f, vault: vault}
	if err := a.open(ctx, o); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *arena) open(ctx context.Context, o options) error {
	paths := []string{a.engine.mount + "/key/" + fresh}
	for _, who := range a.everybody() {
		if err := a.vault.Install(ctx, who.plugin, who.arguments...); err != nil {
			return err
		}
		if err := who.open(ctx, a.vault, who.mount, o.rounds); err != nil {
			return err
		}
		paths = append(paths, who.mount+"/"+who.leased+"*")
	}
	tokens, err := a.vault.IssueTokens(ctx, o.clients, "bench", leaseTTL, paths...)
	for _, token := range tokens {
		a.clients = append(a.clients, a.vault.As(token))
	}
	return err
}

// close ends the Vault. The contestants and what is behind them stay.
func (a *arena) close() error { return a.vault.Stop() }

// turns returns contestants in the order of a round: who is first is last in the
// next, so that what grows from turn to turn strikes all.
func turns(round int, contestants ...*contestant) []*contestant {
	first := round % len(contestants)
	return append(append([]*contestant{}, contestants[first:]...), contestants[:first]...)
}
