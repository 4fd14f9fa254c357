#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# A stand-in for install-sensor.ps1 and the installer that it runs, to try the whole chain
# on Linux: it registers a sensor at the simulator with the key in a file, removes the
# file, and remembers that the sensor is installed.
#
#   install-sensor.sh ACCESS_KEY_FILE
#
# MDI_SIMULATOR_DIR names the folder of a running mdi-simulator. Exit codes: 0 the
# sensor is installed, now or already; 1 the key was refused.
set -euo pipefail

key_file=${1:?usage: install-sensor.sh ACCESS_KEY_FILE}
installed=$(dirname "$key_file")/sensor-installed

# The file with the key is removed in any case; the agent writes the next one.
trap 'rm -f "$key_file"' EXIT

if [[ -e $installed ]]; then
	exit 0
fi
mdi-simulator register -key-file "$key_file"
touch "$installed"
