// SPDX-License-Identifier: MPL-2.0

// Package testbed runs the shipped plugin on real Vault servers, against a simulated
// tenant, for the scenarios of backend/acceptance and for the programs below scripts/
// that measure. It builds the programs, starts and ends them as processes, and speaks
// to Vault. It needs a Unix system, and Linux where it looks at the children of a
// process.
package testbed
