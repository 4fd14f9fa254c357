// SPDX-License-Identifier: MPL-2.0

// Package testbed runs the shipped plugin on real Vault servers against a simulated
// tenant, for the scenarios of backend/acceptance and for the programs below scripts/.
// It builds programs, starts and stops them as processes, and calls Vault. It needs a
// Unix system, and Linux to look at the children of a process.
package testbed
