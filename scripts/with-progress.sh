#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# with-progress.sh WHAT COMMAND... runs COMMAND and prints after two seconds, and then every
# 15, for how long WHAT has been running, and how long it took the last time: a first run
# compiles for minutes without any output.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

report() { say "… $WHAT: $(elapsed)$(estimate "$WHAT")"; }

WHAT=$1
shift
say "=== $WHAT"
with_heartbeat report "$@"
remember "$WHAT"
say "=== $WHAT: done in $(elapsed)"
