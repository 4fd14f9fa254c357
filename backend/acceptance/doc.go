// SPDX-License-Identifier: MPL-2.0

// Package acceptance runs the shipped plugin in a real Vault, against a simulated
// tenant, and asks the question that matters: can a sensor be installed with this
// key? The scenarios are the files in testdata/script, written for
// github.com/rogpeppe/go-internal/testscript. They read like a terminal session
// and double as documentation.
//
//	make acceptance                                       # all scenarios
//	go test ./backend/acceptance -run '/scenarios/read$'  # one of them
//
// Each scenario has a Vault of its own, in dev mode, and a tenant of its own. vault and
// mdi-simulator speak to these two. In the folder where it starts, tenant/config.json is
// what to write to mdi/config in order to use that tenant, and tenant/app.json the same
// without a credential. $TENANT_HOST is the tenant's host and port.
// $SCRIPTS is the repository's scripts folder, $LOGS the folder of the scenario's
// logs; what a script starts has to log there.
//
// On top of testscript's own commands there are
//
//	[!] vault ARGS...            the command line of Vault
//	[!] mdi-simulator ARGS...    the program that steers the tenant
//	eventually TIME COMMAND      repeats a command until it succeeds
//	within TIME COMMAND          a command that must succeed in that time
//	rejected FIELD COMMAND       a command that must fail with a 400 that names the field
//	field FILE PATH > FILE       writes a string out of a JSON file, such as data.ttl
//	let NAME FILE PATH           puts that string into a variable
//	read-at-once N PATH > FILE   reads a path N times at the same moment, counts what
//	                             came of it, and writes one of the answers
//	keep-reading N PATH PAUSE    lets N readers read a path, again and again
//	stop-reading PATH            stops them and counts the same
//	needs CAPABILITY...          ends the script, as skipped, on a server that lacks one (see
//	                             capabilities)
//	start-tenant NAME            starts one more tenant, in the folder NAME
//	restart-vault NAME=VALUE...  starts another Vault, which has nothing of what the one
//	                             before has stored, with that environment, which its
//	                             plugin inherits
//	start-raft N                 starts a cluster of N nodes in the place of Vault, with the
//	                             plugin at mdi/ and with sys/raw
//	start-proxy NAME FLAGS...    starts a forward proxy (see internal/proxy): its URL is
//	                             in the folder NAME, what it is asked for in its log
//	black-hole NAME              puts an address into a variable where connections are
//	                             made and nobody ever answers
//	id-tokens KEY CLAIMS...      signs claims, X.json into X.jwt, with a key whose public
//	                             half it writes to KEY
//	kill-plugin [N]              kills the plugin's process, as kill -9 does, when no client
//	                             is left; with N, at the moment when Graph has answered N
//	                             regenerations
//
// A COMMAND is vault or mdi-simulator with arguments, after "!" if it has to fail.
// It can end with "> FILE", which also keeps a key out of the test's output, or
// with "| grep PATTERN".
//
// Eleven tests run beside the scripts, and need more control than a script gives: upgrade
// restores a Vault that an older version of the plugin has left behind; downgrade steps
// mounts back to an older version, which it builds from the history of the repository;
// failover takes the active node of a cluster away, again and again while hosts read, and
// measures how long they are without a key; turning deletes the configuration and changes
// the tenant while they read; standby reads on a standby, and
// standby-upgrade upgrades the plugin of one; declared and declared-image have
// the server's configuration register the plugin, from a file and from an image; hasty has readers that leave before they have the answer;
// interrupted owns the plugin's storage in Vault's place, and kills
// the plugin at each of its writes; interrupted-root does so while the plugin replaces
// its own credential, and ends the grace period of the old one.
//
//	MDI_CHAOS_ROUNDS=50 go test ./backend/acceptance -timeout 1h -run '/scenarios/failover$'
//	MDI_CHAOS_SEED=7 ...                                  # the dice of an earlier run
//
// After the scenarios, every secret that a tenant has issued is looked for: in all their
// logs, in what vault and mdi-simulator have shown, and in each answer of mdi/config and
// mdi/status. There must be none.
package acceptance
