// SPDX-License-Identifier: MPL-2.0

// Package schedule says when the key is regenerated automatically.
//
// A due time is computed from stored times and never from ticks, so that a rotation that
// could not happen stays due, and a restart neither loses nor repeats one.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/rotation"

	"example.com/vault-plugin-secrets-mdi/backend/field"
)

const (
	// shortestPeriod is how often core calls the periodic function.
	shortestPeriod = time.Minute

	// shortestWindow is that of Vault's other engines. Package sdk/rotation has it too,
	// and does not enforce it where fields are parsed.
	shortestWindow = time.Hour

	// slack is how much earlier than its period a rotation may happen. A key is made
	// shortly after the tick that found it due, so one period later it would be just too
	// young at the tick. Each rotation would take a tick more than its period.
	slack = 5 * time.Second
)

// Schedule regenerates the key periodically, or at the times of a cron expression (five
// fields, UTC). The zero value is no schedule.
type Schedule struct {
	Period time.Duration `json:"rotation_period"`
	Cron   string        `json:"rotation_schedule"`
	// Window is how long after its time a rotation by cron may still happen; 0:
	// until it has.
	Window time.Duration `json:"rotation_window"`
	// Since is when the schedule was set. It takes the place of the last regeneration if
	// there was none, and by cron no earlier time falls due.
	Since time.Time `json:"rotation_since"`
}

// Names of the fields.
const (
	FieldPeriod = "rotation_period"
	FieldCron   = "rotation_schedule"
	FieldWindow = "rotation_window"
)

// Fields are the fields of a schedule.
func (s *Schedule) Fields() []field.Spec {
	return []field.Spec{
		{Name: FieldPeriod, Title: "Rotation period", At: &s.Period, Group: "Rotation", Shortest: shortestPeriod, OrNone: true, Description: "How long after a regeneration the key is regenerated automatically, 60s at least; 0: not. Clears rotation_schedule."},
		{Name: FieldCron, Title: "Rotation schedule", At: &s.Cron, Group: "Rotation", Check: cron, Description: "When the key is regenerated automatically: a cron expression of five fields, in UTC. Clears rotation_period."},
		{Name: FieldWindow, Title: "Rotation window", At: &s.Window, Group: "Rotation", Shortest: shortestWindow, OrNone: true, Description: "How long after its time a rotation by rotation_schedule may still happen, 1h at least; 0: until it has."},
	}
}

func cron(expression string) (string, error) {
	if expression == "" {
		return "", nil
	}
	if strings.Contains(expression, "=") {
		// The parser takes TZ=… and then ignores it, and panics if nothing follows.
		return "", errors.New("a time zone cannot be named: the times are UTC")
	}
	parsed, err := rotation.DefaultScheduler.Parse(expression)
	if err != nil {
		// The parser's error quotes parts of the value.
		return "", errors.New("must be a cron expression of five fields (minute, hour, day of month, month, day of week; UTC)")
	}
	if parsed.Next(time.Unix(0, 0)).IsZero() {
		return "", errors.New("never falls due: there is no such date")
	}
	for i, part := range strings.Fields(expression) {
		for _, step := range strings.Split(part, "/")[1:] {
			var n int
			_, _ = fmt.Sscan(step, &n) // up to a comma; what is no number has been refused
			if values := [...]int{60, 24, 31, 12, 7}[i]; n > values {
				return "", fmt.Errorf("a step of more than %d is never taken in field %d, since counting begins anew: use %s", values, i+1, FieldPeriod)
			}
		}
	}
	return expression, nil
}

// Next returns when a key that was last regenerated at last (zero: never) is due to be
// regenerated. If the window of a rotation has passed, that one is returned as missed,
// and the next is the first that can still happen. Zero times mean never.
func (s *Schedule) Next(last, now time.Time) (next, missed time.Time) {
	if last.IsZero() || (s.Cron != "" && s.Since.After(last)) {
		last = s.Since
	}
	if last.After(now) {
		last = now // a clock was ahead: a negative age counts as zero
	}
	if s.Period > 0 {
		return last.Add(s.Period), time.Time{}
	}
	// What is stored has been parsed before, unless it is no schedule at all.
	parsed, err := rotation.DefaultScheduler.Parse(s.Cron)
	if err != nil {
		return time.Time{}, time.Time{}
	}
	next = parsed.Next(last)
	if s.Window == 0 || now.Before(next.Add(s.Window)) {
		return next, time.Time{}
	}
	// The windows of all times up to now - window have passed.
	return parsed.Next(now.Add(-s.Window)), next
}

// Upcoming returns a warning of the next three times at which the key is regenerated
// automatically, if d sets that: a cron expression easily means something else than its
// author thinks.
func (s *Schedule) Upcoming(d *framework.FieldData, last, now time.Time, paused bool) (warning string) {
	if d.Raw[FieldPeriod] == nil && d.Raw[FieldCron] == nil && d.Raw[FieldWindow] == nil {
		return ""
	}
	var times []string
	for range 3 {
		next, _ := s.Next(last, now)
		if next.IsZero() {
			return ""
		}
		if next.After(now) { // else it is due
			now = next
		}
		last, times = now, append(times, now.UTC().Format(time.RFC3339))
	}
	once := ""
	if paused {
		once = " once rotation is not paused"
	}
	return "The next automatic rotations of the key" + once + ": " + strings.Join(times, ", ")
}

// Due returns from when on the rotation that Next returns may happen.
func (s *Schedule) Due(last, now time.Time) time.Time {
	next, _ := s.Next(last, now)
	if s.Period > 0 {
		return next.Add(-slack)
	}
	return next
}

// Update writes the fields of d over s, which was old before. Setting a period clears the
// cron expression and its window, and the other way round. Its error is a [*field.Error].
func (s *Schedule) Update(d *framework.FieldData, old Schedule, now time.Time) error {
	if err := field.Write(s.Fields(), d, false); err != nil {
		return err
	}
	setsPeriod, setsCron, setsWindow := d.Raw[FieldPeriod] != nil && s.Period != 0, d.Raw[FieldCron] != nil && s.Cron != "", d.Raw[FieldWindow] != nil && s.Window != 0
	switch {
	case setsPeriod && setsCron:
		return &field.Error{Field: FieldCron, Problem: "cannot be combined with " + FieldPeriod + ": set one of them"}
	case setsWindow && (setsPeriod || s.Cron == ""):
		return &field.Error{Field: FieldWindow, Problem: "needs " + FieldCron + ": a rotation by period can happen at any time after it is due"}
	case setsCron:
		s.Period = 0
	case setsPeriod || s.Cron == "":
		s.Cron, s.Window = "", 0
	}
	if s.Period != old.Period || s.Cron != old.Cron {
		s.Since = now
	}
	return nil
}
