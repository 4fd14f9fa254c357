// SPDX-License-Identifier: MPL-2.0

package upgradetest

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

//go:embed v*
var files embed.FS

// Versions returns the versions that there are records of, such as "v0.1.0".
func Versions() ([]string, error) { return fs.Glob(files, "v*") }

// Mounts returns the states of a version's mounts by their names. They are described
// where they are made, in scripts/upgrade.
func Mounts(version string) (map[string]State, error) {
	text, err := files.ReadFile(version + "/mounts.json")
	if err != nil {
		return nil, err
	}
	var states map[string]State
	return states, json.Unmarshal(text, &states)
}

// TenantOptions make a simulator the tenant of the state: the same ids, key and
// credentials. The values of secrets that are no longer needed are not known, so that
// these have others.
func (s State) TenantOptions() ([]graphtest.Option, error) {
	known, err := s.ownSecrets()
	if err != nil {
		return nil, err
	}
	opts := []graphtest.Option{
		graphtest.WithTenant(s.Tenant.TenantID),
		graphtest.WithApp(s.Tenant.ClientID, s.Tenant.ClientSecret),
		graphtest.WithKey(s.Key),
		graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleRead, graphtest.RoleOwnedBy),
	}
	for _, c := range s.Credentials {
		if c.Type == "secret" && c.DisplayName != "configured" {
			value, ok := known[c.KeyID]
			if !ok {
				value = "unknown-" + c.KeyID
			}
			opts = append(opts, graphtest.WithPassword(c.KeyID, c.DisplayName, value))
		}
	}
	certificate, err := s.certificate()
	if certificate != "" {
		opts = append(opts, graphtest.WithCertificate(certificate))
	}
	return opts, err
}

// storedConfig is what a tenant has to know of the stored configuration.
type storedConfig struct {
	Credential storedCredential `json:"credential"`
	Root       struct {
		KeyID   string `json:"key_id"`
		Pending *struct {
			Credential storedCredential `json:"credential"`
			KeyID      string           `json:"key_id"`
		} `json:"pending"`
	} `json:"root"`
}

type storedCredential struct {
	Secret      string `json:"client_secret"`
	Certificate string `json:"client_certificate"`
}

func (s State) config() (storedConfig, error) {
	var config storedConfig
	return config, json.Unmarshal(s.Storage["config"], &config)
}

// ownSecrets returns the secrets that the engine has made for itself, by their ids.
func (s State) ownSecrets() (map[string]string, error) {
	config, err := s.config()
	secrets := map[string]string{}
	if config.Root.KeyID != "" {
		secrets[config.Root.KeyID] = config.Credential.Secret
	}
	if p := config.Root.Pending; p != nil {
		secrets[p.KeyID] = p.Credential.Secret
	}
	return secrets, err
}

func (s State) certificate() (string, error) {
	config, err := s.config()
	return config.Credential.Certificate, err
}

// Moved returns the state as it would be if the tenant had always been a simulator's: its
// address and its authority are others in each run.
func (s State) Moved(to graphtest.Info) (State, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return State{}, err
	}
	from, err := quoted(s.Tenant.URL, s.Tenant.CACertificate)
	if err != nil {
		return State{}, err
	}
	into, err := quoted(to.URL, to.CACertificate)
	if err != nil {
		return State{}, err
	}
	var moved State
	replaced := strings.NewReplacer(from[0], into[0], from[1], into[1]).Replace(string(text))
	if err := json.Unmarshal([]byte(replaced), &moved); err != nil {
		return State{}, fmt.Errorf("moving the state: %w", err)
	}
	return moved, nil
}

// quoted returns strings as they are inside of JSON, without the newline at the end that
// the engine does not keep either.
func quoted(texts ...string) ([]string, error) {
	for i, text := range texts {
		q, err := json.Marshal(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		texts[i] = strings.Trim(string(q), `"`)
	}
	return texts, nil
}
