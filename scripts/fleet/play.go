// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// member of a fleet: a simulated host or a real agent.
type member interface {
	run(ctx context.Context, until time.Time)
}

// play lets the fleet run and reports what became of it.
func play(ctx context.Context, s *site, o options) (*report, error) {
	command.Progress("making %d tokens", o.members())
	members, journals, err := s.recruit(ctx, o)
	if err != nil {
		return nil, err
	}
	before, err := s.calls(ctx, graphtest.Regenerate)
	if err != nil {
		return nil, err
	}
	rep := &report{journals: journals}
	command.Progress("%d members start within %v", len(members), o.window)
	rep.rotatedAt, err = s.runAll(ctx, members, o)
	if err != nil {
		return nil, err
	}
	after, err := s.calls(ctx, graphtest.Regenerate)
	if err != nil {
		return nil, err
	}
	rep.posts = after - before
	if rep.irrevocable, err = testbed.Irrevocable(ctx, s.operator); err != nil {
		return nil, err
	}
	if o.thenDisable != "" {
		rep.disabled, err = s.disable(ctx, o, rep.newest().key)
	}
	return rep, err
}

// recruit makes the members, each with a token and a journal of its own.
func (s *site) recruit(ctx context.Context, o options) ([]member, []*journal, error) {
	tokens, err := s.tokens(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	members, journals := make([]member, len(tokens)), make([]*journal, len(tokens))
	for i, token := range tokens {
		journals[i] = &journal{}
		if o.agents > 0 {
			dir := filepath.Join(s.dir, "agent-"+strconv.Itoa(i+1))
			members[i] = &agent{tenant: s.tenant, journal: journals[i], Agent: testbed.Agent{
				Binary: s.binary, Address: s.operator.Address(), Token: token, Path: o.keyPath(),
				Dir: dir, Log: filepath.Join(dir, "agent.log"), Level: "warn", Env: testbed.Environment(dir, dir),
			}}
		} else {
			members[i] = &host{number: i, vault: s.operator.As(token), path: o.keyPath(), tenant: s.tenant, journal: journals[i]}
		}
	}
	return members, journals, nil
}

// runAll runs the members, and rotates the key meanwhile if that is asked for. It
// returns when it had been rotated.
func (s *site) runAll(ctx context.Context, members []member, o options) (rotatedAt time.Time, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	end := time.Now().Add(o.window + o.length + settling)
	for i, m := range members {
		wg.Go(func() {
			if pause(ctx, startOffset(i, o.window)) == nil {
				m.run(ctx, end)
			}
		})
	}
	if o.rotateAfter > 0 {
		rotatedAt, err = s.rotate(ctx, o)
		if err != nil {
			cancel()
		}
	}
	wg.Wait()
	if err == nil {
		err = ctx.Err() // the run was interrupted
	}
	return rotatedAt, err
}

// settling is the time after the end in which the last reads and registrations, and
// the last starts of agents, come to theirs.
const settling = 3 * time.Second

func (s *site) rotate(ctx context.Context, o options) (time.Time, error) {
	if err := pause(ctx, o.window+o.rotateAfter); err != nil {
		return time.Time{}, err
	}
	command.Progress("rotating the key")
	if err := s.operator.Call(ctx, http.MethodPost, o.mount+"/rotate-key", nil, nil); err != nil {
		return time.Time{}, fmt.Errorf("rotating the key: %w", err)
	}
	return time.Now(), nil
}
