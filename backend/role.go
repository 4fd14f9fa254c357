// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const rolePrefix = "role/"

// role says on which terms its readers get the key.
type role struct {
	TTL       time.Duration  `json:"ttl"`         // 0: the configuration's
	MaxKeyAge *time.Duration `json:"max_key_age"` // nil: a key of any age is shared
}

// update returns the role that results from writing the fields of d over r, which
// is nil for a new one. Fields that d does not name keep their value; a JSON null
// unsets. An error is a *fieldError.
func (r *role) update(d *framework.FieldData) (*role, error) {
	next := role{}
	if r != nil {
		next = *r
	}
	if raw, given := d.Raw[fieldTTL]; given {
		next.TTL = 0
		if raw != nil {
			if err := durationInto(&next.TTL, 0)(d.Get(fieldTTL)); err != nil {
				return nil, &fieldError{field: fieldTTL, problem: err.Error()}
			}
		}
	}
	if raw, given := d.Raw[fieldMaxKeyAge]; given {
		next.MaxKeyAge = nil
		if raw != nil {
			next.MaxKeyAge = new(time.Duration)
			if err := durationInto(next.MaxKeyAge, 0)(d.Get(fieldMaxKeyAge)); err != nil {
				return nil, &fieldError{field: fieldMaxKeyAge, problem: err.Error()}
			}
		}
	}
	return &next, nil
}

// fields returns what a read of the role shows; an unset maximum age is left out.
func (r *role) fields() map[string]any {
	fields := map[string]any{fieldTTL: int64(r.TTL.Seconds())}
	if r.MaxKeyAge != nil {
		fields[fieldMaxKeyAge] = int64(r.MaxKeyAge.Seconds())
	}
	return fields
}

// roles owns the stored roles and remembers those that have been used.
type roles struct {
	mu    sync.RWMutex
	known map[string]*role
}

// get returns a role, nil if there is none of that name.
func (r *roles) get(ctx context.Context, s logical.Storage, name string) (*role, error) {
	r.mu.RLock()
	found, known := r.known[name]
	r.mu.RUnlock()
	if known {
		return found, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load(ctx, s, name)
}

// load is get for those who hold the lock and want what storage says.
func (r *roles) load(ctx context.Context, s logical.Storage, name string) (*role, error) {
	entry, err := s.Get(ctx, rolePrefix+name)
	if err != nil || entry == nil {
		// Names that do not exist are not remembered: there is no end of them.
		return nil, err
	}
	found := &role{}
	if err := entry.DecodeJSON(found); err != nil {
		return nil, fmt.Errorf("decoding the stored role: %w", err)
	}
	r.remember(name, found)
	return found, nil
}

// change stores what edit makes of a role, which is nil if there is none.
func (r *roles) change(ctx context.Context, s logical.Storage, name string, edit func(*role) (*role, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, err := r.load(ctx, s, name)
	if err != nil {
		return err
	}
	next, err := edit(old)
	if err != nil {
		return err
	}
	entry, err := logical.StorageEntryJSON(rolePrefix+name, next)
	if err != nil {
		return err
	}
	delete(r.known, name) // a failed write may have been carried out
	if err := s.Put(ctx, entry); err != nil {
		return err
	}
	r.remember(name, next)
	return nil
}

// remove deletes a role. There may be none.
func (r *roles) remove(ctx context.Context, s logical.Storage, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, name)
	return s.Delete(ctx, rolePrefix+name)
}

// forget drops what is remembered.
func (r *roles) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = nil
}

func (r *roles) remember(name string, found *role) {
	if r.known == nil {
		r.known = map[string]*role{}
	}
	r.known[name] = found
}
