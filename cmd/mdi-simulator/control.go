// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// control is an action on a running simulator.
type control func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error

// controlling adapts the setup of a control: it adds the flag that selects the simulator.
func controlling(setup func(*flag.FlagSet) control) func(*flag.FlagSet) action {
	return func(flags *flag.FlagSet) action {
		dir := flags.String("dir", os.Getenv(dirVariable), "`directory` of the simulator; by default $"+dirVariable)
		do := setup(flags)
		return func(ctx context.Context, t terminal, arguments []string) error {
			info, err := lookup(*dir)
			if err != nil {
				return err
			}
			sim, err := graphtest.NewClient(info)
			if err != nil {
				return err
			}
			return do(ctx, sim, t, arguments)
		}
	}
}

// plain returns a control that takes no arguments and prints a fixed result.
func plain(do func(context.Context, *graphtest.Client) error, result string) control {
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		if err := do(ctx, sim); err != nil {
			return err
		}
		say(t.out, "%s\n", result)
		return nil
	}
}

func setupCalls(*flag.FlagSet) control {
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		shown := graphtest.Operations()
		if len(arguments) > 0 {
			op := graphtest.Operation(arguments[0])
			if !slices.Contains(shown, op) {
				return usageError{fmt.Errorf("unknown operation %q", op)}
			}
			shown = []graphtest.Operation{op}
		}
		calls, err := sim.Calls(ctx)
		if err != nil {
			return err
		}
		for _, op := range shown {
			say(t.out, "%s %v\n", op, calls[op])
		}
		return nil
	}
}

func setupClear(*flag.FlagSet) control {
	return plain(func(ctx context.Context, sim *graphtest.Client) error { return sim.Clear(ctx) }, "cleared")
}

func setupPortal(*flag.FlagSet) control {
	return plain(func(ctx context.Context, sim *graphtest.Client) error {
		return sim.RegenerateInPortal(ctx)
	}, "regenerated")
}

func setupFault(flags *flag.FlagSet) control {
	var f graphtest.Fault
	flags.Func("operation", "`operation` to disturb; by default any call of Graph", func(v string) error {
		f.Operation = graphtest.Operation(v)
		return nil
	})
	flags.Func("body", "`kind` of body: html, empty, truncated, wrong-content-type, disagreeing-keys, malformed-token, old-key",
		func(v string) error {
			f.Body = graphtest.BodyKind(v)
			return nil
		})
	flags.IntVar(&f.Times, "times", 0, "`number` of calls to disturb; 0 means all until clear")
	flags.IntVar(&f.Status, "status", 0, "`status` to answer, 300 to 599")
	flags.StringVar(&f.Code, "code", "", "error `code` to answer; a number for discovery and token")
	flags.StringVar(&f.RetryAfter, "retry-after", "", "Retry-After `header`: seconds or an HTTP date")
	flags.DurationVar(&f.Latency, "latency", 0, "`duration` to wait before the fault strikes")
	flags.BoolVar(&f.AfterWork, "after-work", false, "strike after the work is done")
	flags.BoolVar(&f.Stubborn, "stubborn", false, "do the work even if the client goes away")
	flags.BoolVar(&f.Claims, "claims", false, "answer with a claims challenge")
	flags.BoolVar(&f.Reset, "reset", false, "reset the connection")
	flags.BoolVar(&f.Lost, "lost", false, "close the connection")
	return plain(func(ctx context.Context, sim *graphtest.Client) error {
		if err := f.Validate(); err != nil {
			return usageError{err}
		}
		return sim.Inject(ctx, f)
	}, "injected")
}

func setupWait(flags *flag.FlagSet) control {
	var wait graphtest.WaitRequest
	flags.Func("operation", "`operation` to wait for", func(v string) error {
		wait.Operation = graphtest.Operation(v)
		return nil
	})
	flags.IntVar(&wait.Started, "started", 0, "`number` of calls that have arrived")
	flags.IntVar(&wait.Performed, "performed", 0, "`number` of calls whose work is done")
	flags.IntVar(&wait.Answered, "answered", 0, "`number` of calls that are answered")
	timeout := flags.Duration("timeout", 20*time.Second, "`duration` to wait at most")
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		if wait.Calls == (graphtest.Calls{}) {
			return usageError{errors.New("no count to wait for: set -started, -performed or -answered")}
		}
		wait.Timeout = timeout.String()
		reached, err := sim.Wait(ctx, wait)
		if err != nil {
			return err
		}
		say(t.out, "%s %v\n", wait.Operation, reached)
		return nil
	}
}

func setupRegister(flags *flag.FlagSet) control {
	file := flags.String("key-file", "", "`file` with the key, byte for byte")
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		key, err := readKey(*file, t.in, arguments)
		if err != nil {
			return err
		}
		registered, err := sim.Register(ctx, string(key))
		if err != nil {
			return err
		}
		if !registered {
			say(t.out, "refused\n")
			return errRefused
		}
		say(t.out, "registered\n")
		return nil
	}
}

// readKey does not change the key: the test is whether it works as it is, newline
// included.
func readKey(file string, in io.Reader, arguments []string) ([]byte, error) {
	fromInput := slices.Equal(arguments, []string{"-"})
	switch {
	case file != "" && len(arguments) == 0:
		return os.ReadFile(file) //nolint:gosec // naming the file is what the flag is for
	case file == "" && fromInput:
		return io.ReadAll(in)
	default:
		return nil, usageError{errors.New("register needs either -key-file or - for standard input")}
	}
}

func setupIssued(*flag.FlagSet) control {
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		secrets, err := sim.Issued(ctx)
		for _, secret := range secrets {
			say(t.out, "%s\n", secret)
		}
		return err
	}
}
