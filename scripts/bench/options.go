// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

// options are the command's parameters.
type options struct {
	readers   int // clients
	seconds   int // of reading, for each engine
	leases    int // of each engine
	rounds    int // into which reading and revoking are divided
	mounts    int // of each engine
	restarts  int // of each engine's plugin
	reads     int // that regenerate, one after the other
	scale     int // the most leases on one key
	withPeers bool
	revision  string // of the engine, to compare with
	document  string
	profiles  string // folder

	line string // the command's, without what does not change figures
}

// shortRun are the parameters of a short run.
var shortRun = map[string]string{
	"seconds": "2", "leases": "400", "rounds": "2", "mounts": "5", "restarts": "2", "alone": "5", "scale": "1000",
}

func parse(arguments []string) (options, error) {
	var o options
	short := false
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.readers, "clients", 64, "`number` of clients that read at the same time, each with its own token")
	flags.IntVar(&o.seconds, "seconds", 20, "`seconds` of reading, for each engine")
	flags.IntVar(&o.leases, "leases", 10_000, "`number` of leases to revoke, for each engine; a fifth of it for the peers")
	flags.IntVar(&o.rounds, "rounds", 10, "`number` of turns into which reading and revoking are divided")
	flags.IntVar(&o.mounts, "mounts", 100, "`number` of mounts of each engine whose memory is measured")
	flags.IntVar(&o.restarts, "restarts", 9, "`number` of restarts to measure start-up and memory")
	flags.IntVar(&o.reads, "alone", 60, "`number` of regenerating reads one after the other; a quarter of it while Graph is slow")
	flags.IntVar(&o.scale, "scale", 100_000, "largest `number` of live leases on one key, of which there are 100 at first; 0: none of this")
	flags.BoolVar(&o.withPeers, "peers", true, "also measure two other engines")
	flags.StringVar(&o.revision, "compare", "", "`revision` of the engine to measure beside the one here")
	flags.BoolVar(&short, "short", false, "a run of seconds to show that everything works: small defaults for all of these")
	flags.StringVar(&o.document, "write", "", "Markdown `file` to put the report into, between its marks; a figure is written beside it")
	flags.StringVar(&o.profiles, "profile", "", "`folder` for profiles of the engine's reads and revocations; nothing else is done then")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments: %q", flags.Args())
	}
	o.line = commandLine(flags)
	o.withPeers = o.withPeers && o.profiles == ""
	if short {
		if err := shorten(flags); err != nil {
			return o, err
		}
	}
	return o, o.validate()
}

// shorten sets the parameters that the command line does not.
func shorten(flags *flag.FlagSet) error {
	var given []string
	flags.Visit(func(f *flag.Flag) { given = append(given, f.Name) })
	for name, value := range shortRun {
		if slices.Contains(given, name) {
			continue
		}
		if err := flags.Set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// commandLine returns the command that repeats the measurement.
func commandLine(flags *flag.FlagSet) string {
	var given []string
	flags.Visit(func(f *flag.Flag) {
		if f.Name != "write" {
			given = append(given, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	if len(given) == 0 {
		return "make bench"
	}
	return fmt.Sprintf("make bench ARGS=%q", strings.Join(given, " "))
}

func (o options) validate() error {
	switch {
	case min(o.readers, o.seconds, o.rounds, o.leases, o.restarts, o.reads) < 1:
		return errors.New("every number has to be above 0")
	case o.leases < o.rounds:
		return errors.New("there have to be as many leases as rounds")
	case o.scale != 0 && o.scale < fewest:
		return fmt.Errorf("the number of leases on one key begins with %d", fewest)
	case o.mounts < 2:
		return errors.New("it takes two mounts to see the cost of a further one")
	case o.profiles != "" && o.document+o.revision != "":
		return errors.New("-profile makes no report for -write or -compare")
	}
	return nil
}

// turn is how long clients read from an engine before it is the turn of another.
func (o options) turn() time.Duration {
	return time.Duration(o.seconds) * time.Second / time.Duration(o.rounds)
}

// few is how long clients read what needs less precision.
func (o options) few() time.Duration { return time.Duration(o.seconds) * time.Second / 4 }

// share is a round's part of a number of leases.
func (o options) share(leases, round int) int {
	n := leases / o.rounds
	if round < leases%o.rounds {
		n++
	}
	return n
}
