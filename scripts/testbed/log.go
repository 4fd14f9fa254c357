// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"os"
	"strings"
)

// shownComplaints is how many lines of a log are worth showing.
const shownComplaints = 20

// LogHas tells whether a line of the server's log contains text.
func (v *Vault) LogHas(text string) (bool, error) {
	log, err := os.ReadFile(v.LogFile())
	return strings.Contains(string(log), text), err
}

// Complaints returns the last warnings and errors of the server and its plugins.
func (v *Vault) Complaints() ([]string, error) { return Complaints(v.LogFile()) }

// Complaints returns the last warnings and errors of a log.
func Complaints(file string) ([]string, error) {
	log, err := os.ReadFile(file) //nolint:gosec // a file of this run's folder
	found := complaints(string(log))
	return found[max(0, len(found)-shownComplaints):], err
}

func complaints(log string) []string {
	var found []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "[WARN]") || strings.Contains(line, "[ERROR]") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
