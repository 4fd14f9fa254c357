// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"io"
	"net/http"
	"time"
)

// knockBudget is how long Graph has to answer a knock.
const knockBudget = 5 * time.Second

// Answers tells whether Graph seems to be there: whether it answers a request
// without a token, which it must refuse, in an orderly way. That costs neither a
// sign-in nor an entry in a tenant's audit log, so it can be asked often while there
// is trouble. It is no promise that a call will succeed.
func (c *Client) Answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, knockBudget)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.root+sensors+OpGet, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	// What counts is that an answer came.
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
}
