// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"os"
	"regexp"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

// shownComplaints is the number of lines of a log that are worth showing.
const shownComplaints = 20

// complaint matches a line with a warning or an error, or of the trace of a panic.
var complaint = regexp.MustCompile(`.*(?:\[WARN\]|\[ERROR\]|panic:|\.go:\d).*`)

// ShowComplaints prints the last warnings and errors of the server and its plugins.
func (v *Vault) ShowComplaints() {
	lines, err := Complaints(v.LogFile())
	if err != nil {
		command.Progress("no log of Vault: %v", err)
	}
	for _, line := range lines {
		command.Progress("%s", line)
	}
}

// Complaints returns the last warnings and errors in a log.
func Complaints(file string) ([]string, error) {
	log, err := os.ReadFile(file) //nolint:gosec // a file of this run's folder
	found := complaints(string(log))
	return found[max(0, len(found)-shownComplaints):], err
}

func complaints(log string) []string { return complaint.FindAllString(log, -1) }
