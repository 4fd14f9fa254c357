#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# record.sh TAG has a released version write what it leaves behind, for the tests of
# later versions: backend/upgradetest/TAG. It is run once after a release that stores
# something in a new way, and the files are committed.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

main() {
	local tag=$1 into=$ROOT/backend/upgradetest/$1
	WORK=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/mdi-upgrade.XXXXXX")" && pwd -P)
	trap 'rm -rf "$WORK"' EXIT
	mkdir "$WORK/released"
	git -C "$ROOT" archive "$tag" | tar -x -C "$WORK/released"
	# What records is today's, what is recorded is the tag's.
	mkdir -p "$WORK/released/backend/upgradetest" "$WORK/released/scripts/upgrade" "$into"
	cp "$ROOT/backend/upgradetest/state.go" "$WORK/released/backend/upgradetest"
	cp "$ROOT"/scripts/upgrade/*.go "$WORK/released/scripts/upgrade"
	say "recording the mounts of $tag: half a minute"
	(cd "$WORK/released" && go run ./scripts/upgrade) >"$WORK/mounts.json"
	mv "$WORK/mounts.json" "$into/mounts.json"
	say "recording a Vault with $tag: half a minute"
	"$ROOT/scripts/upgrade/server.sh" "$WORK/released" "$tag" "$into"
	say "wrote $into"
}

main "$@"
