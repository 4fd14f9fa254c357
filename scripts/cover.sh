#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# cover.sh MINIMUM PACKAGE... fails if the tests of a package cover less than
# MINIMUM percent of its own statements.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PROFILE=$ROOT/.cache/cover.out

main() {
	local minimum=$1 report
	shift
	cd "$ROOT"
	mkdir -p "$(dirname "$PROFILE")"
	report=$(go test -short -timeout 8m -coverprofile="$PROFILE" "$@") || {
		printf '%s\n' "$report"
		fail "tests failed"
	}
	printf '%s\n' "$report"
	check "$minimum" $# <<<"$report"
	say "details: go tool cover -html=.cache/cover.out"
}

# check reads go test's summary lines from stdin. A package without one counts as not
# covered.
check() {
	awk -v minimum="$1" -v packages="$2" '
		match($0, /coverage: [0-9.]+%/) {
			seen++
			percent = substr($0, RSTART + 10, RLENGTH - 11)
			if (percent + 0 < minimum) { print "below " minimum "%: " $2; low = 1 }
		}
		END { if (seen < packages) print "a package has no coverage"; exit low || seen < packages }
	' >&2 || fail "coverage is too low"
}

main "$@"
