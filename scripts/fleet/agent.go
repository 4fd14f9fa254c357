// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// pollInterval is the time between two looks at the file of an agent, and so the
// precision of the time at which it changed.
const pollInterval = 100 * time.Millisecond

// agent is a real Vault Agent that writes the key to a file, and the installer on its
// host that reads the file.
type agent struct {
	testbed.Agent
	tenant registrar
	record *record
}

// run runs the agent and follows its file until a time.
func (a *agent) run(ctx context.Context, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if err := a.follow(ctx); err != nil {
		log, _ := os.ReadFile(a.Log) // removed with its folder
		const enough = 500
		a.record.problem = fmt.Errorf("%w: %s", err, log[max(0, len(log)-enough):])
	}
}

func (a *agent) follow(ctx context.Context) error {
	if err := os.Mkdir(a.Dir, 0o700); err != nil {
		return err
	}
	process, err := a.Start()
	if err != nil {
		return err
	}
	defer process.Stop()
	for command.Pause(ctx, pollInterval) == nil {
		if err := a.look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-process.Ended():
			return errors.New("the agent ended unexpectedly")
		default:
		}
	}
	if _, ok := a.record.last(); !ok {
		return errors.New("the agent wrote no file")
	}
	return nil
}

// look reads the key from the file, if there is one.
func (a *agent) look(ctx context.Context) error {
	at := time.Now()
	key, err := os.ReadFile(a.KeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.record.hold(ctx, a.tenant, string(key), at)
}
