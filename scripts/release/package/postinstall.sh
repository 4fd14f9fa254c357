#!/bin/sh
# Runs after a deb or rpm has been installed or upgraded. It lets the plugin lock its memory,
# and puts it into the folder for plugins under the name that its register.sh has. That is
# a second name of the file, not a part of the package: an upgrade leaves the version before
# where Vault has it registered.
set -e

lib=$DPKG_ROOT/usr/lib/vault-plugin-secrets-mdi
plugins=$DPKG_ROOT/usr/lib/vault/plugins
binary=$lib/vault-plugin-secrets-mdi

setcap cap_ipc_lock=+ep "$binary" ||
	echo "vault-plugin-secrets-mdi: the plugin may not lock its memory: run setcap cap_ipc_lock=+ep on it, or set disable_mlock in Vault's configuration" >&2
mkdir -p "$plugins"
ln -f "$binary" "$plugins/$(sed -n 's/^ *-command=\([^ ]*\).*/\1/p' "$lib/register.sh")"
