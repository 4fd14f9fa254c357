#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Prints the path of a Vault binary to stdout, and everything else to stderr. It takes
# VAULT_BIN, or else a vault on PATH, or else builds one from Vault's Go module
# (scripts/vault) and keeps it in .cache/bin until its version changes. -announce only says
# what it would have to build.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULE_DIR=$ROOT/scripts/vault
BIN_DIR=$ROOT/.cache/bin

main() {
	local path
	if [[ ${1:-} == -announce ]]; then
		announce
	elif [[ -n ${VAULT_BIN:-} ]]; then
		is_vault "$VAULT_BIN" || fail "VAULT_BIN=$VAULT_BIN is not an executable Vault or OpenBao"
		absolute "$VAULT_BIN"
	elif path=$(command -v vault) && is_vault "$path"; then
		say "using $path from PATH"
		absolute "$path"
	else
		built_vault
	fi
}

# is_vault reports whether a program is Vault or OpenBao: others have the name too.
is_vault() { [[ -x $1 && ! -d $1 && $("$1" version 2>/dev/null) =~ ^(Vault|OpenBao)\ v[0-9] ]]; }

# absolute prints the absolute path, since tests run in other folders.
absolute() { printf '%s/%s\n' "$(cd "$(dirname "$1")" && pwd)" "$(basename "$1")"; }

built_vault() {
	local version binary
	version=$(required_version)
	binary=$BIN_DIR/vault-$version
	mkdir -p "$BIN_DIR"
	is_vault "$binary" || locked build "$version" "$binary" >&2
	printf '%s\n' "$binary"
}

# announce says what comes before the first run: nothing that takes minutes comes unannounced.
announce() {
	if [[ -z ${VAULT_BIN:-} ]] && ! is_vault "$(command -v vault || true)" && ! is_vault "$BIN_DIR/vault-$(required_version)"; then
		say "first run: downloads Go modules, compiles for a minute, and builds Vault from its Go module: 5–10 minutes on two cores, once. VAULT_BIN=… takes a Vault that is there."
	fi
}

# required_version prints the version of Vault in scripts/vault/go.mod, without v.
required_version() {
	local version
	version=$(sed -nE 's|^(require)?[[:space:]]*github.com/hashicorp/vault v([^ ]+).*|\2|p' "$MODULE_DIR/go.mod")
	[[ -n $version ]] || fail "no version of Vault in $MODULE_DIR/go.mod"
	printf '%s\n' "$version"
}

# locked runs one build at a time where flock exists. Elsewhere, two builds waste work
# but do no harm: each moves a finished file into place.
locked() {
	if command -v flock >/dev/null; then
		exec 9>"$BIN_DIR/.vault.lock"
		if ! flock -n 9; then
			say "another process is building Vault; waiting for it"
			flock 9
		fi
	fi
	"$@"
}

build() {
	local version=$1 binary=$2
	# The process that held the lock before may have built it.
	is_vault "$binary" && return
	command -v go >/dev/null || fail "no vault on PATH, and no Go to build one with"
	say "building Vault $version from its Go module: about 5–10 minutes once, on two cores"
	BUILD=$(mktemp -d "$BIN_DIR/.vault-build.XXXXXX")
	trap 'rm -rf "$BUILD"' EXIT
	if ! with_heartbeat report compile; then
		tail -n 40 "$BUILD/log" >&2
		fail "Vault $version does not build"
	fi
	mv "$BUILD/vault" "$binary"
	say "built Vault $version in $(elapsed): $binary"
}

# compile builds the smallest Vault that has what development needs: server, agent, raft,
# approle and userpass are in it, the cloud plugins are not. go list comes first: it
# downloads everything, and report needs the number of packages.
compile() {
	(
		export GOFLAGS=-buildvcs=false GOWORK=off
		cd "$MODULE_DIR"
		go list -deps -tags minimal . >"$BUILD/packages" &&
			go build -v -tags minimal -ldflags "-s -w" -o "$BUILD/vault" .
	) 2>"$BUILD/log"
}

# report prints the progress of the build: the go command names each module that it
# downloads and each package that it compiles.
report() {
	local downloaded compiled total
	downloaded=$(grep -c '^go: downloading' "$BUILD/log" || true)
	compiled=$(grep -vc '^go: ' "$BUILD/log" || true)
	total=$(wc -l <"$BUILD/packages")
	if ((total == 0)); then
		say "… Vault: $(elapsed) elapsed, $downloaded modules downloaded"
	else
		say "… Vault: $(elapsed) elapsed, $compiled of at most $((total)) packages compiled"
	fi
}

main "$@"
