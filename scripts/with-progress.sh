#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# with-progress.sh WHAT COMMAND... runs COMMAND and prints every 15 seconds that WHAT is
# still running: a first run compiles for minutes without any output.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

report() { say "… $WHAT: still running after $(elapsed)"; }

WHAT=$1
shift
say "=== $WHAT"
with_heartbeat report "$@"
say "=== $WHAT: done in $(elapsed)"
