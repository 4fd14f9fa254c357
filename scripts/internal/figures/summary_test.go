// SPDX-License-Identifier: MPL-2.0

package figures

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSummarise(t *testing.T) {
	counted := func(n int) (values []float64) {
		for i := range n {
			values = append(values, float64(n-i))
		}
		return values
	}
	for _, test := range []struct {
		n    int
		want Summary
	}{
		{0, Summary{}},
		{1, Summary{1, 1, 1}},
		{2, Summary{1.5, 1, 2}},
		{5, Summary{3, 1, 5}},
		{6, Summary{3.5, 1, 6}}, // from here on the tables of order statistics agree
		{8, Summary{4.5, 1, 8}},
		{9, Summary{5, 2, 8}},
		{10, Summary{5.5, 2, 9}},
		{15, Summary{8, 4, 12}},
		{60, Summary{30.5, 22, 39}},
	} {
		require.Equal(t, test.want, Summarise(counted(test.n)), test.n)
	}
}

func TestSummariseLeavesTheOrder(t *testing.T) {
	values := []float64{3, 1, 2}
	Summarise(values)
	require.Equal(t, []float64{3, 1, 2}, values)
}

func TestSpread(t *testing.T) {
	require.Equal(t, "50%", Summary{Median: 2, Low: 1, High: 2.5}.Spread())
	require.Equal(t, "25%", Summary{Median: 2, Low: 1.9, High: 2.5}.Spread())
	require.Equal(t, "0%", Summary{}.Spread())
}
