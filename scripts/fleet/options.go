// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

// options are the command's parameters.
type options struct {
	hosts       int
	agents      int
	window      time.Duration
	length      time.Duration // after the window
	ttl         time.Duration
	maxKeyAge   time.Duration // anyAge: the role has none
	rotateAfter time.Duration // after the window; 0: never
	thenDisable outage        // empty: the mount stays

	vaultAddr    string // empty: the fleet starts its own Vault
	simulatorDir string
	mount, role  string
	storage      string
}

// anyAge is a maximum age that is not set.
const anyAge = time.Duration(-1)

// outage is the state that Graph is in when the mount is disabled.
type outage string

const (
	graphUp     outage = "up"
	graphDown   outage = "down"   // refuses connections
	graphSilent outage = "silent" // takes requests and never answers
)

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.IntVar(&o.hosts, "hosts", 1000, "`number` of simulated hosts")
	flags.IntVar(&o.agents, "agents", 0, "`number` of real Vault Agents instead of simulated hosts")
	flags.DurationVar(&o.window, "window", 10*time.Second, "`time` within which they start, evenly spread")
	flags.DurationVar(&o.length, "for", 0, "`time` for which they keep reading after the window")
	flags.DurationVar(&o.ttl, "ttl", time.Minute, "the role's ttl, a `time`")
	flags.DurationVar(&o.maxKeyAge, "max-key-age", anyAge, "the role's max_key_age, a `time`; negative leaves it unset")
	flags.DurationVar(&o.rotateAfter, "rotate-after", 0, "rotate the key this `time` after the window; 0 means never")
	flags.StringVar((*string)(&o.thenDisable), "then-disable", "",
		"disable the mount at the end, with Graph in this `state`: up, down (refuses connections) or silent (never answers)")
	flags.StringVar(&o.vaultAddr, "vault-addr", "", "`address` of a Vault with the engine configured for a simulator; its token is $VAULT_TOKEN")
	flags.StringVar(&o.simulatorDir, "simulator-dir", os.Getenv("MDI_SIMULATOR_DIR"), "`directory` of that simulator, by default $MDI_SIMULATOR_DIR")
	flags.StringVar(&o.mount, "mount", "mdi", "`path` of the engine")
	flags.StringVar(&o.role, "role", "fleet", "`name` of the role; it is written")
	flags.StringVar(&o.storage, "storage", "raft", "`storage` of the fleet's own Vault: raft, which is on disk, or inmem")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments: %q", flags.Args())
	}
	return o, o.validate()
}

func (o options) validate() error {
	switch {
	case o.members() < 1:
		return errors.New("no hosts")
	case min(o.window, o.length, o.rotateAfter) < 0 || o.ttl < time.Second:
		return errors.New("times cannot be negative, nor the ttl be less than a second")
	case o.thenDisable != "" && !slices.Contains([]outage{graphUp, graphDown, graphSilent}, o.thenDisable):
		return fmt.Errorf("-then-disable %q is none of up, down, silent", o.thenDisable)
	case o.thenDisable != "" && o.vaultAddr != "":
		return errors.New("-then-disable needs a Vault that the fleet starts itself, not a mount in use")
	case o.vaultAddr != "" && o.simulatorDir == "":
		return errors.New("-vault-addr needs -simulator-dir")
	case o.rotateAfter > 0 && o.length < o.rotateAfter+o.bound():
		return fmt.Errorf("-for has to be at least %v: each host has %v after the rotation to read again", o.rotateAfter+o.bound(), o.bound())
	}
	return nil
}

// members is the number of hosts or agents.
func (o options) members() int {
	if o.agents > 0 {
		return o.agents
	}
	return o.hosts
}

// bound is how long a host may hold a superseded key without noticing.
func (o options) bound() time.Duration { return time.Duration(latestReread * float64(o.ttl)) }

// keyPath is the path that hosts read.
func (o options) keyPath() string { return o.mount + "/key/" + o.role }
