// SPDX-License-Identifier: MPL-2.0

// Command mdi-simulator runs the simulator of package graphtest and controls a running one:
// it injects faults, waits for calls, and registers with a key as a sensor does.
//
//	mdi-simulator serve -dir /tmp/sim &
//	export MDI_SIMULATOR_DIR=/tmp/sim
//	mdi-simulator fault -operation regenerate -status 503 -times 1
//	mdi-simulator register -key-file key.txt
//
// It is a tool for tests and development and is never released: its control interface
// requires no credential.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

// dirVariable names the environment variable with the directory of a simulator.
const dirVariable = "MDI_SIMULATOR_DIR"

// errRefused means that the simulator refused a key, which is a result, not an error.
var errRefused = errors.New("refused")

// usageError is a mistake in the command line.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], terminal{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// terminal is what a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
}

// command is a subcommand. Its setup registers flags and returns the action to run after
// they are parsed.
type command struct {
	name, arguments, help string
	setup                 func(*flag.FlagSet) action
}

// action runs a command. Its arguments are those after the flags.
type action func(ctx context.Context, t terminal, arguments []string) error

func commands() []command {
	return []command{
		{"serve", "", "run a simulator until SIGINT or SIGTERM", setupServe},
		{"calls", "[operation]", "print how many calls there were", controlling(setupCalls)},
		{"fault", "", "make calls fail", controlling(setupFault)},
		{"clear", "", "remove all faults and release held calls", controlling(setupClear)},
		{"wait", "", "wait until calls have been counted", controlling(setupWait)},
		{"portal-regenerate", "", "replace the key as an administrator would", controlling(setupPortal)},
		{"register", "[-]", "register a sensor with the key in a file or on standard input", controlling(setupRegister)},
		{"issued", "", "print every secret that was issued", controlling(setupIssued)},
		{"tenant", "", "change the tenant", controlling(setupTenant)},
		{"credentials", "", "list the application's secrets and certificates by id", controlling(setupCredentials)},
		{"certificate", "", "make a certificate and register it", controlling(setupCertificate)},
		{"assertion", "", "make an assertion for a federated workload", controlling(setupAssertion)},
	}
}

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string, t terminal) int {
	err := dispatch(ctx, args, t)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errRefused):
		return exitFailure
	}
	say(t.err, "mdi-simulator: %v\n", err)
	if _, usage := errors.AsType[usageError](err); usage {
		return exitUsage
	}
	return exitFailure
}

func dispatch(ctx context.Context, args []string, t terminal) error {
	if len(args) == 0 {
		printCommands(t.err)
		return usageError{errors.New("a command is needed")}
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		printCommands(t.out)
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], t)
		}
	}
	printCommands(t.err)
	return usageError{fmt.Errorf("unknown command %q", args[0])}
}

func (c command) run(ctx context.Context, args []string, t terminal) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(t.err)
	flags.Usage = func() {
		say(t.err, "Usage: mdi-simulator %s [flags] %s\n%s\n", c.name, c.arguments, c.help)
		flags.PrintDefaults()
	}
	do := c.setup(flags)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	return do(ctx, t, flags.Args())
}

func printCommands(w io.Writer) {
	say(w, "Usage: mdi-simulator COMMAND [flags]\n")
	for _, c := range commands() {
		say(w, "  %-18s %s\n", c.name, c.help)
	}
}

// say prints to a terminal and ignores errors, which it has no way to report.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// none refuses arguments for a command that has none: most likely a flag lost its dash.
func none(arguments []string) error {
	if len(arguments) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", arguments[0])}
	}
	return nil
}
