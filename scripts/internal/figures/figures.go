// SPDX-License-Identifier: MPL-2.0

// Package figures formats measurements.
package figures

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// Percentile returns the p-th percentile of the values by the nearest-rank method, and
// the zero value if there are none. It sorts the values.
func Percentile[T cmp.Ordered](values []T, p float64) T {
	if len(values) == 0 {
		var none T
		return none
	}
	slices.Sort(values)
	rank := int(math.Ceil(p / 100 * float64(len(values))))
	return values[min(max(rank, 1), len(values))-1]
}

// Median is the 50th percentile.
func Median[T cmp.Ordered](values []T) T { return Percentile(values, 50) }

// Milliseconds formats a latency.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// Seconds formats a longer duration.
func Seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// Megabytes formats a number of bytes. A megabyte is a million of them.
func Megabytes(bytes float64, decimals int) string {
	return fmt.Sprintf("%.*f MB", decimals, bytes/1e6)
}

// Table collects rows and prints them in columns.
type Table struct {
	rows [][]string
}

// Row adds a row, whose cells it formats as fmt.Sprint does.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = fmt.Sprint(cell)
	}
	t.rows = append(t.rows, row)
}

// Print writes the rows with aligned columns.
func (t *Table) Print(w io.Writer) error {
	columns := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range t.rows {
		_, _ = fmt.Fprintln(columns, strings.Join(row, "\t")) // Flush returns the error
	}
	return columns.Flush()
}

// Markdown returns the rows as a Markdown table with the first one as its header. Columns
// are aligned, for a terminal. All rows need the same number of cells.
func (t *Table) Markdown() string {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var out strings.Builder
	for i, row := range t.rows {
		for j, cell := range row {
			fmt.Fprintf(&out, "| %-*s ", widths[j], cell)
		}
		out.WriteString("|\n")
		if i == 0 {
			for _, width := range widths {
				out.WriteString("|-" + strings.Repeat("-", width) + "-")
			}
			out.WriteString("|\n")
		}
	}
	return out.String()
}
