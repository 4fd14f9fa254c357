// SPDX-License-Identifier: MPL-2.0

// Package command is what the programs below scripts/ have in common.
package command

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

// interrupted is the exit code after Ctrl-C, as a shell reports it.
const interrupted = 130

// Main runs a program with its arguments until it is done or interrupted, and ends
// the process. Results belong on stdout; an error goes to stderr.
func Main(run func(ctx context.Context, arguments []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	code := 1
	if ctx.Err() != nil {
		code = interrupted
	}
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(code)
}

// Progress reports progress on stderr.
func Progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// Pause waits, unless the context ends first.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
