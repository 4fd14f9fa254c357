#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# install-sensor.ps1 for Linux, to try the whole chain: instead of running the installer it
# registers a sensor at the simulator with the key in a file. It removes the file, and
# remembers that the sensor is installed.
#
#   install-sensor.sh ACCESS_KEY_FILE
#
# Just before it registers it asks Vault, at VAULT_ADDR, whether the key is still the
# current one, and reads it again if it is not. In the folder of the key's file, the agent
# keeps its token (token) and the version of the key (key-version.txt). If Vault cannot say,
# the script goes on with the key that it has.
#
# MDI_SIMULATOR_DIR names the folder of a running mdi-simulator. Exit codes: 0 the
# sensor is installed, now or already; 1 the key was refused.
set -euo pipefail
umask 077

key_file=${1:?usage: install-sensor.sh ACCESS_KEY_FILE}
folder=$(dirname "$key_file")
installed=$folder/sensor-installed

attempts=3 # at most, of installing, and of reading the key again
pause=10   # seconds; on watch, the engine compares the key as often when it is read

# The file with the key is removed in any case; the agent writes the next one.
trap 'rm -f "$key_file"' EXIT

# read_vault PATH: the answer as JSON. The token is on no command line.
read_vault() {
	[[ -s $folder/token ]] && VAULT_TOKEN=$(<"$folder/token") vault read -format=json "$1" 2>/dev/null
}

# field NAME: that field of the JSON on stdin.
field() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p"; }

# ask_version sets current and on_watch, to nothing if Vault cannot say.
ask_version() {
	local answer
	answer=$(read_vault mdi/key-version) || answer=''
	current=$(field key_version <<<"$answer")
	on_watch=$(field on_watch <<<"$answer")
}

# read_again puts the current key into the file. The key is in pipes only: a here-document
# can be a file.
read_again() {
	local answer
	for ((i = 1; i <= attempts; i++)); do
		if answer=$(read_vault mdi/key/sensor-hosts); then
			printf %s "$answer" | field deployment_access_key | tr -d '\n' >"$key_file"
			version=$(printf %s "$answer" | field key_version)
			return
		fi
		sleep "$pause"
	done
	echo "The key has been replaced, and Vault does not answer with another one." >&2
	exit 1
}

if [[ -e $installed ]]; then
	exit 0
fi
version=$(cat "$folder/key-version.txt" 2>/dev/null || true)
for ((attempt = 1; attempt <= attempts; attempt++)); do
	ask_version
	if [[ -n $current && $current != "$version" ]]; then
		read_again
	fi
	if mdi-simulator register -key-file "$key_file"; then
		touch "$installed"
		exit 0
	fi

	# The key may have been replaced since. On watch that is not even known yet.
	ask_version
	if [[ $on_watch == true ]]; then
		version=''
		sleep "$pause"
	elif [[ -z $current || $current == "$version" ]]; then
		exit 1
	fi
done
exit 1
