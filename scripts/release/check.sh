#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# check.sh [-quick] shows that a release can be made from the files in this folder,
# committed or not. It builds everything twice, in two folders and, the second time,
# without Go's build cache: every artefact must have the same bytes both times. Then it
# registers the binary for this machine on a real Vault with the command that the release
# has for it. -quick builds for this machine only and starts no Vault.
#
# It needs goreleaser and cyclonedx-gomod on PATH, where `make release-check` puts them.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

PLUGIN=vault-plugin-secrets-mdi
BUILD_LOG=build.log

# FILES is the number of files to download besides SHA256SUMS: for each of six platforms
# a binary, its SBOM, and the command that registers it.
FILES=18

main() {
	quick=
	[[ ${1:-} == -quick ]] && quick=1
	if [[ ${1:-} == -try ]]; then
		try "$2"
		return
	fi
	WORK=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/mdi-release.XXXXXX")" && pwd -P)
	trap 'rm -rf "$WORK"' EXIT
	check_container
	# Both copies now: the build takes minutes, in which the files can be edited. The names
	# differ in length: a path that is left in a binary would move the rest.
	copy "$WORK/one"
	cp -a "$WORK/one" "$WORK/the-other-checkout"
	release "$WORK/one" "$quick"
	GOCACHE=$WORK/cache release "$WORK/the-other-checkout" "$quick"
	compare "$WORK/one" "$WORK/the-other-checkout"
	compare_with_make "$WORK/one"
	inspect "$WORK/one"
	if [[ -z $quick ]]; then
		publish "$WORK/one"
		try_on_vault "$ROOT/dist/release"
	fi
	remember "release check $quick"
	say "release: passed in $(elapsed)"
}

# check_container compares the Containerfile with the files that the release passes to
# it: the binary, in a folder for each platform.
check_container() {
	local sources
	sources=$(sed -nE 's/^(COPY|ADD) +(.*[^ ]) +[^ ]+$/\2/p' "$ROOT/Containerfile")
	[[ $sources == "\${TARGETPLATFORM}/$PLUGIN" ]] || fail "the release does not make what Containerfile copies: $sources"
}

# release builds everything in a copy of this folder, or with a second argument only the
# binary for this machine.
release() {
	local dir=$1 quick=$2
	cd "$dir"
	if [[ -n $quick ]]; then
		say "building for this machine in ${dir##*/}"
		run goreleaser build --snapshot --clean --single-target
	else
		say "building for six platforms in ${dir##*/}: minutes, on two cores"
		run goreleaser release --snapshot --clean --skip=docker
	fi
	cd "$ROOT"
}

# run shows the output of a command only if it fails.
run() {
	local status=0
	with_heartbeat report logged "$@" || status=$?
	((status == 0)) || fail "$1: $(tail -n 30 "$WORK/$BUILD_LOG")"
}

logged() { "$@" >"$WORK/$BUILD_LOG" 2>&1; }

report() { say "… release check: $(elapsed)$(estimate "release check $quick"): $(tail -n 1 "$WORK/$BUILD_LOG")"; }

# copy makes a repository with one commit, whose id depends on the content only, and a tag
# of the newest version. The history of this one may be missing, as in CI.
copy() {
	local dir=$1
	mkdir "$dir"
	git -C "$ROOT" ls-files -z --cached --others --exclude-standard |
		(cd "$ROOT" && while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done) |
		tar -C "$ROOT" --null -T - -cf - | tar -C "$dir" -xf -
	(
		export GIT_AUTHOR_DATE="2026-01-01T00:00:00Z" GIT_COMMITTER_DATE="2026-01-01T00:00:00Z"
		cd "$dir"
		git init -q
		git add -A
		git -c user.name=release -c user.email=release@invalid -c commit.gpgsign=false commit -q -m "release check"
		git tag "$(scripts/release/notes.sh -latest)"
		git remote add origin https://github.com/nobody/$PLUGIN # otherwise goreleaser finds no commit
	)
}

# compare fails unless both builds have made the same files with the same bytes, except
# for those that goreleaser writes about its own run, which have dates and paths.
compare() {
	local name
	for name in one two; do
		(cd "$1" && artefacts) >"$WORK/$name.sums"
		shift
	done
	diff "$WORK/one.sums" "$WORK/two.sums" >&2 || fail "two builds differ"
	say "equal in both builds:"
	cat "$WORK/one.sums" >&2
}

# compare_with_make fails unless `make build` makes the same binary for this machine:
# docs/release.md promises that a release can be built again.
compare_with_make() {
	local binary version
	binary=$(echo "$1/dist/release/plugin_$(go env GOOS)_$(go env GOARCH)_"*"/$PLUGIN")
	version=$("$binary" -version)
	run make -C "$1" --no-print-directory build VERSION="$version"
	cmp "$binary" "$1/dist/plugins/$PLUGIN" >&2 || fail "make build makes a binary that differs from the release's"
	say "equal to the binary of make build"
}

artefacts() {
	find dist -type f ! -name artifacts.json ! -name metadata.json ! -name config.yaml -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum
}

# inspect fails if a binary contains the simulator or code for tests, or was built with
# other settings.
inspect() {
	local binary
	while IFS= read -r -d '' binary; do
		go version -m "$binary" >"$WORK/buildinfo"
		grep -q $'build\tCGO_ENABLED=0$' "$WORK/buildinfo" || fail "$binary was built with cgo"
		grep -q $'build\t-trimpath=true$' "$WORK/buildinfo" || fail "$binary was built without -trimpath"
		! grep -E $'build\t-tags=' "$WORK/buildinfo" || fail "$binary was built with a tag"
		! grep -aqE 'graphtest|mdi-simulator' "$binary" || fail "$binary contains the simulator"
		! grep -aqF -e "$ROOT" -e "$WORK" "$binary" || fail "$binary contains the path of the folder that it was built in"
	done < <(find "$1/dist/release" -type f -path '*plugin_*' -print0)
	say "no binary contains the simulator, a build tag, or a path of this machine"
}

# publish puts the files that a release offers for download into dist/release, with their
# names in SHA256SUMS. It finds a file by its checksum, which verifies each line.
publish() {
	local sums=$1/dist/release/SHA256SUMS sum name file
	rm -rf "$ROOT/dist/release"
	mkdir -p "$ROOT/dist/release"
	cp "$sums" "$ROOT/dist/release"
	while read -r sum name; do
		file=$(awk -v sum="$sum" '$1 == sum { print $2; exit }' "$WORK/one.sums")
		[[ -n $file ]] || fail "no file has the checksum that SHA256SUMS has for $name"
		cp "$1/$file" "$ROOT/dist/release/$name"
	done <"$sums"
	(cd "$ROOT/dist/release" && sha256sum --check --quiet SHA256SUMS)
	((FILES == $(wc -l <"$sums"))) || fail "SHA256SUMS does not have $FILES files: $(cat "$sums")"
}

# try_on_vault registers the binary for this machine on a Vault that has nothing else.
try_on_vault() {
	mkdir "$WORK/plugins" "$WORK/bin"
	install "$1/$PLUGIN"_*_"$(go env GOOS)_$(go env GOARCH)" "$WORK/plugins"
	ln -s "$("$ROOT/scripts/vault.sh")" "$WORK/bin/vault"
	PATH=$WORK/bin:$PATH go run ./scripts/dev -plugins "$WORK/plugins" "$ROOT/scripts/release/check.sh" -try "$1"
}

# try follows docs/release.md on the Vault that VAULT_ADDR leads to.
try() {
	local name version answer
	name=$(cd "$1" && echo "$PLUGIN"_*_"$(go env GOOS)_$(go env GOARCH)")
	version=$("$1/$name" -version)
	sh "$1/$name.register.sh"
	vault secrets enable -path=mdi "$PLUGIN"
	vault plugin list secret | grep -E "^$PLUGIN +$version\$"
	vault secrets list -detailed | grep -E "^mdi/ .* $version "
	! answer=$(vault read mdi/config 2>&1) || fail "a new engine has a configuration"
	grep -F "No value found at mdi/config" <<<"$answer"
}

main "$@"
