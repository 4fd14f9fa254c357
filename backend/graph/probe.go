// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"io"
	"net/http"
	"time"
)

// probeBudget is how long Graph has to answer a probe.
const probeBudget = 5 * time.Second

// Probe reports whether Graph answers in an orderly way. It sends a request without
// a token, which Graph must refuse: that costs neither a sign-in nor an entry in the
// tenant's audit log, so it can be repeated often during an outage. It does not
// promise that a call will succeed.
func (c *Client) Probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeBudget)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.root+sensors+OpGet, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	// Only the status matters.
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
}
