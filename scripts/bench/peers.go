// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"net"
	"path"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// The packages of the other engines' programs. Their versions are in peers/go.mod.
const (
	terraformPackage = "github.com/hashicorp/vault-plugin-secrets-terraform/cmd/vault-plugin-secrets-terraform"
	openldapPackage  = "github.com/hashicorp/vault-plugin-secrets-openldap/cmd/vault-plugin-secrets-openldap"
)

// terraformUser is the user whose tokens are read.
const terraformUser = "user-bench"

// buildPeers builds the peers as they are released, and starts a service for each that
// agrees to everything.
func (s *suite) buildPeers(ctx context.Context) error {
	module := filepath.Join(s.programs.Root, "scripts", "bench", "peers")
	for _, peer := range []struct {
		pkg, mount string
		configure  func(context.Context, *testbed.Vault, string, int) error
	}{
		{terraformPackage, "terraform", s.configureTerraform},
		{openldapPackage, "openldap", s.configureOpenldap},
	} {
		version, err := testbed.Output(ctx, module, nil, "go", "list", "-m", "-f", "{{.Version}}", path.Dir(path.Dir(peer.pkg)))
		if err != nil {
			return err
		}
		e := &engine{
			name: peer.mount + " " + version, plugin: filepath.Join(s.dir, path.Base(peer.pkg)),
			mount: peer.mount, leased: "creds/bench-", configure: peer.configure,
		}
		if err := testbed.BuildPackage(ctx, module, peer.pkg, "", e.plugin); err != nil {
			return err
		}
		s.peers = append(s.peers, e)
	}
	s.terraform = startTerraformAPI()
	return s.startDirectory(ctx, module)
}

func (s *suite) configureTerraform(ctx context.Context, vault *testbed.Vault, mount string, rounds int) error {
	config := map[string]any{"address": s.terraform.URL, "token": "anything"}
	if _, err := vault.Logical().WriteWithContext(ctx, mount+"/config", config); err != nil {
		return err
	}
	role := map[string]any{"user_id": terraformUser, "ttl": leaseTTL.String(), "max_ttl": leaseTTL.String()}
	return writeRoles(ctx, vault, mount+"/role/bench-", rounds, role)
}

// startDirectory runs the LDAP server of the peers' module.
func (s *suite) startDirectory(ctx context.Context, module string) error {
	program := filepath.Join(s.dir, "directory")
	if err := testbed.BuildPackage(ctx, module, "./directory", "", program); err != nil {
		return err
	}
	address, err := testbed.FreeAddress(ctx)
	if err != nil {
		return err
	}
	s.directoryAddress = address
	s.directory, err = testbed.Start(filepath.Join(s.dir, "directory.log"), testbed.Environment(s.dir, s.dir), program, address)
	if err != nil {
		return err
	}
	return s.directory.Await(ctx, func(ctx context.Context) bool {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return err == nil && connection.Close() == nil
	})
}

func (s *suite) configureOpenldap(ctx context.Context, vault *testbed.Vault, mount string, rounds int) error {
	config := map[string]any{
		"url": "ldap://" + s.directoryAddress, "binddn": "cn=admin,dc=example,dc=org", "bindpass": "anything", "schema": "openldap",
	}
	if _, err := vault.Logical().WriteWithContext(ctx, mount+"/config", config); err != nil {
		return err
	}
	const name = "dn: cn={{.Username}},ou=users,dc=example,dc=org\n"
	return writeRoles(ctx, vault, mount+"/role/bench-", rounds, map[string]any{
		"creation_ldif": name + "changetype: add\nobjectClass: person\ncn: {{.Username}}\nuserPassword: {{.Password}}\n",
		"deletion_ldif": name + "changetype: delete\n",
		"default_ttl":   leaseTTL.String(), "max_ttl": leaseTTL.String(),
	})
}
