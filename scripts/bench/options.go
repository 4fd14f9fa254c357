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
	clients  int
	seconds  int // of reading, for each engine
	leases   int // of each engine
	rounds   int // into which either is divided
	mounts   int // of each engine
	restarts int // of each engine's plugin
	alone    int // regenerating reads, one after the other
	peers    bool
	document string
	profiles string // folder

	line string // the command's, without what does not change figures
}

// shortly are the parameters of a short run.
var shortly = map[string]string{
	"seconds": "2", "leases": "400", "rounds": "2", "mounts": "5", "restarts": "1", "alone": "10",
}

func parse(arguments []string) (options, error) {
	var o options
	short := false
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.clients, "clients", 64, "`number` of clients that read at the same time, each with a token of its own")
	flags.IntVar(&o.seconds, "seconds", 20, "`seconds` of reading, for each engine")
	flags.IntVar(&o.leases, "leases", 10_000, "`number` of leases to revoke, for each engine; a fifth of it for the peers")
	flags.IntVar(&o.rounds, "rounds", 10, "`number` of turns that reading and revoking are divided into")
	flags.IntVar(&o.mounts, "mounts", 100, "`number` of mounts of each engine whose memory is measured")
	flags.IntVar(&o.restarts, "restarts", 5, "`number` of restarts for start-up and memory, of which the medians count")
	flags.IntVar(&o.alone, "alone", 100, "`number` of regenerating reads one after the other; a quarter of it when Graph takes its time")
	flags.BoolVar(&o.peers, "peers", true, "measure two other engines as well")
	flags.BoolVar(&short, "short", false, "a run of seconds that shows that everything works: small defaults for all these")
	flags.StringVar(&o.document, "write", "", "Markdown `file` to put the report into, between its marks")
	flags.StringVar(&o.profiles, "profile", "", "`folder` for profiles of the engine's reads and revocations, which are all that is done then")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments: %q", flags.Args())
	}
	o.line = commandLine(flags)
	if short {
		if err := shorten(flags); err != nil {
			return o, err
		}
	}
	return o, o.validate()
}

// shorten sets what the command line leaves open.
func shorten(flags *flag.FlagSet) error {
	var given []string
	flags.Visit(func(f *flag.Flag) { given = append(given, f.Name) })
	for name, value := range shortly {
		if slices.Contains(given, name) {
			continue
		}
		if err := flags.Set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// commandLine returns the command that makes the same figures again.
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
	case min(o.clients, o.seconds, o.rounds, o.leases, o.restarts, o.alone) < 1:
		return errors.New("every number has to be above 0")
	case o.leases < o.rounds:
		return errors.New("there have to be as many leases as rounds")
	case o.mounts < 2:
		return errors.New("what a further mount costs takes two mounts to see")
	case o.profiles != "" && o.document != "":
		return errors.New("-profile makes no report for -write")
	}
	return nil
}

// turn is how long an engine is read from before it is the other's turn.
func (o options) turn() time.Duration {
	return time.Duration(o.seconds) * time.Second / time.Duration(o.rounds)
}

// few is how long the peers are read from, whose figures are not compared to a hair.
func (o options) few() time.Duration { return time.Duration(o.seconds) * time.Second / 4 }

// share is how many of a number of leases are a round's.
func (o options) share(leases, round int) int {
	n := leases / o.rounds
	if round < leases%o.rounds {
		n++
	}
	return n
}

// peerLeases is how many leases of a peer are revoked: each takes a call upstream.
func (o options) peerLeases() int { return max(o.leases/5, o.rounds) }
