// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/format"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// initializeBudget is short because core unseals no further meanwhile.
const initializeBudget = 5 * time.Second

// initialize is called by core before the first request. It looks whether a newer version
// has been here before, and loads what that request will need. It never fails, because the
// mount would not start: even where that version's entries cannot be read, leases have to
// end and the mount to be disabled.
func (b *backend) initialize(ctx context.Context, req *logical.InitializationRequest) error {
	ctx, cancel := context.WithTimeout(b.ofWork(ctx), initializeBudget)
	defer cancel()
	var others sync.WaitGroup // these ask core beside it, in the time of one question; the first reader tries again
	others.Go(func() { _, _ = b.configs.Current(ctx) })
	others.Go(func() { _, _ = b.keys.Record(ctx) })
	others.Go(func() { b.core.ask() })
	err := format.Check(ctx, req.Storage, b.WriteSafeReplicationState)
	others.Wait()
	if newer, ok := errors.AsType[*format.NewerError](err); ok {
		hclog.FromContext(ctx).Error("a newer version has stored what this one may not understand: run that version again, or restore the snapshot from before it",
			"stored_readable_from", newer.ReadableFrom, "own_format", format.Number)
	} else if err != nil {
		hclog.FromContext(ctx).Warn("reading or storing the format number", graph.LogArgs(err)...)
	}
	return nil
}
