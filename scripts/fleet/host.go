// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// host is a simulated host: what an Agent and an installer do, without either.
type host struct {
	number  int
	vault   *testbed.Client // with the host's own token
	path    string
	tenant  registrar
	journal *journal
}

// run reads the key, registers a sensor, and reads again when the lease nears its
// end, as long as that is not after until.
func (h *host) run(ctx context.Context, until time.Time) {
	for n := 0; ; n++ {
		lease, err := h.acquire(ctx)
		if err != nil {
			h.journal.giveUp(err)
			return
		}
		wait := rereadAfter(h.number, n, lease)
		if time.Now().Add(wait).After(until) || pause(ctx, wait) != nil {
			return
		}
	}
}

// acquire reads until it succeeds, or gives up as an Agent does, and returns the
// duration of the lease.
func (h *host) acquire(ctx context.Context) (lease time.Duration, err error) {
	for failures := 0; ; failures++ {
		lease, err = h.read(ctx)
		if err == nil {
			return lease, nil
		}
		wait, more := retryAfter(failures)
		if !more || pause(ctx, wait) != nil {
			return 0, err
		}
	}
}

func (h *host) read(ctx context.Context) (lease time.Duration, err error) {
	var (
		answer testbed.Answer
		data   struct {
			Key string `json:"deployment_access_key"`
		}
	)
	start := time.Now()
	err = h.vault.Call(ctx, http.MethodGet, h.path, nil, &answer)
	if err == nil {
		err = json.Unmarshal(answer.Data, &data)
	}
	at := time.Now()
	h.journal.read(at.Sub(start), err)
	if err != nil {
		return 0, err
	}
	return time.Duration(answer.LeaseDuration) * time.Second, h.journal.hold(ctx, h.tenant, data.Key, at)
}

// pause waits, but not longer than the context lasts.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
