// SPDX-License-Identifier: MPL-2.0

// Package storagetest has a storage that fails on demand, for tests of packages that
// store something:
//
//	s := storagetest.New()
//	s.FailWhen(storagetest.Nth(1, "put", "lease/"))
//	_, err := ledger.Add(ctx, s, version, end) // errors.Is(err, storagetest.ErrBroken)
package storagetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// ErrBroken is the error of an operation that was made to fail. It is none of the
// sentinel errors of storages, since those are lost over gRPC.
var ErrBroken = errors.New("the storage is broken")

// Storage is a storage of which single operations fail.
type Storage struct {
	logical.Storage

	mu   sync.Mutex
	fail func(op, key string) bool
	hang func(op, key string) bool
	lie  func(op, key string) bool
}

// New returns an empty storage in memory that fails nothing yet.
func New() *Storage { return &Storage{Storage: &logical.InmemStorage{}} }

// FailWhen makes the operations fail for which fail returns true; nil: none. The
// operations are "get", "put", "delete" and "list". fail may count what it sees.
func (s *Storage) FailWhen(fail func(op, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// HangWhen makes the operations hang, until their context ends, for which hang returns
// true; nil: none.
func (s *Storage) HangWhen(hang func(op, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hang = hang
}

// LieWhen makes the writes fail for which lie returns true, although they are carried out;
// nil: none.
func (s *Storage) LieWhen(lie func(op, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lie = lie
}

// told returns what is told of a write that ended with err.
func (s *Storage) told(op, key string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.lie != nil && s.lie(op, key) {
		return ErrBroken
	}
	return err
}

func (s *Storage) check(ctx context.Context, op, key string) error {
	s.mu.Lock()
	hangs, fails := s.hang != nil && s.hang(op, key), s.fail != nil && s.fail(op, key)
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if fails {
		return ErrBroken
	}
	return nil
}

// write makes a change, unless it is to fail.
func (s *Storage) write(ctx context.Context, op, key string, change func() error) error {
	if err := s.check(ctx, op, key); err != nil {
		return err
	}
	return s.told(op, key, change())
}

// Get implements logical.Storage.
func (s *Storage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.check(ctx, "get", key); err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

// Put implements logical.Storage.
func (s *Storage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.write(ctx, "put", entry.Key, func() error { return s.Storage.Put(ctx, entry) })
}

// Delete implements logical.Storage.
func (s *Storage) Delete(ctx context.Context, key string) error {
	return s.write(ctx, "delete", key, func() error { return s.Storage.Delete(ctx, key) })
}

// List implements logical.Storage.
func (s *Storage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.check(ctx, "list", prefix); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

// Slow is a storage of which each operation takes some time: whatever its context says, or,
// if it heeds that, no longer than it lasts.
type Slow struct {
	logical.Storage
	Takes time.Duration
	Heeds bool
}

func (s *Slow) wait(ctx context.Context) error {
	if !s.Heeds {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-time.After(s.Takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements logical.Storage.
func (s *Slow) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

// Put implements logical.Storage.
func (s *Slow) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Storage.Put(ctx, entry)
}

// Delete implements logical.Storage.
func (s *Slow) Delete(ctx context.Context, key string) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

// List implements logical.Storage.
func (s *Slow) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

// EndWithContext requires that each use ends when its context does. The test runs in a
// bubble of testing/synctest.
func EndWithContext(t testing.TB, uses map[string]func(context.Context) error) {
	t.Helper()
	const limit = 100 * time.Millisecond
	for name, use := range uses {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		start := time.Now()
		require.ErrorIs(t, use(ctx), context.DeadlineExceeded, name)
		require.Equal(t, limit, time.Since(start), name)
		cancel()
	}
}

// Nth fails the n-th operation of a kind on a key, counted from 1.
func Nth(n int, op, prefix string) func(string, string) bool {
	return func(o, k string) bool {
		if o == op && strings.HasPrefix(k, prefix) {
			n--
			return n == 0
		}
		return false
	}
}
