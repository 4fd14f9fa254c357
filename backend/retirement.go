// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// retirement checks after revocations whether the key has to be retired. Retirement is a
// state of the key, not an event, so nothing is lost if the process ends before: the
// periodic tick finds the same state. The goroutine starts with the first wake and ends
// with the backend.
type retirement struct {
	ctx   context.Context
	check func(context.Context)
	woken chan struct{}
	once  sync.Once
}

func newRetirement(ctx context.Context, check func(context.Context)) *retirement {
	return &retirement{ctx: ctx, check: check, woken: make(chan struct{}, 1)}
}

// wake makes the goroutine check soon. It never blocks. A wake during a check leads to one
// more.
func (r *retirement) wake() {
	r.once.Do(func() { go r.run() })
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *retirement) run() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.woken:
			r.check(r.ctx)
		}
	}
}

// retireIfDue retires the current key if that is due. Failures are logged and reported in
// mdi/status; the periodic tick tries again.
func (b *backend) retireIfDue(ctx context.Context) {
	ctx = b.ofWork(ctx)
	if err := b.rotation.RetireIfDue(ctx); err != nil {
		hclog.FromContext(ctx).Error("looking for a key to retire", graph.LogArgs(err)...)
	}
}
