// SPDX-License-Identifier: MPL-2.0

package figures

import (
	"fmt"
	"slices"
)

// confidence that the interval of a summary contains the true median.
const confidence = 0.95

// Summary is a median with an interval around it.
type Summary struct{ Median, Low, High float64 }

// Summarise returns the median of the values with its 95 % confidence interval, by order
// statistics as benchstat has it: nothing is assumed about their distribution. Fewer than
// six values do not have one, and the interval is their range.
func Summarise(values []float64) Summary {
	n := len(values)
	if n == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	outside := beyond(n)
	return Summary{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[outside], sorted[n-1-outside]}
}

// beyond returns how many of n sorted values can be left out at each end. A value is on
// either side of the median with the same probability, so their number is binomial.
func beyond(n int) int {
	below, each := 0.0, 1.0 // probabilities of at most k values below the median, and of k
	for range n {
		each /= 2
	}
	for k := range n / 2 {
		if below += each; 2*below > 1-confidence {
			return max(k-1, 0)
		}
		each *= float64(n-k) / float64(k+1)
	}
	return (n - 1) / 2
}

// Spread is how far the interval reaches from the median, in per cent of it.
func (s Summary) Spread() string {
	if s.Median == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.0f%%", 100*max(s.High/s.Median-1, 1-s.Low/s.Median))
}
