// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	address, metadataAddress, dir string
}

func setupServe(flags *flag.FlagSet) action {
	var o serveOptions
	flags.StringVar(&o.address, "addr", "127.0.0.1:0", "TCP `address` to listen on; port 0 picks a free one")
	flags.StringVar(&o.metadataAddress, "metadata-addr", "127.0.0.1:0",
		"TCP `address` of the service for managed identities, without TLS")
	flags.StringVar(&o.dir, "dir", os.Getenv(dirVariable),
		"`directory` for "+caFile+" and "+infoFile+"; by default $"+dirVariable+", and no files if that is empty")
	return func(ctx context.Context, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		return serve(ctx, t.out, o)
	}
}

// serve runs a simulator until the context ends, which is not an error.
func serve(ctx context.Context, out io.Writer, o serveOptions) error {
	sim, err := graphtest.New()
	if err != nil {
		return err
	}
	ln, err := sim.Listen(ctx, o.address)
	if err != nil {
		return err
	}
	metadata, err := sim.ListenMetadata(ctx, o.metadataAddress)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	served := make(chan error, 2)
	go func() { served <- sim.Serve(ln) }()
	go func() { served <- sim.ServeMetadata(metadata) }()
	// If one server ends, so does the other.
	stop := func() error { return errors.Join(sim.Close(), <-served) }

	if o.dir != "" {
		if err := publish(o.dir, sim.Info()); err != nil {
			return errors.Join(err, stop(), <-served)
		}
	}
	describe(out, sim, o.dir)

	select {
	case <-ctx.Done():
		err = errors.Join(stop(), <-served)
	case err = <-served:
		err = errors.Join(err, stop())
	}
	if o.dir != "" {
		err = errors.Join(err, withdraw(o.dir))
	}
	return err
}

// describe prints what a person needs to know, without any secret.
func describe(out io.Writer, sim *graphtest.Simulator, dir string) {
	app := sim.App()
	say(out, "Simulating Entra ID, Microsoft Graph and sensor registration at %s\n", sim.URL())
	say(out, "  tenant_id  %s\n  client_id  %s\n", app.TenantID, app.ClientID)
	say(out, "  managed identities at %s\n", sim.MetadataURL())
	if dir == "" {
		say(out, "  the secrets and the CA certificate are not written: set -dir\n")
		return
	}
	say(out, "  the secrets and the CA certificate are in %s\n", dir)
}
