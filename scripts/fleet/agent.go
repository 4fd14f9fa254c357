// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"vault-plugin-secrets-mdi/scripts/internal/testbed"
)

// lookEvery is how often the file of an agent is looked at, and hence how exactly
// is known when it changed.
const lookEvery = 100 * time.Millisecond

// agent is a real Vault Agent that writes the key to a file, and what stands beside
// it on the host: an installer that takes the file.
type agent struct {
	binary  string // of Vault
	address string
	token   string
	path    string
	dir     string // of its own
	tenant  registrar
	journal *journal
}

// run starts the agent and follows its file until a time.
func (a *agent) run(ctx context.Context, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	process, err := a.start()
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

// look takes the key from the file, if there is one: Agent writes another file and
// renames it, so what is there is whole.
func (a *agent) look(ctx context.Context) error {
	at := time.Now()
	key, err := os.ReadFile(a.file("access-key.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.journal.hold(ctx, a.tenant, string(key), at)
}

func (a *agent) start() (*testbed.Process, error) {
	if err := os.Mkdir(a.dir, 0o700); err != nil {
		return nil, err
	}
	config, err := json.Marshal(a.config())
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(a.file("token"), []byte(a.token), 0o600),
		os.WriteFile(a.file("agent.json"), config, 0o600),
	)
	if err != nil {
		return nil, err
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir}
	return testbed.Start(a.file("agent.log"), env, a.binary, "agent", "-config="+a.file("agent.json"), "-log-level=warn")
}

func (a *agent) config() map[string]any {
	return map[string]any{
		"vault": map[string]any{"address": a.address},
		"auto_auth": map[string]any{"method": []map[string]any{{
			"type":   "token_file",
			"config": map[string]any{"token_file_path": a.file("token")},
		}}},
		"template": []map[string]any{{
			"contents":             fmt.Sprintf("{{- with secret %q -}}{{- .Data.deployment_access_key -}}{{- end -}}", a.path),
			"destination":          a.file("access-key.txt"),
			"perms":                "0600",
			"error_on_missing_key": true,
		}},
	}
}

// lastWords returns the end of the agent's log, which is removed with its folder.
func (a *agent) lastWords() string {
	log, err := os.ReadFile(a.file("agent.log"))
	if err != nil {
		return err.Error()
	}
	const enough = 500
	return string(log[max(0, len(log)-enough):])
}

func (a *agent) file(name string) string { return filepath.Join(a.dir, name) }
