// SPDX-License-Identifier: MPL-2.0

// Command bench compares the engine with one that does nothing but lease a
// constant, on one Vault with raft storage, in one run: first how long it takes
// until many leases that are revoked by prefix are gone, then how many reads a
// second many clients get when the key is shared.
//
// The two take turns, so that what else the machine does strikes both. The figures
// are of this machine; the ratios are what to look at.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command's parameters.
type options struct {
	clients int
	seconds int // of reading, for each engine
	leases  int // of each engine
	rounds  int // into which either is divided
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, arguments []string) error {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	a, err := openArena(ctx, o)
	if err != nil {
		return err
	}
	res, err := a.measure(ctx, o)
	if err != nil {
		return errors.Join(err, a.close())
	}
	return errors.Join(res.print(os.Stdout, o), a.close())
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.clients, "clients", 64, "`number` of clients that read at the same time, each with a token of its own")
	flags.IntVar(&o.seconds, "seconds", 20, "`seconds` of reading, for each engine")
	flags.IntVar(&o.leases, "leases", 10_000, "`number` of leases to revoke, for each engine")
	flags.IntVar(&o.rounds, "rounds", 10, "`number` of turns that reading and revoking are divided into")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if min(o.clients, o.seconds, o.rounds, o.leases) < 1 || flags.NArg() > 0 {
		return o, errors.New("every parameter is a number above 0, and there are no arguments")
	}
	if o.leases < o.rounds {
		return o, errors.New("there have to be as many leases as rounds")
	}
	return o, nil
}

// turn is how long an engine is read from before it is the other's turn.
func (o options) turn() time.Duration {
	return time.Duration(o.seconds) * time.Second / time.Duration(o.rounds)
}

// share is how many of an engine's leases are a round's.
func (o options) share(round int) int {
	n := o.leases / o.rounds
	if round < o.leases%o.rounds {
		n++
	}
	return n
}

// progress tells on stderr what is going on: stdout belongs to the results.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
