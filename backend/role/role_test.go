// SPDX-License-Identifier: MPL-2.0

package role_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/role"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func data(fields map[string]any) *framework.FieldData {
	return &framework.FieldData{Raw: fields, Schema: field.Schema(new(role.Role).Fields())}
}

func TestUpdateAndTerms(t *testing.T) {
	var r *role.Role
	for _, c := range []struct {
		fields, shows map[string]any
		terms         accesskey.Terms // where those without a role are 1h and 5m
	}{
		{nil, map[string]any{role.FieldTTL: int64(0)}, accesskey.Terms{TTL: time.Hour, MaxAge: accesskey.AnyAge}},
		{map[string]any{role.FieldTTL: "10m", role.FieldMaxKeyAge: 0}, map[string]any{role.FieldTTL: int64(600), role.FieldMaxKeyAge: int64(0)}, accesskey.Terms{TTL: 10 * time.Minute}},
		{map[string]any{role.FieldMaxKeyAge: "1m"}, map[string]any{role.FieldTTL: int64(600), role.FieldMaxKeyAge: int64(60)}, accesskey.Terms{TTL: 10 * time.Minute, MaxAge: time.Minute}},
		{map[string]any{role.FieldMaxKeyAge: nil}, map[string]any{role.FieldTTL: int64(600)}, accesskey.Terms{TTL: 10 * time.Minute, MaxAge: accesskey.AnyAge}},
		{map[string]any{role.FieldTTL: nil}, map[string]any{role.FieldTTL: int64(0)}, accesskey.Terms{TTL: time.Hour, MaxAge: accesskey.AnyAge}},
	} {
		next, err := r.Update(data(c.fields))
		require.NoError(t, err)
		require.Equal(t, c.shows, field.Read(next.Fields()))
		require.Equal(t, c.terms, next.Terms(accesskey.Terms{TTL: time.Hour, MaxAge: 5 * time.Minute}))
		r = next
	}
	for _, name := range []string{role.FieldTTL, role.FieldMaxKeyAge} {
		before := *r
		_, err := r.Update(data(map[string]any{name: "9000h"}))
		var refused *field.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, name, refused.Field)
		require.Equal(t, before, *r)
	}
}

// longer is a change of a role that adds a minute to its TTL.
func longer(r *role.Role) (*role.Role, error) {
	if r == nil {
		return &role.Role{TTL: time.Minute}, nil
	}
	return &role.Role{TTL: r.TTL + time.Minute}, nil
}

func TestStoreKeepsRoles(t *testing.T) {
	storage := storagetest.New()
	s, other := role.NewStore(storage), role.NewStore(storage)
	get := func(s *role.Store) *role.Role {
		t.Helper()
		found, err := s.Get(t.Context(), "hosts")
		require.NoError(t, err)
		return found
	}
	require.Nil(t, get(s))
	changed, err := s.Change(t.Context(), "hosts", longer)
	require.NoError(t, err)
	require.Equal(t, changed, get(s))
	require.Equal(t, time.Minute, get(other).TTL)
	_, err = s.Change(t.Context(), "hosts", longer)
	require.NoError(t, err)
	require.Equal(t, time.Minute, get(other).TTL, "still remembered")
	other.Forget()
	require.Equal(t, 2*time.Minute, get(other).TTL)
	for _, name := range []string{"b", "a"} {
		_, err = s.Change(t.Context(), name, longer)
		require.NoError(t, err)
	}
	names, err := s.List(t.Context(), "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "hosts"}, names)
	names, err = s.List(t.Context(), "a", 1)
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, names)

	refusal := errors.New("no")
	_, err = s.Change(t.Context(), "hosts", func(*role.Role) (*role.Role, error) { return nil, refusal })
	require.ErrorIs(t, err, refusal)
	for range 2 {
		require.NoError(t, s.Remove(t.Context(), "hosts"))
		require.Nil(t, get(s))
	}
}

func TestStorageThatFails(t *testing.T) {
	storage := storagetest.New()
	s := role.NewStore(storage)
	_, err := s.Change(t.Context(), "hosts", longer)
	require.NoError(t, err)
	storage.FailWhen(storagetest.Nth(1, "put", role.Prefix))
	_, err = s.Change(t.Context(), "hosts", longer)
	require.ErrorIs(t, err, storagetest.ErrBroken)
	storage.FailWhen(storagetest.Nth(1, "get", role.Prefix))
	_, err = s.Change(t.Context(), "hosts", longer)
	require.ErrorIs(t, err, storagetest.ErrBroken, "what a failed write has left is read")
	storage.FailWhen(storagetest.Nth(1, "delete", role.Prefix))
	require.ErrorIs(t, s.Remove(t.Context(), "hosts"), storagetest.ErrBroken)
}

// A role that cannot be decoded says which entry that is and what to do, quotes nothing,
// and can be deleted. The others are not affected.
func TestRoleThatCannotBeDecoded(t *testing.T) {
	storage := storagetest.New()
	s := role.NewStore(storage)
	require.NoError(t, storage.Put(t.Context(), &logical.StorageEntry{Key: role.Prefix + "odd", Value: []byte(`{"ttl": "a-secret`)}))
	_, err := s.Change(t.Context(), "hosts", longer)
	require.NoError(t, err)
	use := map[string]func() error{
		"get":    func() error { _, err := s.Get(t.Context(), "odd"); return err },
		"change": func() error { _, err := s.Change(t.Context(), "odd", longer); return err },
	}
	for name, use := range use {
		require.ErrorContains(t, use(), "storage entry role/odd", name)
		require.ErrorContains(t, use(), "delete the role and create it again", name)
		require.NotContains(t, use().Error(), "a-secret", name)
	}
	_, err = s.Get(t.Context(), "hosts")
	require.NoError(t, err)
	names, err := s.List(t.Context(), "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"hosts", "odd"}, names)
	require.NoError(t, s.Remove(t.Context(), "odd"))
	for name, use := range use {
		require.NoError(t, use(), name)
	}
}

// While storage is slow for one, nobody else waits for longer than they may, and what is
// remembered takes no storage.
func TestSlowStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &storagetest.Slow{Storage: storagetest.New()}
		s := role.NewStore(storage)
		_, err := s.Change(t.Context(), "hosts", longer)
		require.NoError(t, err)
		storage.Takes = 10 * time.Second
		var changed error
		go func() { _, changed = s.Change(t.Context(), "another", longer) }()
		synctest.Wait()
		storagetest.EndWithContext(t, map[string]func(context.Context) error{
			"get":     func(ctx context.Context) error { _, err := s.Get(ctx, "hosts"); return err },
			"unknown": func(ctx context.Context) error { _, err := s.Get(ctx, "unknown"); return err },
			"change":  func(ctx context.Context) error { _, err := s.Change(ctx, "hosts", longer); return err },
			"remove":  func(ctx context.Context) error { return s.Remove(ctx, "hosts") },
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, changed)
		start := time.Now()
		found, err := s.Get(t.Context(), "hosts")
		require.NoError(t, err)
		require.Equal(t, time.Minute, found.TTL, "those who left have changed nothing")
		require.Zero(t, time.Since(start))
	})
}
