#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The engine's main job on a real Vault, against the simulator: a leased key
# installs a sensor, and after its lease is revoked it does not. Fails if
# anything is not as expected. The key of the simulated tenant is shown on purpose.
set -euo pipefail

# shellcheck source=scripts/devserver.sh
source "$(dirname "${BASH_SOURCE[0]}")/devserver.sh"

main() {
	prepare
	start_simulator
	start_vault
	configure_for_simulator
	cd "$WORK"

	title "Vault regenerates the tenant's deployment access key and leases it"
	show vault read mdi/key | tee answer.txt
	field deployment_access_key >key.txt

	title "A sensor can be installed with it"
	expect registered show mdi-simulator register -key-file key.txt
	show vault read mdi/status

	title "The lease ends, and nobody is entitled to the key any more"
	show vault lease revoke "$(field lease_id)"
	eventually key_is_dead || fail "the key still works 10 s after its last lease ended"

	title "The same key does not install a sensor now"
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

# field prints one value of the answer to mdi/key, as vault's table shows it: a
# second read would regenerate the key.
field() {
	local value
	value=$(awk -v name="$1" '$1 == name { print $2 }' answer.txt)
	[[ -n $value ]] || fail "the answer has no $1"
	printf '%s' "$value"
}

# expect WORD COMMAND... fails unless the last line that COMMAND prints is WORD;
# the exit code of register says the same, so it is not needed here.
expect() {
	local word=$1 output
	shift
	output=$("$@") || true
	printf '%s\n' "$output"
	[[ ${output##*$'\n'} == "$word" ]] || fail "expected: $word"
}

# eventually repeats a condition for 10 s: Vault ends leases in the background,
# and the engine retires the key after that.
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
