// SPDX-License-Identifier: MPL-2.0

package figures

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for _, test := range []struct {
		name   string
		values []int
		p      float64
		want   int
	}{
		{"nothing", nil, 50, 0},
		{"one value is every percentile", []int{7}, 1, 7},
		{"the middle of three", []int{9, 1, 5}, 50, 5},
		{"the lower middle of four", []int{4, 3, 2, 1}, 50, 2},
		{"of a hundred", hundred, 99, 99},
		{"between two ranks the upper", []int{1, 2, 3}, 67, 3},
		{"the largest", hundred, 100, 100},
		{"the smallest", hundred, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Percentile(test.values, test.p))
		})
	}
}

func TestFormats(t *testing.T) {
	require.Equal(t, "1.5 ms", Milliseconds(1500*time.Microsecond))
	require.Equal(t, "90.0 s", Seconds(90*time.Second))
	require.Equal(t, "31.5 MB", Megabytes(31_452_000, 1))
	require.Equal(t, "0.25 MB", Megabytes(254_000, 2))
}

func TestTable(t *testing.T) {
	var table Table
	table.Row("", "reads")
	table.Row("baseline", 12, "of many")
	table.Row("it")
	var out strings.Builder
	require.NoError(t, table.Print(&out))
	require.Equal(t, "           reads\nbaseline   12   of many\nit\n", out.String())
}

func TestMarkdown(t *testing.T) {
	var table Table
	table.Row("", "≤ reads")
	table.Row("baseline", 12)
	want := "" +
		"|          | ≤ reads |\n" +
		"|----------|---------|\n" +
		"| baseline | 12      |\n"
	require.Equal(t, want, table.Markdown())
}
