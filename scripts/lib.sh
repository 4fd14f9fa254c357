# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
#
# What the scripts share: messages, and progress reports of long commands.

# The root of the repository, for the scripts that source this file.
# shellcheck disable=SC2034
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# say prints to stderr: stdout is for results.
say() { printf '%s\n' "$*" >&2; }

fail() {
	say "error: $*"
	exit 1
}

# elapsed prints the seconds since this script started as m:ss.
elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

# with_heartbeat REPORT COMMAND... runs COMMAND and calls REPORT every 15 s. COMMAND
# stays in the foreground: a shell's background jobs ignore Ctrl-C, and a build that
# survives it would keep the machine busy.
with_heartbeat() {
	local report=$1 status=0 pid
	shift
	heartbeat "$report" &
	pid=$!
	"$@" || status=$?
	kill "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	return "$status"
}

# heartbeat calls REPORT every 15 s while the script runs. It checks every second, so
# that it does not hold the script's output and locks for longer.
heartbeat() {
	local seconds=0
	while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		seconds=$((seconds + 1))
		if ((seconds % 15 == 0)); then "$1"; fi
	done
}
