// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// host is a simulated host. It does what an Agent and an installer do.
type host struct {
	number int
	vault  *testbed.Client // with the host's own token
	path   string
	tenant registrar
	record *record
}

// run reads the key, registers a sensor, and reads again when the lease nears its end,
// unless that is after until.
func (h *host) run(ctx context.Context, until time.Time) {
	for n := 0; ; n++ {
		lease, err := h.acquire(ctx)
		if err != nil {
			h.record.problem = err
			return
		}
		wait := rereadAfter(h.number, n, lease)
		if time.Now().Add(wait).After(until) || command.Pause(ctx, wait) != nil {
			return
		}
	}
}

// acquire reads until it succeeds, or gives up as an Agent does. It returns the duration
// of the lease.
func (h *host) acquire(ctx context.Context) (lease time.Duration, err error) {
	for failures := 0; ; failures++ {
		lease, err = h.read(ctx)
		if err == nil {
			return lease, nil
		}
		wait, more := retryAfter(failures)
		if !more || command.Pause(ctx, wait) != nil {
			return 0, err
		}
	}
}

func (h *host) read(ctx context.Context) (lease time.Duration, err error) {
	start := time.Now()
	secret, err := h.vault.Logical().ReadWithContext(ctx, h.path)
	if err == nil && secret == nil {
		err = errors.New("there is nothing at " + h.path)
	}
	at := time.Now()
	h.record.read(at.Sub(start), err)
	if err != nil {
		return 0, err
	}
	key, _ := secret.Data["deployment_access_key"].(string)
	return time.Duration(secret.LeaseDuration) * time.Second, h.record.hold(ctx, h.tenant, key, at)
}
