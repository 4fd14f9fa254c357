// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-mdi is a secrets engine for HashiCorp Vault and OpenBao that
// owns a Microsoft Defender for Identity sensor deployment access key. The server starts
// it. With -version it prints the version to register, with -h what it is.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/plugin"

	"example.com/vault-plugin-secrets-mdi/backend"
)

const usage = `vault-plugin-secrets-mdi %[1]s owns the sensor deployment access key of Microsoft Defender
for Identity. It is a plugin: register it, and Vault or OpenBao starts it.

  vault plugin register -version=%[1]s -sha256=… secret vault-plugin-secrets-mdi
  vault secrets enable -path=mdi vault-plugin-secrets-mdi
  vault path-help mdi/

With -version it prints its version, and nothing else.
`

func main() {
	switch strings.Join(os.Args[1:], " ") {
	case "-version", "--version":
		fmt.Println(backend.Version)
		return
	case "-h", "-help", "--help":
		fmt.Printf(usage, backend.Version)
		return
	}
	// No TLSProviderFunc: servers that support AutoMTLS configure TLS themselves. Other
	// arguments (-ca-cert, -tls-skip-verify, …) only mattered to older servers. They are
	// ignored, because operators copy them from old instructions.
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: backend.Factory}); err != nil {
		hclog.New(&hclog.LoggerOptions{Name: "vault-plugin-secrets-mdi"}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}
