#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The engine's main job on a real Vault with a simulated tenant: a leased key installs a
# sensor, and no longer does once its lease is revoked. Fails if anything is not as
# expected. The key of the simulated tenant is shown on purpose. `make demo` runs this
# beside the servers that it needs.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
	cd "$MDI_SIMULATOR_DIR" # it is removed with the simulator, and the key with it

	title "Vault regenerates the tenant's deployment access key and leases it"
	show vault read mdi/key | tee answer.txt
	field deployment_access_key >key.txt

	title "A sensor can be installed with it"
	expect registered show mdi-simulator register -key-file key.txt
	show vault read mdi/status

	title "The only lease ends, and the engine retires the key"
	show vault lease revoke "$(field lease_id)"
	eventually key_is_dead || fail "the key still works 10 s after its last lease ended"

	title "The same key no longer installs a sensor"
	expect refused show mdi-simulator register -key-file key.txt
	eventually has_retired || fail "mdi/status does not say that the key was retired"
	show vault read mdi/status

	printf '\ndemo: passed in %s\n' "$(elapsed)"
}

title() { printf '\n# %s\n' "$*"; }

# show runs a command the way a terminal session shows it.
show() {
	printf '$ %s\n' "$*"
	"$@"
}

# field prints one value of the answer to mdi/key, as vault's table shows it: a second
# read would regenerate the key.
field() { awk -v name="$1" '$1 == name { printf "%s", $2; found = 1 } END { exit !found }' answer.txt; }

# expect WORD COMMAND... fails unless the last line that COMMAND prints is WORD. The exit
# code of register says the same, so it is not needed here.
expect() {
	local word=$1 output
	shift
	output=$("$@") || true
	printf '%s\n' "$output"
	[[ ${output##*$'\n'} == "$word" ]] || fail "expected: $word"
}

# eventually repeats a condition for 10 s: Vault ends leases in the background, and the
# engine retires the key after that.
eventually() {
	local tries
	for ((tries = 0; tries < 50; tries++)); do
		"$@" && return
		sleep 0.2
	done
	return 1
}

key_is_dead() { [[ $(mdi-simulator register -key-file key.txt) == refused ]]; }

has_retired() { [[ $(vault read -field=cause mdi/status) == retired ]]; }

main
