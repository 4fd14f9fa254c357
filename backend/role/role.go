// SPDX-License-Identifier: MPL-2.0

// Package role owns the roles: on which terms their readers get the key. Roles are the
// unit of policy, so a role says nothing about its readers.
package role

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/store"
)

// Prefix is where roles are stored, by name.
const Prefix = "role/"

// Names of the fields.
const (
	FieldTTL       = "ttl"
	FieldMaxKeyAge = "max_key_age"
)

// Role is on which terms its readers get the key.
type Role struct {
	TTL       time.Duration  `json:"ttl"`         // 0: the configuration's
	MaxKeyAge *time.Duration `json:"max_key_age"` // nil: a key of any age is shared
}

// Fields are the fields of a role.
func (r *Role) Fields() []field.Spec {
	return []field.Spec{
		{Name: FieldTTL, Title: "TTL", At: &r.TTL, Description: "Duration of the leases, capped by the mount's max-lease-ttl; 0 or unset takes the configuration's. The mount's default-lease-ttl has no effect."},
		{Name: FieldMaxKeyAge, Title: "Maximum key age", At: &r.MaxKeyAge, Optional: true, Description: "How old a key may be to be shared; unset shares a key of any age, 0 regenerates it at every read."},
	}
}

// Update returns the role that results from writing the fields of d over r, which is nil
// for a new one. Fields that d does not name keep their value; a JSON null unsets. Its
// error is a [*field.Error].
func (r *Role) Update(d *framework.FieldData) (*Role, error) {
	next := *cmp.Or(r, &Role{})
	return &next, field.Write(next.Fields(), d, false)
}

// Terms returns the terms of the role's readers, given those of a read without a role.
func (r *Role) Terms(base accesskey.Terms) accesskey.Terms {
	base.MaxAge = accesskey.AnyAge
	if r.TTL != 0 {
		base.TTL = r.TTL
	}
	if r.MaxKeyAge != nil {
		base.MaxAge = *r.MaxKeyAge
	}
	return base
}

// Store keeps the roles and remembers those that have been used.
type Store struct {
	storage logical.Storage

	mu    store.Lock
	known map[string]*Role
}

// NewStore returns the store of a mount.
func NewStore(storage logical.Storage) *Store {
	return &Store{storage: storage, known: map[string]*Role{}, mu: store.NewLock()}
}

// Get returns a role, nil if there is none of that name.
func (s *Store) Get(ctx context.Context, name string) (*Role, error) {
	unlock, err := s.mu.Write(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if found, known := s.known[name]; known {
		return found, nil
	}
	return s.load(ctx, name)
}

// load reads a role. The caller holds the lock. Names that do not exist are not
// remembered: there is no end of them.
func (s *Store) load(ctx context.Context, name string) (*Role, error) {
	role := &Role{}
	unreadable := fmt.Errorf("the storage entry %s of this mount cannot be decoded: delete the role and create it again", Prefix+name)
	if found, err := store.Load(ctx, s.storage, Prefix+name, role, unreadable); err != nil || !found {
		return nil, err
	}
	s.known[name] = role
	return role, nil
}

// Change stores what edit makes of a role, which is nil if there is none.
func (s *Store) Change(ctx context.Context, name string, edit func(*Role) (*Role, error)) (*Role, error) {
	unlock, err := s.mu.Write(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, err := s.load(ctx, name)
	if err != nil {
		return nil, err
	}
	next, err := edit(old)
	if err != nil {
		return nil, err
	}
	delete(s.known, name) // a failed write may have been carried out
	if err := store.Save(ctx, s.storage, Prefix+name, next); err != nil {
		return nil, err
	}
	s.known[name] = next
	return next, nil
}

// Remove deletes a role. It succeeds if there is none.
func (s *Store) Remove(ctx context.Context, name string) error {
	unlock, err := s.mu.Write(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	delete(s.known, name)
	return s.storage.Delete(ctx, Prefix+name)
}

// List returns the names of the roles after a name, in alphabetical order, and no more than
// limit; 0 or less: all.
func (s *Store) List(ctx context.Context, after string, limit int) ([]string, error) {
	names, err := s.storage.List(ctx, Prefix)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(name string) bool { return name <= after })
	if limit > 0 {
		names = names[:min(limit, len(names))]
	}
	return names, nil
}

// Forget drops what the store remembers of roles that another node has written.
func (s *Store) Forget() {
	unlock, _ := s.mu.Write(context.Background()) // never fails: who holds it has a budget
	defer unlock()
	clear(s.known)
}
