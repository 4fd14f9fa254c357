// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// session calls Vault. It keeps the first failure, and does nothing after it.
type session struct {
	ctx   context.Context
	vault *testbed.Vault
	err   error
}

// read returns a secret without data if there is nothing at the path.
func (s *session) read(path string) *api.Secret {
	if s.err == nil {
		var found *api.Secret
		if found, s.err = s.vault.Logical().ReadWithContext(s.ctx, path); found != nil {
			return found
		}
	}
	return &api.Secret{}
}

func (s *session) write(path string, fields map[string]any) {
	if s.err == nil {
		_, s.err = s.vault.Logical().WriteWithContext(s.ctx, path, fields)
	}
}

// readKey reads a key and returns it with the id of its lease.
func (s *session) readKey(path string) (key, leaseID string) {
	answer := s.read(path)
	key, _ = answer.Data["deployment_access_key"].(string)
	return key, answer.LeaseID
}

// stored returns what Vault has stored at a path, which is JSON.
func (s *session) stored(path string) json.RawMessage {
	value, _ := s.read("sys/raw/" + path).Data["value"].(string)
	if s.err == nil && value == "" {
		s.err = errors.New("nothing is stored at " + path)
	}
	return json.RawMessage(value)
}

// storage is what Vault has stored below a path. It can only be read.
type storage struct {
	logical.Storage // nil
	*session
	path string
}

func (s storage) List(ctx context.Context, prefix string) ([]string, error) {
	return testbed.List(ctx, s.vault, "sys/raw/"+s.path+prefix)
}

func (s storage) Get(_ context.Context, name string) (*logical.StorageEntry, error) {
	return &logical.StorageEntry{Value: s.stored(s.path + name)}, s.err
}
