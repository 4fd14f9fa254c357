// SPDX-License-Identifier: MPL-2.0

package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
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
		schedule           schedule.Schedule
		regenerated, now   string
		wantNext, wantMiss string
	}{
		"period":                          {schedule.Schedule{Period: time.Hour}, "2027-01-01 10:00:00", "2027-01-01 10:30:00", "2027-01-01 11:00:00", ""},
		"period that is due":              {schedule.Schedule{Period: time.Hour}, "2027-01-01 10:00:00", "2027-01-05 00:00:00", "2027-01-01 11:00:00", ""},
		"period without a key":            {schedule.Schedule{Period: time.Hour, Since: at("2027-01-01 08:00:00")}, "", "2027-01-01 08:10:00", "2027-01-01 09:00:00", ""},
		"period set later":                {schedule.Schedule{Period: time.Hour, Since: at("2027-01-03 00:00:00")}, "2027-01-01 10:00:00", "2027-01-03 00:00:00", "2027-01-01 11:00:00", ""},
		"clock put back":                  {schedule.Schedule{Period: time.Hour}, "2027-01-01 12:00:00", "2027-01-01 10:00:00", "2027-01-01 11:00:00", ""},
		"night":                           {schedule.Schedule{Cron: "30 3 * * *"}, "2027-01-01 10:00:00", "2027-01-01 23:00:00", "2027-01-02 03:30:00", ""},
		"night that is due":               {schedule.Schedule{Cron: "30 3 * * *"}, "2027-01-01 10:00:00", "2027-01-04 12:00:00", "2027-01-02 03:30:00", ""},
		"cron set later":                  {schedule.Schedule{Cron: "30 3 * * *", Since: at("2027-01-03 12:00:00")}, "2027-01-01 10:00:00", "2027-01-03 12:00:00", "2027-01-04 03:30:00", ""},
		"inside the window":               {schedule.Schedule{Cron: "30 3 * * *", Window: time.Hour}, "2027-01-01 10:00:00", "2027-01-02 04:29:59", "2027-01-02 03:30:00", ""},
		"window has passed":               {schedule.Schedule{Cron: "30 3 * * *", Window: time.Hour}, "2027-01-01 10:00:00", "2027-01-02 04:30:00", "2027-01-03 03:30:00", "2027-01-02 03:30:00"},
		"several windows have passed":     {schedule.Schedule{Cron: "30 3 * * *", Window: time.Hour}, "2027-01-01 10:00:00", "2027-01-09 03:45:00", "2027-01-09 03:30:00", "2027-01-02 03:30:00"},
		"window longer than the cron's":   {schedule.Schedule{Cron: "0 * * * *", Window: 3 * time.Hour}, "2027-01-01 10:00:00", "2027-01-01 20:30:00", "2027-01-01 18:00:00", "2027-01-01 11:00:00"},
		"leap day":                        {schedule.Schedule{Cron: "0 0 29 2 *"}, "2027-03-01 00:00:00", "2027-03-02 00:00:00", "2028-02-29 00:00:00", ""},
		"last of a year":                  {schedule.Schedule{Cron: "59 23 31 12 *"}, "2027-12-31 23:59:00", "2028-01-01 00:00:00", "2028-12-31 23:59:00", ""},
		"on the second of a regeneration": {schedule.Schedule{Cron: "* * * * *"}, "2027-01-01 10:00:00", "2027-01-01 10:00:00", "2027-01-01 10:01:00", ""},
		"no schedule that can be parsed":  {schedule.Schedule{Cron: "x"}, "2027-01-01 10:00:00", "2027-01-01 10:00:00", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			next, missed := c.schedule.Next(at(c.regenerated), at(c.now))
			require.Equal(t, at(c.wantNext), next)
			require.Equal(t, at(c.wantMiss), missed)
		})
	}
}

// A key is made shortly after the tick that finds it due, so that by period the next tick
// is allowed to be a little early.
func TestDueIsALittleEarlierByPeriodOnly(t *testing.T) {
	last := time.Date(2027, 1, 1, 10, 0, 0, 0, time.UTC)
	period, cron := schedule.Schedule{Period: time.Hour}, schedule.Schedule{Cron: "0 * * * *"}
	require.Equal(t, last.Add(time.Hour-5*time.Second), period.Due(last, last))
	require.Equal(t, last.Add(time.Hour), cron.Due(last, last))
	require.Zero(t, new(schedule.Schedule).Due(last, last))
}

// Who sets a schedule sees what it means: the next three times, the first of which is now
// if it is due.
func TestUpcoming(t *testing.T) {
	const says = "The next automatic rotations of the key: "
	hourAgo := now.Add(-time.Hour)
	for name, c := range map[string]struct {
		fields map[string]any
		last   time.Time
		want   string
	}{
		"cron":                 {map[string]any{schedule.FieldCron: "*/45 * * * *"}, hourAgo, says + "2027-01-01T10:45:00Z, 2027-01-01T11:00:00Z, 2027-01-01T11:45:00Z"},
		"cron without a key":   {map[string]any{schedule.FieldCron: "0 3 1 * 1"}, time.Time{}, says + "2027-01-04T03:00:00Z, 2027-01-11T03:00:00Z, 2027-01-18T03:00:00Z"},
		"period":               {map[string]any{schedule.FieldPeriod: "90m"}, hourAgo, says + "2027-01-01T10:30:00Z, 2027-01-01T12:00:00Z, 2027-01-01T13:30:00Z"},
		"period that is due":   {map[string]any{schedule.FieldPeriod: "10m"}, hourAgo, says + "2027-01-01T10:00:00Z, 2027-01-01T10:10:00Z, 2027-01-01T10:20:00Z"},
		"period without a key": {map[string]any{schedule.FieldPeriod: "2h"}, time.Time{}, says + "2027-01-01T12:00:00Z, 2027-01-01T14:00:00Z, 2027-01-01T16:00:00Z"},
		"none any longer":      {map[string]any{schedule.FieldPeriod: 0}, hourAgo, ""},
		"something else":       {map[string]any{}, hourAgo, ""},
	} {
		s, err := update(schedule.Schedule{Period: time.Hour}, c.fields)
		require.NoError(t, err)
		require.Equal(t, c.want, s.Upcoming(&framework.FieldData{Raw: c.fields}, c.last, now, false), name)
		paused := s.Upcoming(&framework.FieldData{Raw: c.fields}, c.last, now, true)
		require.Equal(t, strings.Replace(c.want, ": ", " once rotation is not paused: ", 1), paused, name)
	}
	cron, err := update(schedule.Schedule{Cron: "0 4 * * *"}, map[string]any{schedule.FieldWindow: "2h"})
	require.NoError(t, err)
	require.Contains(t, cron.Upcoming(&framework.FieldData{Raw: map[string]any{schedule.FieldWindow: "2h"}}, hourAgo, now, false), "2027-01-02T04:00:00Z, 2027-01-03")
}

// now is when the schedules of the tests are written.
var now = time.Date(2027, 1, 1, 10, 0, 0, 0, time.UTC)

// update writes fields over a schedule.
func update(old schedule.Schedule, fields map[string]any) (schedule.Schedule, error) {
	next, schema := old, field.Schema(new(schedule.Schedule).Fields())
	cleaned, _, err := field.Clean(schema, fields)
	if err != nil {
		return next, err
	}
	err = next.Update(&framework.FieldData{Raw: cleaned, Schema: schema}, old, now)
	return next, err
}

func TestSettingOneScheduleClearsTheOther(t *testing.T) {
	s := schedule.Schedule{Since: now.Add(-time.Hour)}
	for _, c := range []struct {
		fields map[string]any
		want   map[string]any
	}{
		{map[string]any{schedule.FieldCron: " 0 3 * * *\n", schedule.FieldWindow: "2h"}, map[string]any{schedule.FieldCron: "0 3 * * *", schedule.FieldWindow: int64(7200), schedule.FieldPeriod: int64(0)}},
		{map[string]any{schedule.FieldPeriod: "1h"}, map[string]any{schedule.FieldCron: "", schedule.FieldWindow: int64(0), schedule.FieldPeriod: int64(3600)}},
		{map[string]any{schedule.FieldPeriod: "1h", schedule.FieldCron: ""}, map[string]any{schedule.FieldCron: "", schedule.FieldWindow: int64(0), schedule.FieldPeriod: int64(3600)}},
		{map[string]any{schedule.FieldCron: "0 4 * * *"}, map[string]any{schedule.FieldCron: "0 4 * * *", schedule.FieldWindow: int64(0), schedule.FieldPeriod: int64(0)}},
		{map[string]any{schedule.FieldCron: nil}, map[string]any{schedule.FieldCron: "", schedule.FieldWindow: int64(0), schedule.FieldPeriod: int64(0)}},
	} {
		next, err := update(s, c.fields)
		require.NoError(t, err)
		require.Equal(t, c.want, field.Read(next.Fields()))
		s = next
	}
}

func TestScheduleCountsFromWhenItWasChanged(t *testing.T) {
	old := schedule.Schedule{Cron: "0 3 * * *", Since: now.Add(-time.Hour)}
	same, err := update(old, map[string]any{schedule.FieldCron: "0 3 * * *", schedule.FieldWindow: "1h"})
	require.NoError(t, err)
	require.Equal(t, old.Since, same.Since)
	changed, err := update(old, map[string]any{schedule.FieldCron: "1 3 * * *"})
	require.NoError(t, err)
	require.Equal(t, now, changed.Since)
}

func TestBadScheduleIsRefusedByField(t *testing.T) {
	for _, c := range []struct {
		fields      map[string]any
		field, says string
	}{
		{map[string]any{schedule.FieldCron: "0 4 * * *", schedule.FieldPeriod: 60}, schedule.FieldCron, "cannot be combined"},
		{map[string]any{schedule.FieldPeriod: 60, schedule.FieldWindow: 3600}, schedule.FieldWindow, "needs " + schedule.FieldCron},
		{map[string]any{schedule.FieldCron: "0 4 * * *", schedule.FieldWindow: 60}, schedule.FieldWindow, "1h0m0s"},
		{map[string]any{schedule.FieldWindow: 7200}, schedule.FieldWindow, schedule.FieldCron},
		{map[string]any{schedule.FieldPeriod: 59}, schedule.FieldPeriod, "1m0s"},
		{map[string]any{schedule.FieldCron: "* * * *"}, schedule.FieldCron, "five fields"},
		{map[string]any{schedule.FieldCron: "0 * * * * *"}, schedule.FieldCron, "five fields"},
		{map[string]any{schedule.FieldCron: "0 0 30 2 *"}, schedule.FieldCron, "never"},
		{map[string]any{schedule.FieldCron: "*/90 * * * *"}, schedule.FieldCron, "use " + schedule.FieldPeriod},
	} {
		_, err := update(schedule.Schedule{}, c.fields)
		var refused *field.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, c.field, refused.Field)
		require.Contains(t, refused.Problem, c.says)
	}
}
