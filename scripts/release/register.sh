#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# register.sh BINARY VERSION NAME writes dist/register/NAME.register.sh: the command that
# registers exactly this binary on a Vault that has it as NAME in its plugin_directory.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

PLUGIN=vault-plugin-secrets-mdi

main() {
	local binary=$1 version=$2 name=$3 file=dist/register/$3.register.sh command
	case $binary in
	*.exe) command=$name.exe ;;
	*) command=$name ;;
	esac
	mkdir -p dist/register
	cat >"$file" <<-EOF
		#!/bin/sh
		# Registers $PLUGIN $version. Before that, put the file
		# $command
		# into the plugin_directory of every Vault server.
		vault plugin register \\
		  -sha256=$(checksum "$binary") \\
		  -command=$command \\
		  -version=$version \\
		  secret $PLUGIN
	EOF
}

# checksum prints the SHA-256 of a file, with the program that the system has.
checksum() {
	if command -v sha256sum >/dev/null; then
		sha256sum "$1"
	else
		shasum -a 256 "$1"
	fi | cut -d' ' -f1
}

main "$@"
