// SPDX-License-Identifier: MPL-2.0

// Package docs follows the documentation as a newcomer would, and fails where it
// leads them astray. It needs a Vault, so it belongs to the acceptance tests:
//
//	go test ./backend/acceptance/docs                                      # all of it
//	go test ./backend/acceptance/docs -run 'TestCommands/operate$'         # the commands of docs/operate.md
//	MDI_UPDATE_DOCS=1 go test ./backend/acceptance/docs -run TestReference # writes the tables of docs/api.md
//
// # Commands
//
// A code block with the info string "console" shows a terminal: commands after "$ ",
// continued after a backslash or "> ", and what they print. The commands of a
// document are run in order, in one shell, in a fresh copy of the checkout. A development
// server of its own runs there (make dev). Each has to succeed, and to print the lines that
// the document shows: "…" is any text, and on a line of its own any number of lines. Blanks count as one. A command without output shown may print
// what it likes. Commands that only look are repeated for a while until they print it,
// since Vault ends leases in the background.
//
// Comments of Markdown before a block change that:
//
//	<!-- set up: COMMAND -->       run here, unseen by the reader: what they are told has happened
//	<!-- fails -->                 the last command of the block has to fail
//	<!-- unless it says: TEXT -->  the block ends there if a command fails with that text, since
//	                               the server lacks what it is about
//	<!-- one command -->           only the first "$ " is a command; the others are output of it
//	<!-- run by: FILE -->          another test runs this; the file has to say so
//	<!-- checked by: FOLDER -->    tests there check what this uses; it needs a program that is not here
//	<!-- run by hand: REASON -->   nothing runs this; only for targets of the Makefile
//
// A block whose introduction, the paragraph before it, says "needs a tenant" is not run
// either. Of what is not run here, the paths and fields of the engine are compared with
// what Vault serves, and the files of this repository have to exist.
package docs
