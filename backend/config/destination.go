// SPDX-License-Identifier: MPL-2.0

package config

import (
	"net/url"
	"os"
	"slices"
	"strings"

	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
)

// envAllowedHosts lists, separated by commas, the hosts (with a port, if it is not 443) to
// which an ambient credential may be sent besides Microsoft's own.
const envAllowedHosts = "MDI_ALLOWED_HOSTS"

// checkHosts returns why an ambient credential must not be used, if the configuration
// would send it to a host of the writer's choice. A certificate authority of the writer's
// choice makes any host one of theirs, Microsoft's included. Its error is a [*field.Error].
func (c *Config) checkHosts() error {
	if !c.Credential.Ambient() {
		return nil
	}
	allowed := strings.FieldsFunc(strings.ToLower(os.Getenv(envAllowedHosts)), func(r rune) bool { return r == ',' || r == ' ' })
	for _, d := range c.chosenDestinations() {
		u, err := url.Parse(d.root)
		if err != nil || !slices.Contains(allowed, strings.ToLower(u.Host)) {
			return &field.Error{Field: d.chosenBy, Problem: "cannot be combined with " + credential.FieldType + " " + c.Credential.Type +
				", unless the plugin's environment allows " + d.called + " in " + envAllowedHosts}
		}
	}
	return nil
}

// destination is where a credential, or what it is exchanged for, is sent.
type destination struct {
	root     string
	called   string // in an error, which must not quote what was written
	chosenBy string // the field
}

// chosenDestinations returns those that the configuration decides, not Microsoft alone.
func (c *Config) chosenDestinations() []destination {
	var chosen []destination
	choose := func(field, own, microsofts string) {
		switch {
		case own != "":
			chosen = append(chosen, destination{root: own, called: "the host", chosenBy: field})
		case c.CACertificate != "":
			chosen = append(chosen, destination{root: microsofts, called: strings.TrimPrefix(microsofts, "https://"), chosenBy: FieldCACertificate})
		}
	}
	choose(FieldGraphEndpoint, c.GraphEndpoint, c.cloud().GraphRoot)
	if c.Credential.Type != credential.ManagedIdentity || c.AuthorityHost != "" { // its tokens are Azure's, not Entra's
		choose(FieldAuthorityHost, c.AuthorityHost, c.cloud().AuthorityHost)
	}
	return chosen
}
