// SPDX-License-Identifier: MPL-2.0

// Package testbed runs what the programs below scripts/ measure: the shipped
// plugin, as the Makefile builds it, on a real Vault server, against a simulated
// tenant. Vault runs as a process with its own folder and ends with the program
// that started it. It needs a Unix system.
package testbed
