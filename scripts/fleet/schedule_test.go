// SPDX-License-Identifier: MPL-2.0

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStartsFillTheWindowEvenly(t *testing.T) {
	const window = 10 * time.Second
	perSecond := make([]int, 10)
	for i := range 1000 {
		offset := startOffset(i, window)
		require.GreaterOrEqual(t, offset, time.Duration(0))
		require.Less(t, offset, window)
		perSecond[offset/time.Second]++
	}
	for second, starts := range perSecond {
		require.InDelta(t, 100, starts, 3, "in second %d", second)
	}
}

func TestRereadIsThatOfAnAgent(t *testing.T) {
	seen := map[time.Duration]bool{}
	for member := range 20 {
		for n := range 20 {
			wait := rereadAfter(member, n, 100*time.Second)
			require.GreaterOrEqual(t, wait, 85*time.Second)
			require.LessOrEqual(t, wait, 95*time.Second)
			seen[wait] = true
		}
	}
	require.Greater(t, len(seen), 100, "members keep in step")
}

func TestRetryIsThatOfAnAgent(t *testing.T) {
	for _, test := range []struct {
		failures int
		want     time.Duration
		more     bool
	}{
		{0, 250 * time.Millisecond, true},
		{1, 500 * time.Millisecond, true},
		{7, 32 * time.Second, true},
		{8, time.Minute, true},
		{11, time.Minute, true},
		{12, 0, false},
	} {
		wait, more := retryAfter(test.failures)
		require.Equal(t, test.want, wait, "after %d", test.failures)
		require.Equal(t, test.more, more, "after %d", test.failures)
	}
}
