#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Fails if anything that is linked into the plugin, on any system that it is released
# for, has a licence that is not in the list. It needs go-licenses on PATH, where `make
# licences` puts it.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Permissive licences, and the plugin's own, whose terms it follows already.
ALLOWED=Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT,MPL-2.0

main() {
	local system output
	cd "$ROOT"
	for system in linux windows darwin; do
		# go-licenses warns of every file that is not Go.
		output=$(GOOS=$system CGO_ENABLED=0 go-licenses check ./cmd/vault-plugin-secrets-mdi --allowed_licenses="$ALLOWED" 2>&1) ||
			fail "$system: $(grep -v '^[W/]' <<<"$output")"
	done
	say "licences: only $ALLOWED"
}

main
