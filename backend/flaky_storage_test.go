// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

var errStorage = errors.New("the storage is broken")

// flakyStorage fails the operations for which fail says so. Over gRPC the sentinel
// errors of storages are lost, so it returns a plain one.
type flakyStorage struct {
	logical.Storage
	mu   sync.Mutex
	fail func(op, key string) bool
}

func (s *flakyStorage) failing(fail func(op, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *flakyStorage) check(op, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.fail(op, key) {
		return errStorage
	}
	return nil
}

func (s *flakyStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.check("get", key); err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

func (s *flakyStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.check("put", entry.Key); err != nil {
		return err
	}
	return s.Storage.Put(ctx, entry)
}

func (s *flakyStorage) Delete(ctx context.Context, key string) error {
	if err := s.check("delete", key); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

func (s *flakyStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.check("list", prefix); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

// nth fails the n-th operation of a kind on a key, counted from 1.
func nth(n int, op, key string) func(string, string) bool {
	return func(o, k string) bool {
		if o == op && strings.HasPrefix(k, key) {
			n--
			return n == 0
		}
		return false
	}
}
