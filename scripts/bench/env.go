// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// env is a Vault in which the engines are measured.
type env struct {
	*suite
	vault   *testbed.Vault
	clients []*testbed.Client
}

// inVault starts a Vault, mounts each of the engines once, and stops the Vault after use. The
// engines and their services stay.
func (s *suite) inVault(ctx context.Context, settings map[string]any, engines []*engine, use func(*env) error) (err error) {
	vault, err := testbed.StartVault(ctx, testbed.Server{Binary: s.programs.Vault, Storage: testbed.Raft, Level: "error", Settings: settings})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Stop()) }()
	var paths []string
	for _, e := range engines {
		if err := vault.Install(ctx, e.plugin, "", e.arguments...); err != nil {
			return err
		}
		if err := e.open(ctx, vault, e.mount, s.rounds); err != nil {
			return err
		}
		paths = append(paths, e.mount+"/"+e.leased+"*", e.callingPath(0))
	}
	tokens, err := vault.IssueTokens(ctx, s.readers, "bench", leaseTTL, paths...)
	if err != nil {
		return err
	}
	v := &env{suite: s, vault: vault}
	for _, token := range tokens {
		v.clients = append(v.clients, vault.As(token))
	}
	return use(v)
}

// turns returns engines in the order of a round: the first one is the last in the next
// round, so that all suffer alike from what grows from turn to turn.
func turns(round int, engines ...*engine) []*engine {
	first := round % len(engines)
	return append(append([]*engine{}, engines[first:]...), engines[:first]...)
}
