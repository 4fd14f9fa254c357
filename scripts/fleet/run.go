// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// settling is the time after the end for the last reads, registrations and starts of
// agents.
const settling = 3 * time.Second

// member of a fleet: a simulated host or a real agent.
type member interface {
	run(ctx context.Context, until time.Time)
}

// run runs the fleet and reports the outcome.
func (e *env) run(ctx context.Context, o options) (*report, error) {
	command.Progress("creating %d tokens", o.members())
	lasting := o.window + o.length + o.ttl + 10*time.Minute // leases end with the token that read them
	tokens, err := e.operator.IssueTokens(ctx, o.members(), "mdi-"+o.role, lasting, o.keyPath())
	if err != nil {
		return nil, err
	}
	before, err := e.posts(ctx)
	if err != nil {
		return nil, err
	}
	rep := &report{}
	members := make([]member, len(tokens))
	for i, token := range tokens {
		rep.records = append(rep.records, &record{})
		members[i] = e.member(o, i, token, rep.records[i])
	}
	command.Progress("%d members start within %v; this takes %v", len(members), o.window, o.window+o.length+settling)
	if rep.rotatedAt, err = e.start(ctx, members, o); err != nil {
		return nil, err
	}
	after, err := e.posts(ctx)
	if err != nil {
		return nil, err
	}
	rep.posts = after - before
	if rep.irrevocable, err = testbed.Irrevocable(ctx, e.operator); err != nil {
		return nil, err
	}
	if o.thenDisable != "" {
		rep.disabled, err = e.disable(ctx, o, rep.newest().key)
	}
	return rep, err
}

// member makes a member with its own token and record.
func (e *env) member(o options, number int, token string, r *record) member {
	if o.agents == 0 {
		return &host{number: number, vault: e.operator.As(token), path: o.keyPath(), tenant: e.tenant, record: r}
	}
	dir := filepath.Join(e.dir, "agent-"+strconv.Itoa(number+1))
	return &agent{tenant: e.tenant, record: r, Agent: testbed.Agent{
		Binary: e.binary, Address: e.operator.Address(), Token: token, Path: o.keyPath(),
		Dir: dir, Log: filepath.Join(dir, "agent.log"), Level: "warn", Env: testbed.Environment(dir, dir),
	}}
}

// start starts the members and returns when all have ended. Meanwhile it rotates the key
// if the options say so, and returns when.
func (e *env) start(ctx context.Context, members []member, o options) (rotatedAt time.Time, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	end := time.Now().Add(o.window + o.length + settling)
	for i, m := range members {
		wg.Go(func() {
			if command.Pause(ctx, startOffset(i, o.window)) == nil {
				m.run(ctx, end)
			}
		})
	}
	if o.rotateAfter > 0 {
		if rotatedAt, err = e.rotate(ctx, o); err != nil {
			cancel()
		}
	}
	wg.Wait()
	if err == nil {
		err = ctx.Err() // the run was interrupted
	}
	return rotatedAt, err
}

func (e *env) rotate(ctx context.Context, o options) (time.Time, error) {
	if err := command.Pause(ctx, o.window+o.rotateAfter); err != nil {
		return time.Time{}, err
	}
	command.Progress("rotating the key")
	_, err := e.operator.Logical().WriteWithContext(ctx, o.mount+"/rotate-key", nil)
	return time.Now(), err
}
