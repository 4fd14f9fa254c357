// SPDX-License-Identifier: MPL-2.0

package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNextRotation(t *testing.T) {
	at := func(text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		result, err := time.Parse("2006-01-02 15:04:05", text)
		require.NoError(t, err)
		return result
	}
	for name, c := range map[string]struct {
		schedule           Schedule
		regenerated, now   string
		wantNext, wantMiss string
	}{
		"period":                          {Schedule{Period: time.Hour}, "2027-01-01 10:00:00", "2027-01-01 10:30:00", "2027-01-01 11:00:00", ""},
		"period that is due":              {Schedule{Period: time.Hour}, "2027-01-01 10:00:00", "2027-01-05 00:00:00", "2027-01-01 11:00:00", ""},
		"period without a key":            {Schedule{Period: time.Hour, Since: at("2027-01-01 08:00:00")}, "", "2027-01-01 08:10:00", "2027-01-01 09:00:00", ""},
		"period set later":                {Schedule{Period: time.Hour, Since: at("2027-01-03 00:00:00")}, "2027-01-01 10:00:00", "2027-01-03 00:00:00", "2027-01-01 11:00:00", ""},
		"clock put back":                  {Schedule{Period: time.Hour}, "2027-01-01 12:00:00", "2027-01-01 10:00:00", "2027-01-01 11:00:00", ""},
		"night":                           {Schedule{Cron: "30 3 * * *"}, "2027-01-01 10:00:00", "2027-01-01 23:00:00", "2027-01-02 03:30:00", ""},
		"night that is due":               {Schedule{Cron: "30 3 * * *"}, "2027-01-01 10:00:00", "2027-01-04 12:00:00", "2027-01-02 03:30:00", ""},
		"cron set later":                  {Schedule{Cron: "30 3 * * *", Since: at("2027-01-03 12:00:00")}, "2027-01-01 10:00:00", "2027-01-03 12:00:00", "2027-01-04 03:30:00", ""},
		"inside the window":               {Schedule{Cron: "30 3 * * *", Window: time.Hour}, "2027-01-01 10:00:00", "2027-01-02 04:29:59", "2027-01-02 03:30:00", ""},
		"window has passed":               {Schedule{Cron: "30 3 * * *", Window: time.Hour}, "2027-01-01 10:00:00", "2027-01-02 04:30:00", "2027-01-03 03:30:00", "2027-01-02 03:30:00"},
		"several windows have passed":     {Schedule{Cron: "30 3 * * *", Window: time.Hour}, "2027-01-01 10:00:00", "2027-01-09 03:45:00", "2027-01-09 03:30:00", "2027-01-02 03:30:00"},
		"window longer than the cron's":   {Schedule{Cron: "0 * * * *", Window: 3 * time.Hour}, "2027-01-01 10:00:00", "2027-01-01 20:30:00", "2027-01-01 18:00:00", "2027-01-01 11:00:00"},
		"leap day":                        {Schedule{Cron: "0 0 29 2 *"}, "2027-03-01 00:00:00", "2027-03-02 00:00:00", "2028-02-29 00:00:00", ""},
		"last of a year":                  {Schedule{Cron: "59 23 31 12 *"}, "2027-12-31 23:59:00", "2028-01-01 00:00:00", "2028-12-31 23:59:00", ""},
		"on the second of a regeneration": {Schedule{Cron: "* * * * *"}, "2027-01-01 10:00:00", "2027-01-01 10:00:00", "2027-01-01 10:01:00", ""},
		"no schedule that can be parsed":  {Schedule{Cron: "x"}, "2027-01-01 10:00:00", "2027-01-01 10:00:00", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			next, missed := c.schedule.Next(at(c.regenerated), at(c.now))
			require.Equal(t, at(c.wantNext), next)
			require.Equal(t, at(c.wantMiss), missed)
		})
	}
}

func TestCheckCron(t *testing.T) {
	for _, good := range []string{"* * * * *", "*/5 2-4 * * 1-5", "0 0 29 2 *", "30 3 1 1,7 *"} {
		require.NoError(t, checkCron(good), good)
	}
	for _, bad := range []string{"", "* * * *", "* * * * * *", "61 * * * *", "@daily", "0 0 x * *"} {
		require.Error(t, checkCron(bad), bad)
	}
	require.ErrorIs(t, checkCron("0 0 30 2 *"), errNeverDue)
	for _, zone := range []string{"TZ=Europe/Berlin 0 3 * * *", "CRON_TZ=UTC 0 3 * * *", "TZ=x"} {
		require.ErrorIs(t, checkCron(zone), errTimeZone)
	}
}
