#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# try-deb.sh FOLDER installs the deb for this machine, which is in FOLDER, into a folder that
# stands for the root of a Debian system, registers the plugin on a Vault that locks its
# memory, and removes the package. Vault runs as a user who may lock next to no memory, so
# the plugin can lock its own only with the capability that the package gives it.
#
# Only root may install a package and give a capability: others are told that nothing is done.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

PLUGIN=vault-plugin-secrets-mdi
NOBODY=65534

main() {
	local arch lib plugins
	if ((EUID != 0)) || ! type -P dpkg setcap setpriv >/dev/null; then
		say "the deb is not installed: that takes root, on Debian, with dpkg, setcap and setpriv"
		return
	fi
	WORK=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/mdi-deb.XXXXXX")" && pwd -P)
	trap 'stop; rm -rf "$WORK"' EXIT
	chmod 755 "$WORK"
	arch=$(dpkg --print-architecture)
	lib=$WORK/root/usr/lib/$PLUGIN plugins=$WORK/root/usr/lib/vault/plugins
	mkdir -p "$WORK/root/var/lib/dpkg" "$WORK/bin"
	package --install "$1/$PLUGIN"_*"_linux_$arch.deb"
	getcap "$lib/$PLUGIN" | grep -q 'cap_ipc_lock[+=]ep' || fail "the plugin has no capability: is ${TMPDIR:-/tmp} mounted with nosuid?"
	start "$plugins"
	sh "$lib/register.sh"
	vault secrets enable -path=mdi "$PLUGIN"
	vault plugin list secret | grep -E "^$PLUGIN +v"
	(($(locked "$plugins") > 0)) || fail "the plugin has not locked its memory"
	stop
	package --remove "$PLUGIN"
	[[ -z $(find "$WORK/root" -path "$WORK/root/var" -prune -o -name "$PLUGIN*" -print) ]] || fail "removing the package leaves files behind"
	say "the deb installs, registers on a Vault that locks its memory, and is removed"
}

# package runs dpkg on the folder. The scripts of the package run as they are, without the
# programs of a whole system in that folder; so does dpkg without what the package needs.
package() {
	dpkg --root="$WORK/root" --force-script-chrootless --force-depends --log=/dev/null "$@" >"$WORK/dpkg.log" 2>&1 ||
		fail "dpkg $1: $(cat "$WORK/dpkg.log")"
}

# start runs a Vault with a folder of plugins, and sets what its clients need.
start() {
	install -m 755 "$("$ROOT/scripts/vault.sh")" "$WORK/bin/vault"
	export PATH=$WORK/bin:$PATH HOME=$WORK VAULT_ADDR=http://127.0.0.1:$((20000 + RANDOM % 10000))
	unset VAULT_TOKEN VAULT_NAMESPACE
	cat >"$WORK/vault.hcl" <<-EOF
		storage "inmem" {}
		listener "tcp" {
		  address     = "${VAULT_ADDR#http://}"
		  tls_disable = true
		}
		api_addr         = "$VAULT_ADDR"
		plugin_directory = "$1"
		disable_mlock    = false
	EOF
	setcap cap_ipc_lock=+ep "$WORK/bin/vault"
	(
		ulimit -l 64
		cd /
		exec setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups "$WORK/bin/vault" server -config="$WORK/vault.hcl"
	) >"$WORK/vault.log" 2>&1 &
	SERVER=$!
	unseal
}

# unseal initialises the Vault as soon as it answers.
unseal() {
	local tries
	for ((tries = 0; tries < 60; tries++)); do
		if vault operator init -key-shares=1 -key-threshold=1 >"$WORK/init" 2>/dev/null; then
			vault operator unseal "$(awk '/^Unseal Key 1:/ { print $4 }' "$WORK/init")" >/dev/null
			VAULT_TOKEN=$(awk '/^Initial Root Token:/ { print $4 }' "$WORK/init")
			export VAULT_TOKEN
			return
		fi
		kill -0 "$SERVER" 2>/dev/null || break
		sleep 1
	done
	fail "Vault does not start: $(tail -n 5 "$WORK/vault.log")"
}

# locked prints how many kilobytes of memory the plugin has locked.
locked() {
	local pid
	for pid in $(pgrep -f "^$1/$PLUGIN"); do
		awk '$1 == "VmLck:" { print $2 }' "/proc/$pid/status"
	done | sort -n | tail -n 1
}

stop() {
	[[ -n ${SERVER:-} ]] || return 0
	kill "$SERVER" 2>/dev/null || true
	wait "$SERVER" 2>/dev/null || true
	SERVER=
}

main "$@"
