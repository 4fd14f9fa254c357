#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Checks the direction of imports (cmd → backend → backend/graph), and that the plugin
# contains nothing that must not ship, on the real dependency graph.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULE=example.com/vault-plugin-secrets-mdi

main() {
	cd "$ROOT"
	forbid ./cmd/vault-plugin-secrets-mdi "$MODULE/backend/graphtest" "the simulator never ships"
	forbid ./cmd/vault-plugin-secrets-mdi "$MODULE/scripts" "code that tests and measures never ships"
	forbid ./cmd/vault-plugin-secrets-mdi "$MODULE/backend/upgradetest" "records of older versions never ship"
	forbid ./cmd/vault-plugin-secrets-mdi 'github.com/hashicorp/vault/(command|vault|helper|sdk/helper/testcluster)' "BUSL-1.1 and test code never ship"
	forbid ./backend/graph github.com/hashicorp/vault "the Graph client knows nothing of Vault"
	forbid ./cmd/vault-plugin-secrets-mdi github.com/hashicorp/vault/api "Vault's client, which only tests and scripts use, never ships"
	forbid ./backend/graph "$MODULE/backend" "the Graph client stands alone"
	forbid ./backend/graphtest "$MODULE/backend" "a simulator that shares the code under test proves nothing"
	justified
	go mod verify
}

# justified fails if go.mod does not give the reason for a direct dependency.
justified() {
	local silent
	silent=$(awk '/^require \(/ { n++ } n == 1 && /^\t/ && !/ \/\/ ./ { print $1 }' go.mod)
	[[ -z $silent ]] || fail "go.mod does not give the reason for: $silent"
	say "go.mod: every direct dependency has its reason"
}

# forbid PACKAGE PATTERN REASON fails if PACKAGE depends on a package that matches
# PATTERN, or on one below it. PACKAGE itself and packages below it do not count.
forbid() {
	local package=$1 pattern=$2 reason=$3 deps found
	deps=$(go list -deps "$package")
	found=$(grep -E "^$pattern(\$|/)" <<<"$deps" | grep -Ev "^$MODULE/${package#./}(/|\$)" || true)
	[[ -z $found ]] || fail "$package must not depend on $found: $reason"
	say "$package: $reason"
}

main
