// SPDX-License-Identifier: MPL-2.0

package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A schedule that can be configured always has its next time after the last
// regeneration, and calls a rotation missed only when its window has passed.
func FuzzSchedule(f *testing.F) {
	const day = 24 * 60 * 60
	for _, cron := range []string{"* * * * *", "0 0 29 2 *", "30 3 1 1,7 *", "*/7 1-5/2 ? * sun", "TZ=x", "CRON_TZ=Europe/Berlin 0 3 * * *", "0 0 30 2 *"} {
		f.Add(cron, int64(0), int64(0), int64(20000*day), int64(20001*day))
		f.Add(cron, int64(0), int64(3600), int64(47500*day), int64(47900*day))
	}
	f.Add("", int64(3600), int64(0), int64(20001*day), int64(20000*day))
	f.Fuzz(func(t *testing.T, cron string, period, window, last, now int64) {
		second := func(n int64) time.Time { return time.Unix(n&(1<<33-1), 0).UTC() } // to the year 2242
		seconds := func(n int64) time.Duration { return time.Duration(n&(1<<25-1)) * time.Second }
		s := Schedule{Period: seconds(period)}
		if cron != "" {
			if checkCron(cron) != nil {
				t.Skip()
			}
			s = Schedule{Cron: cron, Window: seconds(window)}
		}
		next, missed := s.Next(second(last), second(now))
		from := second(min(last&(1<<33-1), now&(1<<33-1)))
		if s.Period == 0 && s.Cron == "" {
			require.True(t, next.IsZero() && missed.IsZero())
			return
		}
		if !next.IsZero() { // the library looks five years ahead
			require.False(t, next.Before(from), "due before the last regeneration")
			require.True(t, s.Cron == "" || next.Second() == 0)
		}
		if s.Window == 0 {
			require.True(t, missed.IsZero())
		} else if !next.IsZero() {
			require.True(t, next.Add(s.Window).After(second(now)), "its window has passed")
		}
		if !missed.IsZero() {
			require.True(t, missed.After(from) && !missed.Add(s.Window).After(second(now)), "its window has not passed")
			require.True(t, next.IsZero() || next.After(missed))
		}
	})
}
