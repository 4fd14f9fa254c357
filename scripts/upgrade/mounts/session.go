// SPDX-License-Identifier: MPL-2.0

package mounts

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// Session calls Vault. It keeps the first failure in Err, and does nothing after it.
type Session struct {
	Err error

	ctx   context.Context
	vault *testbed.Client
}

// Read returns a secret without data if there is nothing at the path.
func (s *Session) Read(path string) *api.Secret {
	return s.answer(func(l *api.Logical) (*api.Secret, error) { return l.ReadWithContext(s.ctx, path) })
}

// Write writes fields to a path.
func (s *Session) Write(path string, fields map[string]any) *api.Secret {
	return s.answer(func(l *api.Logical) (*api.Secret, error) { return l.WriteWithContext(s.ctx, path, fields) })
}

func (s *Session) answer(call func(*api.Logical) (*api.Secret, error)) *api.Secret {
	if s.Err == nil {
		var found *api.Secret
		if found, s.Err = call(s.vault.Logical()); found != nil {
			return found
		}
	}
	return &api.Secret{}
}

// ReadKey reads a key and returns it with the id of its lease.
func (s *Session) ReadKey(path string) (key, leaseID string) {
	answer := s.Read(path)
	key, _ = answer.Data["deployment_access_key"].(string)
	return key, answer.LeaseID
}

// Stored returns what Vault has stored at a path, which is JSON.
func (s *Session) Stored(path string) json.RawMessage {
	value, _ := s.Read("sys/raw/" + path).Data["value"].(string)
	if s.Err == nil && value == "" {
		s.Err = errors.New("nothing is stored at " + path)
	}
	return json.RawMessage(value)
}

// storage is what Vault has stored below a path. It can only be read.
type storage struct {
	logical.Storage // nil
	*Session
	path string
}

func (s storage) List(ctx context.Context, prefix string) ([]string, error) {
	return testbed.List(ctx, s.vault, "sys/raw/"+s.path+prefix)
}

func (s storage) Get(_ context.Context, name string) (*logical.StorageEntry, error) {
	return &logical.StorageEntry{Value: s.Stored(s.path + name)}, s.Err
}
