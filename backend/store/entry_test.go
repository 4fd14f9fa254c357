// SPDX-License-Identifier: MPL-2.0

package store_test

import (
	"errors"
	"math"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
	"example.com/vault-plugin-secrets-mdi/backend/store"
)

var errDamaged = errors.New("damaged")

func TestEntry(t *testing.T) {
	s := storagetest.New()
	value := map[string]int{"kept": 1}
	found, err := store.Load(t.Context(), s, "a", &value, errDamaged)
	require.NoError(t, err)
	require.False(t, found)
	require.Equal(t, map[string]int{"kept": 1}, value)

	require.NoError(t, store.Save(t.Context(), s, "a", map[string]int{"stored": 2}))
	var stored map[string]int
	found, err = store.Load(t.Context(), s, "a", &stored, errDamaged)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, map[string]int{"stored": 2}, stored)
}

// The decoder's error would quote the name that it does not expect.
func TestDamagedEntry(t *testing.T) {
	s := storagetest.New()
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: "a", Value: []byte(`{"secret":"s3cret"`)}))
	_, err := store.Load(t.Context(), s, "a", &struct{}{}, errDamaged)
	require.Equal(t, errDamaged, err)
}

func TestEntryWithoutStorage(t *testing.T) {
	s := storagetest.New()
	s.FailWhen(storagetest.Nth(1, "get", "a"))
	_, err := store.Load(t.Context(), s, "a", &struct{}{}, errDamaged)
	require.ErrorIs(t, err, storagetest.ErrBroken)
	s.FailWhen(storagetest.Nth(1, "put", "a"))
	require.ErrorIs(t, store.Save(t.Context(), s, "a", 1), storagetest.ErrBroken)
	require.Error(t, store.Save(t.Context(), s, "a", math.NaN()))
}
