// SPDX-License-Identifier: MPL-2.0

// Package upgradetest keeps what released versions of the engine have left behind, so
// that tests can show that the current one goes on from there. It has no part in the
// plugin.
//
// For each version there is a folder with the states of some mounts (mounts.json), and
// a whole Vault (server.json, server.snap). They were written by the released code
// itself: scripts/upgrade/record.sh checks out a tag and has it leave the same behind.
// All secrets in there are those of simulated tenants and of one Vault that was used
// for nothing else.
package upgradetest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// State is what a mount has left behind, and what its tenant was like at that time.
type State struct {
	At time.Time `json:"at"`

	Tenant      graphtest.Info         `json:"tenant"`
	Credentials []graphtest.Credential `json:"credentials"`
	// Key is the tenant's. The engine may know another one.
	Key string `json:"key"`

	// Storage has the mount's entries by their names; all of them are JSON.
	Storage map[string]json.RawMessage `json:"storage"`
	// Leases are those that have not been revoked, oldest first.
	Leases []Lease `json:"leases"`
	// Answers are what the version said when it was asked last, by path.
	Answers map[string]map[string]any `json:"answers"`
}

// Lease is what Vault keeps of a lease.
type Lease struct {
	Path   string          `json:"path"`
	Key    string          `json:"key"`
	Secret *logical.Secret `json:"secret"`
}

// Dump reads all entries of a storage.
func Dump(ctx context.Context, s logical.Storage) (map[string]json.RawMessage, error) {
	names, err := logical.CollectKeys(ctx, s)
	if err != nil {
		return nil, err
	}
	entries := map[string]json.RawMessage{}
	for _, name := range names {
		entry, err := s.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		entries[name] = entry.Value
	}
	return entries, nil
}
