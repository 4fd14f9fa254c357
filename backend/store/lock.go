// SPDX-License-Identifier: MPL-2.0

package store

import (
	"context"

	"golang.org/x/sync/semaphore"
)

const writer = 1 << 30

// Lock is for many readers or one writer, and nobody waits for it longer than their context
// lasts: its holder may be waiting for slow storage, and a request must end within its bound
// all the same. Those who wait get it in their order.
type Lock struct{ held *semaphore.Weighted }

// NewLock returns a lock that nobody holds.
func NewLock() Lock { return Lock{semaphore.NewWeighted(writer)} }

// Write takes the lock alone. The error is the context's.
func (l Lock) Write(ctx context.Context) (unlock func(), err error) { return l.take(ctx, writer) }

// Read takes the lock beside other readers. The error is the context's.
func (l Lock) Read(ctx context.Context) (unlock func(), err error) { return l.take(ctx, 1) }

func (l Lock) take(ctx context.Context, weight int64) (unlock func(), err error) {
	if err := l.held.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { l.held.Release(weight) }, nil
}
