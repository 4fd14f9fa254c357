#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# record.sh TAG records what a release leaves behind, for the tests of later versions, in
# backend/upgradetest/TAG. Run it once after a release that stores something in a new
# way, and commit the files.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec go run ./scripts/upgrade "$1" "backend/upgradetest/$1"
