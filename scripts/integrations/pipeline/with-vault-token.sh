#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Runs a command of a pipeline with its own Vault token:
#
#   print-id-token | with-vault-token.sh LOGIN_PATH ROLE COMMAND...
#
# Signs in with the ID token on stdin at auth/LOGIN_PATH, runs the command with
# VAULT_TOKEN, and revokes the token even if the command fails. The leases of the command
# end with the token: unless there are other leases on the key, it no longer works when
# the pipeline is over.
set -euo pipefail

if (($# < 3)); then
	echo "usage: with-vault-token.sh LOGIN_PATH ROLE COMMAND..." >&2
	exit 2
fi
login_path=$1 role=$2
shift 2

# The ID token is passed through pipes, so it is on no command line and in no file.
VAULT_TOKEN=$(vault write -field=token "auth/$login_path/login" role="$role" jwt=-)
export VAULT_TOKEN
trap 'vault token revoke -self >/dev/null' EXIT
"$@" </dev/null
