// SPDX-License-Identifier: MPL-2.0

// Package store has what the owners of stored state share: how a storage entry is read and
// written, and a lock. It owns no state.
package store

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/semaphore"
)

// Load reads a storage entry into value, which stays as it is without one. If the entry
// cannot be decoded the error is unreadable: the decoder's own could quote what is stored.
func Load(ctx context.Context, s logical.Storage, key string, value any, unreadable error) (found bool, err error) {
	entry, err := s.Get(ctx, key)
	if err != nil || entry == nil {
		return false, err
	}
	if entry.DecodeJSON(value) != nil {
		return true, unreadable
	}
	return true, nil
}

// Save writes a storage entry.
func Save(ctx context.Context, s logical.Storage, key string, value any) error {
	entry, err := logical.StorageEntryJSON(key, value)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}

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
