// SPDX-License-Identifier: MPL-2.0

// Command bench measures what the engine costs, on real Vaults with raft storage and
// against simulated tenants, and prints a report. Most figures are compared with those of
// a baseline, an engine that does nothing but lease a constant. Two engines for other
// services, listed in peers/go.mod, are measured as well.
//
//	bench                                a full run
//	bench -short                         a run that shows that everything works
//	bench -write docs/benchmarks.md      also puts the report into that document, and a figure beside it
//	bench -compare v0.1.0                also measures another revision of the engine
//	bench -profile DIR                   writes profiles of the engine instead
//
// The engines take turns, so that all of them suffer alike from other work of the machine.
// The absolute figures are of one machine; look at the ratios.
package main

import (
	"context"
	"errors"
	"fmt"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

func main() { command.Main(run) }

func run(ctx context.Context, arguments []string) (err error) {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	s := &suite{options: o, tenants: map[string]*testbed.Tenant{}}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.build(ctx); err != nil {
		return err
	}
	if s.profiles != "" {
		return s.profile(ctx)
	}
	res, err := s.measure(ctx)
	if err != nil {
		return err
	}
	fmt.Print(res.text())
	if s.document == "" {
		return nil
	}
	if err := writeInto(s.document, res.text()); err != nil {
		return err
	}
	return s.draw(ctx, s.document, res.charts())
}
