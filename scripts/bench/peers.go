// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// The engines that are measured beside this one, by their programs' packages. Their
// versions stand in the go.mod beside.
const (
	terraformPackage = "github.com/hashicorp/vault-plugin-secrets-terraform/cmd/vault-plugin-secrets-terraform"
	openldapPackage  = "github.com/hashicorp/vault-plugin-secrets-openldap/cmd/vault-plugin-secrets-openldap"
)

// terraformUser is whose tokens are read.
const terraformUser = "user-bench"

// gatherPeers builds the peers as they are released, and starts a service for each
// that answers whatever it asks.
func (f *field) gatherPeers(ctx context.Context) error {
	module := filepath.Join(f.programs.Root, "scripts", "bench", "peers")
	for _, peer := range []struct {
		pkg, mount string
		configure  func(context.Context, testbed.Caller, string, int) error
	}{
		{terraformPackage, "terraform", f.configureTerraform},
		{openldapPackage, "openldap", f.configureOpenldap},
	} {
		version, err := moduleVersion(ctx, module, path.Dir(path.Dir(peer.pkg)))
		if err != nil {
			return err
		}
		c := &contestant{
			name: peer.mount + " " + version, plugin: filepath.Join(f.dir, path.Base(peer.pkg)),
			mount: peer.mount, leased: "creds/bench-", configure: peer.configure,
		}
		if err := testbed.BuildPackage(ctx, module, peer.pkg, "", c.plugin); err != nil {
			return err
		}
		f.peers = append(f.peers, c)
	}
	f.terraform = startTerraformAPI()
	return f.startDirectory(ctx, module)
}

// moduleVersion returns which version of a dependency a module has.
func moduleVersion(ctx context.Context, module, dependency string) (string, error) {
	return testbed.Output(ctx, module, nil, "go", "list", "-m", "-f", "{{.Version}}", dependency)
}

func (f *field) configureTerraform(ctx context.Context, vault testbed.Caller, mount string, rounds int) error {
	config := map[string]any{"address": f.terraform.URL, "token": "anything"}
	if err := vault.Call(ctx, http.MethodPost, mount+"/config", config, nil); err != nil {
		return err
	}
	role := map[string]any{"user_id": terraformUser, "ttl": leaseTTL.String(), "max_ttl": leaseTTL.String()}
	return roles(ctx, vault, mount+"/role/bench-", rounds, role)
}

// directoryLog is the file of what the directory has to say.
const directoryLog = "directory.log"

// startDirectory runs the LDAP server of the peers' module.
func (f *field) startDirectory(ctx context.Context, module string) error {
	program := filepath.Join(f.dir, "directory")
	if err := testbed.BuildPackage(ctx, module, "./directory", "", program); err != nil {
		return err
	}
	address, err := testbed.FreeAddress(ctx)
	if err != nil {
		return err
	}
	f.directoryAddress = address
	f.directory, err = testbed.Start(filepath.Join(f.dir, directoryLog), testbed.Environment(f.dir, f.dir), program, address)
	if err != nil {
		return err
	}
	return f.directory.Await(ctx, func(ctx context.Context) bool {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return err == nil && connection.Close() == nil
	})
}

func (f *field) configureOpenldap(ctx context.Context, vault testbed.Caller, mount string, rounds int) error {
	config := map[string]any{
		"url": "ldap://" + f.directoryAddress, "binddn": "cn=admin,dc=example,dc=org", "bindpass": "anything", "schema": "openldap",
	}
	if err := vault.Call(ctx, http.MethodPost, mount+"/config", config, nil); err != nil {
		return err
	}
	const name = "dn: cn={{.Username}},ou=users,dc=example,dc=org\n"
	role := map[string]any{
		"creation_ldif": name + "changetype: add\nobjectClass: person\ncn: {{.Username}}\nuserPassword: {{.Password}}\n",
		"deletion_ldif": name + "changetype: delete\n",
		"default_ttl":   leaseTTL.String(), "max_ttl": leaseTTL.String(),
	}
	if err := roles(ctx, vault, mount+"/role/bench-", rounds, role); err != nil {
		return fmt.Errorf("a role of the directory: %w", err)
	}
	return nil
}
