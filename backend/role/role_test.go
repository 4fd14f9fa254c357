// SPDX-License-Identifier: MPL-2.0

package role_test

import (
	"errors"
	"testing"
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
	return &framework.FieldData{Raw: fields, Schema: field.Schema(role.Fields())}
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
		require.Equal(t, c.shows, field.Read(role.Fields(), next))
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

	require.NoError(t, storage.Put(t.Context(), &logical.StorageEntry{Key: role.Prefix + "odd", Value: []byte("{")}))
	_, err = s.Get(t.Context(), "odd")
	require.Error(t, err)
}
