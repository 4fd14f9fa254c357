// SPDX-License-Identifier: MPL-2.0

package format_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/format"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestCheck(t *testing.T) {
	const own = `{"format":2,"readable_from":1}`
	for name, c := range map[string]struct {
		stored, left string
		secondary    bool
		needs        int // of the error
	}{
		"new, or of 0.1.x":              {"", own, false, 0},
		"a node that may not write":     {"", "", true, 0},
		"older":                         {`{"format":1,"readable_from":1}`, own, false, 0},
		"own":                           {own, own, false, 0},
		"newer, written in old form":    {`{"format":9,"readable_from":2}`, `{"format":9,"readable_from":2}`, false, 0},
		"newer, not":                    {`{"format":9,"readable_from":3}`, `{"format":9,"readable_from":3}`, false, 3},
		"newer, not, on such a node":    {`{"format":9,"readable_from":3}`, `{"format":9,"readable_from":3}`, true, 3},
		"newer, with fields of its own": {`{"format":3,"readable_from":1,"x":1}`, `{"format":3,"readable_from":1,"x":1}`, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &logical.InmemStorage{}
			if c.stored != "" {
				require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: format.StorageKey, Value: []byte(c.stored)}))
			}
			log := check(t, s, !c.secondary)
			if c.needs == 0 {
				require.Empty(t, log)
			} else {
				require.Contains(t, log, "a newer version has stored what this one may not understand")
				require.Contains(t, log, fmt.Sprintf("stored_readable_from=%d own_format=2", c.needs))
			}
			require.Equal(t, c.left, stored(t, s))
		})
	}
}

// check checks the number of a node, and returns the log.
func check(t *testing.T, s logical.Storage, writable bool) string {
	t.Helper()
	var log strings.Builder
	ctx := hclog.WithContext(t.Context(), hclog.New(&hclog.LoggerOptions{Output: &log}))
	format.Check(ctx, s, func() bool { return writable })
	return log.String()
}

func stored(t *testing.T, s logical.Storage) string {
	t.Helper()
	entry, err := s.Get(t.Context(), format.StorageKey)
	require.NoError(t, err)
	if entry == nil {
		return ""
	}
	return strings.TrimSpace(string(entry.Value))
}

func TestStorageThatFails(t *testing.T) {
	for _, op := range []string{"get", "put"} {
		s := storagetest.New()
		s.FailWhen(storagetest.Nth(1, op, format.StorageKey))
		require.Contains(t, check(t, s, true), storagetest.ErrBroken.Error())
		require.Empty(t, check(t, s, true), "the next start makes up for it")
	}
	s := storagetest.New()
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: format.StorageKey, Value: []byte("?")}))
	require.Contains(t, check(t, s, true), "the stored format number cannot be decoded")
	require.Equal(t, "?", stored(t, s))
}
