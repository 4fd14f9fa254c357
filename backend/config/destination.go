// SPDX-License-Identifier: MPL-2.0

package config

import (
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
// would send it, or what it is exchanged for, to a host of the writer's choice. Its error
// is a [*field.Error].
func (c *Config) checkHosts() error {
	if !c.Credential.Ambient() {
		return nil
	}
	if err := c.checkHost(FieldGraphEndpoint, c.GraphEndpoint, c.cloud().GraphRoot); err != nil {
		return err
	}
	if c.Credential.Type == credential.ManagedIdentity && c.AuthorityHost == "" {
		return nil // its tokens are Azure's, not Entra's
	}
	return c.checkHost(FieldAuthorityHost, c.AuthorityHost, c.cloud().AuthorityHost)
}

// checkHost checks the host of the writer's own root, or of Microsoft's if there is none. A
// certificate authority of the writer's choice makes any host one of theirs, Microsoft's
// included.
func (c *Config) checkHost(chosenBy, own, microsofts string) error {
	host, called := strings.TrimPrefix(own, "https://"), "the host" // an error must not quote what was written
	if own == "" {
		host, chosenBy = strings.TrimPrefix(microsofts, "https://"), FieldCACertificate
		called = host
	}
	allowed := strings.FieldsFunc(strings.ToLower(os.Getenv(envAllowedHosts)), func(r rune) bool { return r == ',' || r == ' ' })
	if own == "" && c.CACertificate == "" || slices.Contains(allowed, strings.ToLower(host)) {
		return nil
	}
	return &field.Error{Field: chosenBy, Problem: "cannot be combined with " + credential.FieldType + " " + c.Credential.Type +
		", unless the plugin's environment allows " + called + " in " + envAllowedHosts}
}
