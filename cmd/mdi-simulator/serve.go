// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"

	"vault-plugin-secrets-mdi/backend/graphtest"
)

func setupServe(flags *flag.FlagSet) action {
	address := flags.String("addr", "127.0.0.1:0", "TCP `address` to listen on; port 0 picks a free one")
	dir := flags.String("dir", os.Getenv(dirVariable),
		"`directory` for "+caFile+" and "+infoFile+"; by default $"+dirVariable+", and no files if that is empty")
	return func(ctx context.Context, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		return serve(ctx, t.out, *address, *dir)
	}
}

// serve runs a simulator until the context ends, which it does not take for an
// error.
func serve(ctx context.Context, out io.Writer, address, dir string) error {
	sim, err := graphtest.New()
	if err != nil {
		return err
	}
	ln, err := sim.Listen(ctx, address)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- sim.Serve(ln) }()

	if dir != "" {
		if err := publish(dir, sim.Info()); err != nil {
			return errors.Join(err, sim.Close(), <-served)
		}
	}
	describe(out, sim, dir)

	select {
	case <-ctx.Done():
		err = errors.Join(sim.Close(), <-served)
	case err = <-served:
	}
	if dir != "" {
		err = errors.Join(err, withdraw(dir))
	}
	return err
}

// describe tells what a person needs, without the client secret.
func describe(out io.Writer, sim *graphtest.Simulator, dir string) {
	app := sim.App()
	say(out, "Simulating Entra ID, Microsoft Graph and sensor registration at %s\n", sim.URL())
	say(out, "  tenant_id  %s\n  client_id  %s\n", app.TenantID, app.ClientID)
	if dir == "" {
		say(out, "  without -dir nobody learns the client secret and the CA certificate\n")
		return
	}
	say(out, "  the client secret and the CA certificate are in %s\n", dir)
}
