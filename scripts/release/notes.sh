#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# notes.sh VERSION prints the section of CHANGELOG.md about a version, which may have a
# leading v, and fails if there is none. notes.sh -latest prints the newest version that
# has a section, with a leading v.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

main() {
	local notes
	if [[ ${1:-} == -latest ]]; then
		latest
		return
	fi
	notes=$(section "${1#v}" <"$ROOT/CHANGELOG.md")
	[[ $notes == *[![:space:]]* ]] || fail "CHANGELOG.md says nothing about ${1#v}"
	printf '%s\n' "$notes"
}

section() {
	awk -v heading="## [$1]" '
		index($0, "## [") == 1 { inside = index($0, heading) == 1; next }
		inside
	'
}

latest() {
	local version
	version=$(sed -nE 's/^## \[([0-9]+\.[0-9]+\.[0-9]+[^]]*)\].*/\1/p' "$ROOT/CHANGELOG.md" | head -n 1)
	[[ -n $version ]] || fail "CHANGELOG.md has no version"
	printf 'v%s\n' "$version"
}

main "$@"
