// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/flight"
)

// between is the shortest time from one regeneration to the next, whatever readers do:
// one who reads and revokes in a loop could otherwise have the key replaced hundreds of
// times a second.
const between = time.Second

// pace knows when the last regeneration was sent. Only flights use it, one at a time.
type pace struct{ last time.Time }

// wait waits until the next regeneration may be sent. An operator who breaks the glass
// does not wait, nor does a mount that goes away.
func (p *pace) wait(ctx context.Context, rank flight.Rank, now time.Time, sleep func(context.Context, time.Duration) error) error {
	left := between - now.Sub(p.last)
	if rank <= flight.Farewell || left <= 0 || left > between { // the clock was put back
		return nil
	}
	return sleep(ctx, left)
}
