// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// lookEvery is how often the file of an agent is looked at, and hence how exactly
// is known when it changed.
const lookEvery = 100 * time.Millisecond

// agent is a real Vault Agent that writes the key to a file, and what stands beside
// it on the host: an installer that takes the file.
type agent struct {
	testbed.Agent
	tenant  registrar
	journal *journal
}

// run starts the agent and follows its file until a time.
func (a *agent) run(ctx context.Context, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	process, err := a.begin()
	if err != nil {
		a.journal.giveUp(err)
		return
	}
	defer process.Stop()
	for {
		if err := a.look(ctx); err != nil && ctx.Err() == nil {
			a.journal.giveUp(err)
			return
		}
		select {
		case <-ctx.Done():
			if _, ok := a.journal.last(); !ok {
				a.journal.giveUp(fmt.Errorf("the agent wrote no file: %s", a.lastWords()))
			}
			return
		case <-process.Ended():
			a.journal.giveUp(fmt.Errorf("the agent ended by itself: %s", a.lastWords()))
			return
		case <-time.After(lookEvery):
		}
	}
}

// look takes the key from the file, if there is one.
func (a *agent) look(ctx context.Context) error {
	at := time.Now()
	key, err := os.ReadFile(a.KeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.journal.hold(ctx, a.tenant, string(key), at)
}

func (a *agent) begin() (*testbed.Process, error) {
	if err := os.Mkdir(a.Dir, 0o700); err != nil {
		return nil, err
	}
	return a.Start()
}

// lastWords returns the end of the agent's log, which is removed with its folder.
func (a *agent) lastWords() string {
	log, err := os.ReadFile(a.Log)
	if err != nil {
		return err.Error()
	}
	const enough = 500
	return string(log[max(0, len(log)-enough):])
}
