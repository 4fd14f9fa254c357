// SPDX-License-Identifier: MPL-2.0

package schedule

import (
	"testing"

	"github.com/hashicorp/vault/sdk/rotation"
	"github.com/stretchr/testify/require"
)

func checkCron(expression string) error {
	_, err := cron(expression)
	return err
}

func TestCheckCron(t *testing.T) {
	for _, good := range []string{"* * * * *", "*/5 2-4 * * 1-5", "0 0 29 2 *", "30 3 1 1,7 *"} {
		require.NoError(t, checkCron(good), good)
	}
	_, err := rotation.DefaultScheduler.Parse("")
	require.Error(t, err, "which Next relies on: no expression is no schedule")
	for _, bad := range []string{"* * * *", "* * * * * *", "61 * * * *", "@daily", "0 0 x * *"} {
		require.Error(t, checkCron(bad), bad)
	}
	require.EqualError(t, checkCron("0 0 hunter2 * *"), "must be a cron expression of five fields (minute, hour, day of month, month, day of week; UTC)")
	require.ErrorContains(t, checkCron("0 0 30 2 *"), "no such date")
	for _, good := range []string{"*/45 * * * *", "*/60 * * * *", "0 */24 * * *", "0 0 */31 */12 *", "5/10,7-50/20 * * * *", "0 0 * * 1-5/2"} {
		require.NoError(t, checkCron(good), good)
	}
	for _, never := range []string{"*/90 * * * *", "0 */36 * * *", "0 0 */45 * *", "0 0 1 */13 *", "0 0 * * */8", "0,5/61 * * * *", "0-30/61,7 * * * *"} {
		require.ErrorContains(t, checkCron(never), "is never taken", never)
		require.ErrorContains(t, checkCron(never), FieldPeriod, never)
		require.NotRegexp(t, "90|36|45|13|61", checkCron(never).Error())
	}
	for _, zone := range []string{"TZ=Europe/Berlin 0 3 * * *", "CRON_TZ=UTC 0 3 * * *", "TZ=x"} {
		require.ErrorContains(t, checkCron(zone), "time zone")
	}
}
