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
elapsed() { minutes "$SECONDS"; }

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# remember WHAT stores for how long this script has run; estimate WHAT prints that in a later
# run, as " of about m:ss".
remember() {
	mkdir -p "$ROOT/.cache/took"
	printf '%s\n' "$SECONDS" >"$(took "$1")"
}

estimate() {
	local seconds
	if seconds=$(cat "$(took "$1")" 2>/dev/null); then
		printf ' of about %s' "$(minutes "$seconds")"
	else
		printf ', for the first time here'
	fi
}

took() { printf '%s/.cache/took/%s' "$ROOT" "${1//[^A-Za-z0-9.=-]/_}"; }

# with_heartbeat REPORT COMMAND... runs COMMAND, and calls REPORT after 2 s and every 15 s. COMMAND
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

# heartbeat calls REPORT while the script runs. It checks every second, so
# that it does not hold the script's output and locks for longer.
heartbeat() {
	local seconds=0
	while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		seconds=$((seconds + 1))
		if ((seconds == 2 || seconds % 15 == 0)); then "$1"; fi
	done
}
