// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxCell limits a cell: the report is to fit into an issue.
const maxCell = 400

// report returns the findings as Markdown. Nothing in it is secret, or tells which tenant
// it is about.
func report(f *facts, found []finding) string {
	var b strings.Builder
	count := map[verdict]int{}
	for _, finding := range found {
		count[finding.verdict]++
	}
	fmt.Fprintf(&b, "## Tenant check, %s, %s\n\n", f.began.UTC().Format(time.DateOnly), f.environment)
	fmt.Fprintf(&b, "%d confirmed, %d refuted, %d not told; %d calls in %s.\n\n",
		count[confirmed], count[refuted], count[notTold], f.calls, f.took.Round(time.Second))
	b.WriteString("| assumption | verdict | measured |\n|---|---|---|\n")
	for _, finding := range found {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", finding.text, finding.verdict, cell(finding.measured))
	}
	b.WriteString("\n| answer | request-id | client-request-id | error code |\n|---|---|---|---|\n")
	for _, line := range f.headers() {
		b.WriteString(line)
	}
	return b.String()
}

// headers returns a line for each kind of answer.
func (f *facts) headers() []string {
	var lines []string
	for _, a := range append(f.successes(), append(slices.Clone(f.refusals), f.throttled...)...) {
		returned := "not returned"
		if a.echoed {
			returned = "returned"
		}
		code := a.code
		if code == "" {
			code = "none"
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s |\n", cell(a.String()), a.requestID, returned, code))
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// cell keeps a text in one cell.
func cell(text string) string {
	text = strings.NewReplacer("|", "/", "\n", " ").Replace(text)
	if len(text) > maxCell {
		text = text[:maxCell] + "…"
	}
	return text
}
