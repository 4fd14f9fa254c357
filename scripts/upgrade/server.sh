#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# server.sh SOURCES TAG FOLDER has the engine that is built from SOURCES lease keys on a
# real Vault, and leaves a snapshot of that Vault in FOLDER/server.snap, and how to
# unseal it in FOLDER/server.json. See record.sh.
#
# The leases end in decades, and the tenant has names that only a proxy resolves, so
# that a test can be the same tenant again on any day and at any port.
set -euo pipefail

# shellcheck source=scripts/devserver.sh
source "$(dirname "${BASH_SOURCE[0]}")/../devserver.sh"

PLUGIN=vault-plugin-secrets-mdi
# Chosen here, since what Vault makes up looks like the token of a Vault of interest.
TOKEN=token-of-the-upgrade-tests
LOGIN=login.upgrade.test
GRAPH=graph.upgrade.test

main() {
	local sources=$1 tag=$2 into=$3 unseal_key
	WORK=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/mdi-upgrade.XXXXXX")" && pwd -P)
	trap cleanup EXIT
	build "$sources" "$tag"
	start_tenant
	start_server
	vault operator init -key-shares=1 -key-threshold=1 >"$WORK/init"
	unseal_key=$(sed -nE 's/^Unseal Key 1: //p' "$WORK/init")
	vault operator unseal "$unseal_key" >/dev/null
	await vault vault status # active: a node of one elects itself
	VAULT_TOKEN=$(sed -nE 's/^Initial Root Token: //p' "$WORK/init") vault token create -id="$TOKEN" -policy=root >/dev/null
	export VAULT_TOKEN=$TOKEN
	mount "$tag"
	lease
	vault operator raft snapshot save "$into/server.snap"
	describe "$unseal_key" >"$into/server.json"
}

build() {
	local sources=$1 tag=$2
	mkdir "$WORK/bin" "$WORK/plugins" "$WORK/storage" "$WORK/tenant" "$WORK/proxy"
	ln -s "$("$ROOT/scripts/vault.sh")" "$WORK/bin/vault"
	(
		cd "$sources"
		go build -o "$WORK/bin" ./cmd/mdi-simulator ./backend/acceptance/internal/proxy
		CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $PLUGIN/backend.Version=$tag" -o "$WORK/plugins/${PLUGIN}_$tag" "./cmd/$PLUGIN"
	)
	PATH=$WORK/bin:$PATH
	forget_other_vaults
}

start_tenant() {
	local host
	export MDI_SIMULATOR_DIR=$WORK/tenant
	start simulator mdi-simulator serve -dir "$MDI_SIMULATOR_DIR"
	await simulator test -s "$MDI_SIMULATOR_DIR/simulator.json"
	mdi-simulator tenant -server-names "$LOGIN,$GRAPH" >/dev/null
	host=$(simulator_field url)
	host=${host#https://}
	start proxy proxy -dir "$WORK/proxy" -lead "$LOGIN=$host" -lead "$GRAPH=$host"
	await proxy test -s "$WORK/proxy/proxy.json"
}

start_server() {
	local address proxy
	address=127.0.0.1:$(free_port)
	proxy=$(sed -nE 's/.*"url": *"([^"]*)".*/\1/p' "$WORK/proxy/proxy.json")
	cat >"$WORK/vault.hcl" <<-EOF
		storage "raft" {
		  path    = "$WORK/storage"
		  node_id = "the-node"
		}
		listener "tcp" {
		  address     = "$address"
		  tls_disable = true
		}
		api_addr         = "http://$address"
		cluster_addr     = "https://127.0.0.1:$((${address##*:} + 1))"
		plugin_directory = "$WORK/plugins"
		disable_mlock    = true
		max_lease_ttl    = "876000h"
		raw_storage_endpoint = true
	EOF
	export VAULT_ADDR=http://$address
	HTTPS_PROXY=$proxy SSL_CERT_FILE=$WORK/tenant/ca.pem start vault vault server -config="$WORK/vault.hcl"
	await vault answers
}

# answers holds for a sealed Vault as well, of which vault status says so by its code.
answers() { vault status || [[ $? == 2 ]]; }

mount() {
	local tag=$1 file=${PLUGIN}_$1
	vault plugin register -sha256="$(sha256sum "$WORK/plugins/$file" | cut -d' ' -f1)" -command="$file" -version="$tag" secret "$PLUGIN"
	vault secrets enable -path=mdi -max-lease-ttl=876000h "$PLUGIN"
	simulator_field client_secret | write_config \
		tenant_id="$(simulator_field tenant_id)" client_id="$(simulator_field client_id)" \
		authority_host="https://$LOGIN" graph_endpoint="https://$GRAPH" ttl=24h
	vault write -f mdi/roles/sensor-hosts
	lengthen
}

# lengthen changes the stored duration of leases from a day to 50 years, which nobody
# could configure, so that the leases outlive the tests.
lengthen() {
	local entry
	entry=logical/$(vault read -field=uuid sys/mounts/mdi)/config
	vault read -field=value "sys/raw/$entry" | sed 's/"ttl":86400000000000,/"ttl":1576800000000000000,/' >"$WORK/config.json"
	vault write "sys/raw/$entry" value=@"$WORK/config.json" >/dev/null
	vault plugin reload -type=secret -plugin="$PLUGIN"
	[[ $(vault read -field=ttl mdi/config) == 1576800000 ]] || fail "the duration of leases has not changed"
}

# lease leaves a lease on a superseded key, and three on the current one.
lease() {
	local path
	for path in key key key/sensor-hosts key/sensor-hosts; do
		vault read -format=json "mdi/$path" >"$WORK/answer.json"
		sed -nE 's/^  "lease_id": "([^"]*)",$/\1/p' "$WORK/answer.json" >>"$WORK/leases"
	done
}

describe() {
	local leases
	leases=$(sed 's/.*/    "&"/; $!s/$/,/' "$WORK/leases")
	cat <<-EOF
		{
		  "about": "A Vault with nothing in it but this test's mount, and a simulated tenant. The secrets open nothing else.",
		  "unseal_key": "$1",
		  "token": "$TOKEN",
		  "tenant_id": "$(simulator_field tenant_id)",
		  "client_id": "$(simulator_field client_id)",
		  "client_secret": "$(simulator_field client_secret)",
		  "login_host": "$LOGIN",
		  "graph_host": "$GRAPH",
		  "key": "$(sed -nE 's/.*"deployment_access_key": "([^"]*)".*/\1/p' "$WORK/answer.json")",
		  "leases": [
		$leases
		  ]
		}
	EOF
}

main "$@"
