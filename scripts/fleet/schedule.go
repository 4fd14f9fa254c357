// SPDX-License-Identifier: MPL-2.0

package main

import (
	"math"
	"time"
)

// Vault Agent reads a lease that cannot be renewed again after 0.85 to 0.95 of its
// duration.
const (
	earliestReread = 0.85
	latestReread   = 0.95
)

// Vault Agent repeats a failed read this often, with a wait that doubles.
const (
	retries    = 12
	firstRetry = 250 * time.Millisecond
	lastRetry  = time.Minute
)

// spread returns a number from 0 to below 1 for each member of the fleet. Numbers of
// any run of members are about evenly spread (they are multiples of the golden
// ratio), and they are the same in each run of the program.
func spread(member int) float64 {
	_, fraction := math.Modf(float64(member) * math.Phi)
	return fraction
}

// startOffset is when a member starts within the window.
func startOffset(member int, window time.Duration) time.Duration {
	return time.Duration(spread(member) * float64(window))
}

// rereadAfter is how long a member waits after its n-th read, counted from 0, until
// the next. Members drift apart from read to read, as Agents do.
func rereadAfter(member, n int, lease time.Duration) time.Duration {
	share := earliestReread + (latestReread-earliestReread)*spread(member*7+n)
	return time.Duration(share * float64(lease))
}

// retryAfter is how long a member waits after its n-th failure in a row, counted
// from 0; it gives up if ok is false.
func retryAfter(n int) (wait time.Duration, ok bool) {
	if n >= retries {
		return 0, false
	}
	return min(firstRetry<<n, lastRetry), true
}
