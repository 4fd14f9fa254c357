// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDecide(t *testing.T) {
	const interval = 10 * time.Minute
	configured := Policy{Workspace: home, DriftCheckInterval: interval}
	shared, alone := Terms{MaxAge: AnyAge}, Terms{}
	old := had("a").disclosed()
	checked := old
	checked.ComparedAt = noon.Add(time.Minute)
	rotated, lost := had().answered("a", CauseRotation, noon), had().answered("a", CauseRecovered, noon)
	for name, c := range map[string]struct {
		record Record
		terms  Terms
		policy Policy
		after  time.Duration // since the key was regenerated
		want   decision
	}{
		"no configuration":               {old, shared, Policy{DriftCheckInterval: interval}, 0, refuse},
		"no key":                         {had(), shared, configured, 0, regenerateFirst},
		"in doubt":                       {old.begin(nil, noon), shared, configured, 0, regenerateFirst},
		"in doubt, made for the reader":  {old.begin(nil, noon), Terms{Fresh: 1}, configured, 0, regenerateFirst},
		"shared at any age":              {old, shared, Policy{Workspace: home}, 8760 * time.Hour, take},
		"shared with no one":             {old, alone, configured, 0, regenerateFirst},
		"young enough":                   {old, Terms{MaxAge: time.Minute}, configured, time.Minute - 1, take},
		"too old":                        {old, Terms{MaxAge: time.Minute}, configured, time.Minute, regenerateFirst},
		"from a clock that was ahead":    {old, Terms{MaxAge: time.Minute}, configured, -time.Hour, take},
		"made for the reader":            {old, Terms{Fresh: 1}, configured, time.Hour, take},
		"newer than made for the reader": {had("a", "b").disclosed(), Terms{Fresh: 1}, configured, time.Hour, take},
		"older than made for the reader": {old, Terms{Fresh: 2}, configured, 0, regenerateFirst},
		"undelivered":                    {had("a"), alone, configured, undeliveredFor - 1, take},
		"undelivered for too long":       {had("a"), alone, configured, undeliveredFor, regenerateFirst},
		"recovered and undelivered":      {lost, alone, configured, 0, take},
		"made for no reader":             {rotated, alone, configured, 0, regenerateFirst},
		"comparison due":                 {old, shared, configured, interval, compareFirst},
		"too old to be compared":         {old, Terms{MaxAge: interval}, configured, interval, regenerateFirst},
		"comparison impossible":          {old, Terms{MaxAge: AnyAge, Unverified: true}, configured, interval, take},
		"comparison not due":             {old, shared, configured, interval - 1, take},
		"compared lately":                {checked, shared, configured, interval + time.Minute - 1, take},
		"compared long ago":              {checked, shared, configured, interval + time.Minute, compareFirst},
		"just regenerated":               {old, shared, Policy{Workspace: home, DriftCheckInterval: 1}, CompareNotBefore - 1, take},
		"no longer just regenerated":     {old, shared, Policy{Workspace: home, DriftCheckInterval: 1}, CompareNotBefore, compareFirst},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, decide(c.record, c.terms, c.policy, noon.Add(c.after)))
		})
	}
}

func TestDue(t *testing.T) {
	dueAt := func(at time.Time) func(time.Time, time.Time) time.Time {
		return func(time.Time, time.Time) time.Time { return at }
	}
	policy := Policy{Workspace: home, Retire: true, DriftCheckInterval: time.Minute, Rotation: dueAt(noon.Add(time.Hour))}
	with := func(change func(*Policy)) Policy {
		p := policy
		change(&p)
		return p
	}
	disclosed := had("a").disclosed()
	for name, c := range map[string]struct {
		record Record
		held   bool
		policy Policy
		after  time.Duration
		want   []string
	}{
		"no configuration":        {disclosed.begin(nil, noon), false, with(func(p *Policy) { p.Workspace = Workspace{} }), time.Hour, []string{}},
		"nothing":                 {disclosed, true, policy, 0, []string{}},
		"a doubt":                 {disclosed.begin(nil, noon), true, policy, 0, []string{WorkSettle}},
		"the first doubt":         {had().begin(nil, noon), false, policy, 0, []string{WorkSettle}},
		"a rotation, to the hour": {disclosed, true, with(func(p *Policy) { p.DriftCheckInterval = 0 }), time.Hour, []string{WorkRotate}},
		"not quite a rotation":    {disclosed, true, with(func(p *Policy) { p.DriftCheckInterval = 0 }), time.Hour - 1, []string{}},
		"a schedule with no date": {had("a"), false, with(func(p *Policy) { p.Rotation = dueAt(time.Time{}) }), time.Hour, []string{}},
		"no schedule":             {had("a"), false, with(func(p *Policy) { p.Rotation = nil }), time.Hour, []string{}},
		"a retirement":            {disclosed, false, policy, 0, []string{WorkRetire}},
		"no retirement wanted":    {disclosed, false, with(func(p *Policy) { p.Retire = false }), 0, []string{}},
		"not handed out":          {had("a"), false, policy, 0, []string{}},
		"a comparison":            {disclosed, true, policy, CompareNotBefore, []string{WorkCompare}},
		"no comparison wanted":    {disclosed, true, with(func(p *Policy) { p.DriftCheckInterval = 0 }), 30 * time.Minute, []string{}},
		"no lease to compare for": {had("a"), false, policy, 30 * time.Minute, []string{}},
		"the most urgent first":   {disclosed.begin(nil, noon), false, policy, time.Hour, []string{WorkSettle, WorkRotate, WorkRetire}},
		"rotate, then compare":    {disclosed, true, policy, time.Hour, []string{WorkRotate, WorkCompare}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, due(c.record, c.held, c.policy, noon.Add(c.after)))
		})
	}
}

// A schedule counts from the last regeneration, and from its own beginning if there was none.
func TestDueAsksTheScheduleForTheLastRegeneration(t *testing.T) {
	var asked []time.Time
	p := Policy{Workspace: home, Rotation: func(last, now time.Time) time.Time {
		asked = append(asked, last, now)
		return time.Time{}
	}}
	later := noon.Add(time.Hour)
	due(had("a"), false, p, later)
	due(had("a").turnedAway(abroad), false, p, later)
	require.Equal(t, []time.Time{noon, later, {}, later}, asked)
}
