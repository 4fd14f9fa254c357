#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# A development server: Vault in dev mode with the engine at mdi/, configured
# against the simulator, or against a real tenant if AZURE_TENANT_ID,
# AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are set. Ctrl-C ends it without a trace.
set -euo pipefail

# shellcheck source=scripts/devserver.sh
source "$(dirname "${BASH_SOURCE[0]}")/devserver.sh"

main() {
	prepare
	trap 'exit 0' INT # Ctrl-C is how it is meant to end
	if has_tenant; then
		warn_about_tenant
		ROOT_TOKEN=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
		start_vault
		trap leave_tenant EXIT
		configure_for_tenant
	else
		start_simulator
		start_vault
		configure_for_simulator
	fi
	print_next_steps
	wait "${PIDS[${#PIDS[@]} - 1]}" || true
	fail "Vault ended by itself"
}

has_tenant() { [[ -n ${AZURE_TENANT_ID:-} && -n ${AZURE_CLIENT_ID:-} && -n ${AZURE_CLIENT_SECRET:-} ]]; }

warn_about_tenant() {
	say ""
	say "WARNING: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are set: this is the"
	say "real tenant $AZURE_TENANT_ID. A read of mdi/key regenerates its deployment access key;"
	say "the previous one no longer installs sensors. When the last lease ends, so does the new"
	say "one. Unset the variables to work with the simulator."
}

# leave_tenant has a key that was handed out regenerated before everything is stopped.
leave_tenant() {
	local status=$?
	vault secrets disable mdi >&2 || true
	(exit "$status")
	cleanup
}

configure_for_tenant() {
	printf '%s' "$AZURE_CLIENT_SECRET" |
		write_config tenant_id="$AZURE_TENANT_ID" client_id="$AZURE_CLIENT_ID"
}

print_next_steps() {
	cat <<-EOF

		$(vault version | cut -d, -f1) is up after $(elapsed), with the engine at mdi/. In another terminal:

		  export VAULT_ADDR=$VAULT_ADDR VAULT_TOKEN=$VAULT_TOKEN
		  export PATH="$WORK/bin:\$PATH"
		  vault read mdi/key
		  vault read mdi/status
		  vault lease revoke <lease_id>
	EOF
	has_tenant || print_simulator_steps
	printf '\nServer log: %s\nCtrl-C stops everything and removes it.\n' "$WORK/vault.log"
}

print_simulator_steps() {
	cat <<-EOF

		The tenant is simulated. Can a sensor be installed with the key? The file with it goes
		where it is removed with the rest.

		  export MDI_SIMULATOR_DIR="$MDI_SIMULATOR_DIR"
		  vault read -field=deployment_access_key mdi/key | tr -d '\\n' > \$MDI_SIMULATOR_DIR/key.txt
		  mdi-simulator register -key-file \$MDI_SIMULATOR_DIR/key.txt
		  mdi-simulator calls
	EOF
}

main
