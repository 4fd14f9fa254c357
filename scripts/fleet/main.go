// SPDX-License-Identifier: MPL-2.0

// Command fleet plays many hosts that install a sensor within one maintenance
// window. Each has a token of its own, reads the key under a role, registers a
// sensor at the simulator with it, and reads again before its lease ends, as Vault
// Agent does; or real Agents do the reading. Then it tells whether everybody held a
// working key, and what that cost.
//
//	fleet                                     1,000 hosts on a mount without a key
//	fleet -for 2m -rotate-after 20s           and when each has the key after a rotation
//	fleet -agents 25 -window 1s -for 30s      with Vault Agents instead of hosts
//	fleet -ttl 1h -then-disable up            and what becomes of the key without the mount
//
// It starts its own Vault and simulator, or uses those of `make dev`, by VAULT_TOKEN
// and MDI_SIMULATOR_DIR, if -vault-addr is given.
package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

func main() { command.Main(run) }

func run(ctx context.Context, arguments []string) (err error) {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	s, err := openSite(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(err != nil)) }()
	rep, err := play(ctx, s, o)
	if err != nil {
		return err
	}
	if err := rep.table(o).Print(os.Stdout); err != nil {
		return err
	}
	if problems := rep.problems(o); len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}
