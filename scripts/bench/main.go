// SPDX-License-Identifier: MPL-2.0

// Command bench measures what the engine costs, on real Vaults with raft storage and
// against simulated tenants, and prints a report. Most figures are compared with
// those of a baseline, an engine that does nothing but lease a constant; two engines
// of other services, which stand in peers/go.mod, are measured beside it.
//
//	bench                                a full run
//	bench -short                         a run that shows that everything works
//	bench -write docs/benchmarks.md      puts the report into that document, too
//	bench -profile DIR                   writes profiles of the engine instead
//
// The engines take turns, so that what else the machine does strikes all of them. The
// figures are of one machine; the ratios are what to look at.
package main

import (
	"context"
	"errors"
	"os"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

func main() { command.Main(run) }

func run(ctx context.Context, arguments []string) error {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	if o.profiles != "" {
		return profile(ctx, o)
	}
	b, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	report, err := b.measure(ctx)
	if err := errors.Join(err, b.close()); err != nil {
		return err
	}
	text := report.text()
	if _, err := os.Stdout.WriteString(text); err != nil {
		return err
	}
	if o.document == "" {
		return nil
	}
	return writeInto(o.document, text)
}
