// Command vault is HashiCorp Vault's own command line, built from its Go module
// for this project's development server and tests.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
