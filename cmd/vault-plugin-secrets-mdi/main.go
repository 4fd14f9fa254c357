// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-mdi is a secrets engine for HashiCorp Vault and OpenBao that
// owns a Microsoft Defender for Identity sensor deployment access key. The server starts
// it. With -version it prints the version to register.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/plugin"

	"example.com/vault-plugin-secrets-mdi/backend"
)

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "-version" || os.Args[1] == "--version") {
		fmt.Println(backend.Version)
		return
	}
	// No TLSProviderFunc: servers that support AutoMTLS configure TLS themselves. Other
	// arguments (-ca-cert, -tls-skip-verify, …) only mattered to older servers. They are
	// ignored, because operators copy them from old instructions.
	err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: backend.Factory})
	if err != nil {
		hclog.New(&hclog.LoggerOptions{Name: "vault-plugin-secrets-mdi"}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}
