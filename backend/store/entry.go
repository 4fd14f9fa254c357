// SPDX-License-Identifier: MPL-2.0

// Package store has what the owners of stored state share: how a storage entry is read and
// written, and a lock. It owns no state.
package store

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"
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
