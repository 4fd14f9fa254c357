// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"strings"
)

// The lines around the report in a document.
const (
	reportBegins = "<!-- The report of make bench begins. -->\n"
	reportEnds   = "<!-- The report of make bench ends. -->\n"
)

// writeInto replaces the report in a document.
func writeInto(file, report string) error {
	text, err := os.ReadFile(file) //nolint:gosec // naming the file is what the flag is for
	if err != nil {
		return err
	}
	replaced, err := replaceReport(string(text), report)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(replaced), 0o600) //nolint:gosec // the flag names the file, which keeps its permissions
}

// replaceReport returns a document with another report between its marks.
func replaceReport(document, report string) (string, error) {
	before, rest, begins := strings.Cut(document, reportBegins)
	_, after, ends := strings.Cut(rest, reportEnds)
	if !begins || !ends {
		return "", fmt.Errorf("no place for the report: the lines %q and %q are missing", strings.TrimSpace(reportBegins), strings.TrimSpace(reportEnds))
	}
	return before + reportBegins + "\n" + report + "\n" + reportEnds + after, nil
}
