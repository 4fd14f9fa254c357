// SPDX-License-Identifier: MPL-2.0

// Command fleet plays many hosts that install a sensor within one maintenance window.
// Each has its own token, reads the key under a role, registers a sensor at the
// simulator with it, and reads again before its lease ends, as Vault Agent does; or real
// Agents do the reading. Then it reports whether all of them held a working key, and what
// that cost.
//
//	fleet                                     1,000 hosts on a mount without a key
//	fleet -for 2m -rotate-after 20s           and when each has the key after a rotation
//	fleet -agents 25 -window 1s -for 30s      with Vault Agents instead of hosts
//	fleet -ttl 1h -then-disable up            and whether the key outlives the mount
//
// It starts its own Vault and simulator. With -vault-addr it uses those of `make dev`,
// which VAULT_TOKEN and MDI_SIMULATOR_DIR lead to.
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
	e := &env{}
	defer func() { err = errors.Join(err, e.close(err != nil)) }()
	if err := e.open(ctx, o); err != nil {
		return err
	}
	rep, err := e.run(ctx, o)
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
