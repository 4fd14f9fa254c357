// SPDX-License-Identifier: MPL-2.0

// Package check runs the code of External Secrets Operator, unmodified, with the example in
// the folder above, on a real Vault. `make integrations-check` runs the tests.
//
// It is a module of its own, so that the operator's dependencies are none of the plugin's,
// and do not mix with those of the other examples' tools.
package check
