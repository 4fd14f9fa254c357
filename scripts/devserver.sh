# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
#
# A Vault in dev mode with the engine at mdi/, for dev.sh and demo.sh. Everything
# lives in one temporary folder and ends with the script that sources this file.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PIDS=()

# prepare builds what is missing and puts vault and mdi-simulator on PATH, so that
# the commands shown on the screen are the commands that run.
prepare() {
	local vault
	umask 077
	make -C "$ROOT" --no-print-directory build simulator >&2
	vault=$("$ROOT/scripts/vault.sh")
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/mdi-dev.XXXXXX")
	trap cleanup EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	mkdir "$WORK/bin"
	ln -s "$vault" "$WORK/bin/vault"
	ln -s "$ROOT/.cache/bin/mdi-simulator" "$WORK/bin/mdi-simulator"
	PATH=$WORK/bin:$PATH
	forget_other_vaults
}

# forget_other_vaults drops the settings of other Vault servers: a namespace or an
# address would send these commands there. The licence of an Enterprise binary stays.
forget_other_vaults() {
	local name
	for name in "${!VAULT_@}"; do
		[[ $name == VAULT_LICENSE* ]] || unset "$name"
	done
}

# cleanup stops what was started, last one first, and removes the folder, after
# showing what Vault and the plugin complained about if something went wrong.
cleanup() {
	local status=$? i
	trap - EXIT
	trap '' HUP INT TERM
	for ((i = ${#PIDS[@]} - 1; i >= 0; i--)); do
		stop "${PIDS[i]}"
	done
	if ((status > 0 && status < 128)); then
		grep -hE '\[(WARN|ERROR)\]|panic:|\.go:[0-9]' "$WORK/vault.log" | tail -n 20 >&2 || true
	fi
	rm -rf "$WORK"
}

# stop ends a process politely, and after 10 s for good: Vault stops its plugins
# only if it gets the time.
stop() {
	local tries
	kill "$1" 2>/dev/null || return 0
	for ((tries = 0; tries < 100; tries++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -KILL "$1" 2>/dev/null || true
}

# start NAME COMMAND... runs a server whose output goes to $WORK/NAME.log.
start() {
	local name=$1
	shift
	"$@" </dev/null >"$WORK/$name.log" 2>&1 &
	PIDS+=($!)
}

# await NAME COMMAND... waits until COMMAND succeeds, as long as the server that
# was started last is alive, and 30 s at most.
await() {
	local name=$1 pid=${PIDS[${#PIDS[@]} - 1]} tries
	shift
	for ((tries = 0; tries < 300; tries++)); do
		if ! kill -0 "$pid" 2>/dev/null; then
			fail "$name ended: $(tail -n 5 "$WORK/$name.log")"
		fi
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	fail "$name is not ready after 30 s"
}

start_simulator() {
	export MDI_SIMULATOR_DIR=$WORK/simulator
	mkdir "$MDI_SIMULATOR_DIR"
	start simulator mdi-simulator serve -dir "$MDI_SIMULATOR_DIR"
	await simulator test -s "$MDI_SIMULATOR_DIR/simulator.json"
}

start_vault() {
	local address
	address=127.0.0.1:$(free_port)
	export VAULT_ADDR=http://$address VAULT_TOKEN=${ROOT_TOKEN:-root}
	# By the environment, since a command line is readable by everybody.
	export VAULT_DEV_ROOT_TOKEN_ID=$VAULT_TOKEN
	start vault vault server -dev -log-level=debug -dev-no-store-token \
		-dev-plugin-dir="$ROOT/dist/plugins" -dev-listen-address="$address"
	await vault vault secrets list
	vault secrets enable -path=mdi vault-plugin-secrets-mdi >/dev/null
}

# free_port prints Vault's usual port, or the next one that is free together with
# its successor, which Vault uses too.
free_port() {
	local port
	for ((port = 8200; port < 8300; port += 2)); do
		if ! listening "$port" && ! listening $((port + 1)); then
			printf '%s\n' "$port"
			return
		fi
	done
	fail "no free port from 8200 to 8299"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# configure_for_simulator points the engine to the simulator's Entra and Graph.
configure_for_simulator() {
	local url
	url=$(simulator_field url)
	simulator_field client_secret | write_config \
		tenant_id="$(simulator_field tenant_id)" \
		client_id="$(simulator_field client_id)" \
		graph_endpoint="$url" \
		authority_host="$url" \
		ca_certificate=@"$MDI_SIMULATOR_DIR/ca.pem"
}

# write_config configures the engine with the client secret from stdin, because a
# command line is readable by everybody on the machine.
write_config() { vault write mdi/config client_secret=- "$@" >/dev/null; }

# simulator_field prints one text field of simulator.json, without a newline.
simulator_field() {
	local value
	value=$(sed -nE "s/.*\"$1\": *\"([^\"]*)\".*/\1/p" "$MDI_SIMULATOR_DIR/simulator.json")
	[[ -n $value ]] || fail "simulator.json has no $1"
	printf '%s' "$value"
}
