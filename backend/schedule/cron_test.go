// SPDX-License-Identifier: MPL-2.0

package schedule

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckCron(t *testing.T) {
	for _, good := range []string{"* * * * *", "*/5 2-4 * * 1-5", "0 0 29 2 *", "30 3 1 1,7 *"} {
		require.NoError(t, checkCron(good), good)
	}
	for _, bad := range []string{"", "* * * *", "* * * * * *", "61 * * * *", "@daily", "0 0 x * *"} {
		require.Error(t, checkCron(bad), bad)
	}
	require.ErrorContains(t, checkCron("0 0 30 2 *"), "no such date")
	for _, zone := range []string{"TZ=Europe/Berlin 0 3 * * *", "CRON_TZ=UTC 0 3 * * *", "TZ=x"} {
		require.ErrorContains(t, checkCron(zone), "time zone")
	}
}
