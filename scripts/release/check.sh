#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# check.sh [-quick] shows that a release can be made from the files in this folder,
# committed or not. It builds everything twice, in two folders and, the second time,
# without Go's build cache: every artefact must have the same bytes both times. It signs with
# a key of its own, verifies that, and looks into the packages for Linux. Then it registers
# the binary for this machine on a real Vault with the command that the release has for it,
# and as root on Debian also the one from the deb. -quick builds for this machine only and
# starts no Vault.
#
# It needs goreleaser, cosign and the tools of scripts/tools on PATH, where `make
# release-check` puts them.
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

PLUGIN=vault-plugin-secrets-mdi
BUILD_LOG=build.log

# FILES is the number of files to download besides SHA256SUMS and its signature: for each of
# six platforms a binary, its SBOM, and the command that registers it; for each of two a deb
# and an rpm.
FILES=22

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
	[[ -n $quick ]] || make_signing_key
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
		inspect_packages "$ROOT/dist/release"
		try_on_vault "$ROOT/dist/release"
		scripts/release/try-deb.sh "$ROOT/dist/release"
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

# make_signing_key makes a key, and a configuration without the services that a signature of
# the release workflow needs.
make_signing_key() {
	export COSIGN_PASSWORD=
	export MDI_SIGNING_KEY=$WORK/check.key MDI_SIGNING_CONFIG=$WORK/signing-config.json
	run cosign generate-key-pair --output-key-prefix "$WORK/check"
	run cosign signing-config create --out "$MDI_SIGNING_CONFIG"
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

# compare fails unless both builds have made the same files with the same bytes, except for
# signatures, which are random, and for what goreleaser writes about its own run, which has
# dates and paths.
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
	find dist -type f ! -name artifacts.json ! -name metadata.json ! -name config.yaml ! -name '*.sigstore.json' -print0 |
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
	cp "$sums" "$sums.sigstore.json" "$ROOT/dist/release"
	while read -r sum name; do
		file=$(awk -v sum="$sum" '$1 == sum { print $2; exit }' "$WORK/one.sums")
		[[ -n $file ]] || fail "no file has the checksum that SHA256SUMS has for $name"
		cp "$1/$file" "$ROOT/dist/release/$name"
	done <"$sums"
	(cd "$ROOT/dist/release" && sha256sum --check --quiet SHA256SUMS)
	run cosign verify-blob --key "$WORK/check.pub" --insecure-ignore-tlog \
		--bundle "$ROOT/dist/release/SHA256SUMS.sigstore.json" "$ROOT/dist/release/SHA256SUMS"
	((FILES == $(wc -l <"$sums"))) || fail "SHA256SUMS does not have $FILES files: $(cat "$sums")"
}

# inspect_packages fails unless each deb and rpm has the binary and the command of its
# architecture, the scripts that give the capability and take the file away, and what these
# need, and nothing else.
inspect_packages() {
	local arch name format
	for arch in amd64:x86_64 arm64:aarch64; do
		for format in deb rpm; do
			name=$(echo "$1/$PLUGIN"_*"_linux_${arch%:*}.$format")
			package-contents "$name" >"$WORK/contents"
			diff - "$WORK/contents" >&2 <<-EOF || fail "$name does not contain what it should"
				$(expected "$format" "${name%."$format"}" "$arch")
			EOF
		done
	done
	say "deb and rpm: the binary, register.sh, the licence, and the scripts"
}

# expected prints what package-contents has to print of a package.
expected() {
	local format=$1 binary=$2 arch=${3%:*} version scripts=$ROOT/scripts/release/package
	local in=postinst out=postrm needs=libcap2-bin
	version=${binary#*"${PLUGIN}_"} version=${version%%_*}
	if [[ $format == rpm ]]; then
		in=postin out=postun needs=/usr/sbin/setcap arch=${3#*:}
	fi
	LC_ALL=C sort <<-EOF
		package $PLUGIN
		version ${version/-/\~}
		architecture $arch
		depends $needs
		script $(sum "$scripts/postinstall.sh") $in
		script $(sum "$scripts/postremove.sh") $out
		file 755 $(sum "$binary") /usr/lib/$PLUGIN/$PLUGIN
		file 755 $(sum "$binary.register.sh") /usr/lib/$PLUGIN/register.sh
		file 644 $(sum "$ROOT/LICENSE") /usr/share/doc/$PLUGIN/copyright
	EOF
}

sum() { sha256sum "$1" | cut -d' ' -f1; }

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
