// SPDX-License-Identifier: MPL-2.0

// Package clients runs libraries that Microsoft wrote, unmodified, against the simulator of
// package graphtest. `make clients-check` runs the tests.
//
// The plugin has a client of its own for Graph. That it and the simulator agree proves
// little if the same people wrote both. So azidentity, the Graph SDK for Go and their
// counterparts for JavaScript have to get along with the simulator, too: what one of them
// sends or expects, Microsoft's services do.
//
// The clients for Go reach the simulator under Microsoft's names (see cloud): their options
// change only how they dial and which authority they trust. Those for JavaScript, in the
// folder javascript, are told its address, since Node dials as it likes.
//
// It is a module of its own, so that none of the libraries is a dependency of the plugin.
package clients
