#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The direction of imports, package by package, and what may be in the shipped binary,
# checked on the real dependency graph.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULE=example.com/vault-plugin-secrets-mdi

# What each package of the engine may import of the others. A package of the plugin that is
# not listed is an error.
IMPORTS='
backend          accesskey config credential event field flight format graph health lease role rootrotation rotation status
accesskey        lease store
config           accesskey credential field graph schedule store
credential       field graph
event            graph
field
flight
format           store
graph
health           graph store
lease            store
role             accesskey field store
rootrotation     config credential event field flight graph health
rotation         accesskey config event field flight graph health
schedule         field
status           accesskey config field health
store
'

main() {
	cd "$ROOT"
	walls
	forbid ./cmd/vault-plugin-secrets-mdi "$MODULE/backend/graphtest" "the simulator never ships"
	forbid ./cmd/vault-plugin-secrets-mdi "$MODULE/backend/storagetest" "a storage that fails on demand never ships"
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

# walls fails if a package of the engine imports another one that its row in IMPORTS does
# not have.
walls() {
	local package imports found allowed name
	while read -r package imports; do
		package=${package#"$MODULE/backend/"} package=${package#"$MODULE/"}
		allowed=$(awk -v package="$package" '$1 == package { $1 = ""; print $0 " "; found = 1 } END { exit !found }' <<<"$IMPORTS") ||
			fail "backend/$package is not listed in $0: say what it may import"
		for name in $imports; do
			found=${name#"$MODULE/backend"}
			[[ $name != "$found" ]] || continue
			[[ " $allowed" == *" ${found#/} "* ]] || fail "$package must not import backend$found"
		done
	done < <(go list -f '{{.ImportPath}} {{join .Imports " "}}' ./backend $(engine))
	say "backend: each package imports only what it may"
}

# engine lists the packages below backend that are in the plugin.
engine() { go list -deps ./cmd/vault-plugin-secrets-mdi | grep "^$MODULE/backend/"; }

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
