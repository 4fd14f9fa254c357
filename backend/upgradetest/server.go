// SPDX-License-Identifier: MPL-2.0

package upgradetest

import (
	"encoding/json"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// Server is a whole Vault that a version was used in, for as long as it takes to lease
// keys that end in 50 years. The engine is mounted at mdi/, and its role is sensor-hosts.
type Server struct {
	UnsealKey string `json:"unseal_key"`
	Token     string `json:"token"` // with the root policy

	TenantID     string `json:"tenant_id"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	LoginHost    string `json:"login_host"` // the names are nobody's: a proxy leads there
	GraphHost    string `json:"graph_host"`

	Key    string   `json:"key"`    // the current one, of version 2
	Leases []string `json:"leases"` // the first one is on version 1

	// Snapshot is what `vault operator raft snapshot save` wrote.
	Snapshot []byte `json:"-"`
}

// VaultOf returns the Vault in which a version was used.
func VaultOf(version string) (Server, error) {
	var s Server
	text, err := files.ReadFile(version + "/server.json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	s.Snapshot, err = files.ReadFile(version + "/server.snap")
	return s, err
}

// TenantOptions make a simulator the tenant of that Vault.
func (s Server) TenantOptions() []graphtest.Option {
	return []graphtest.Option{
		graphtest.WithTenant(s.TenantID),
		graphtest.WithApp(s.ClientID, s.ClientSecret),
		graphtest.WithKey(s.Key),
		graphtest.WithServerNames(s.LoginHost, s.GraphHost),
	}
}
