// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	shared  = Terms{MaxAge: AnyAge}
	alone   = Terms{}
	waited  = Terms{MaxAge: AnyAge, Waited: true}
	policy  = Policy{Workspace: home, DriftCheckInterval: 10 * time.Minute, Retire: true}
	succeed = asked{at: noon}
	failed  = asked{at: noon, failed: true}
)

func TestDecide(t *testing.T) {
	const interval = 10 * time.Minute
	full, short, blind := decision{}, decision{short: true}, decision{short: true, unconfirmed: true}
	first := func(err error) decision { return decision{first: err} }
	old := had("a").disclosed()
	beside, doubt := old.begin(noon), old.begin(noon).lost(noon)
	watched := named(old, "x").disclosed()
	rotated := had().answered("a", CauseRotation, noon)
	for name, c := range map[string]struct {
		record Record
		terms  Terms
		asked  asked
		after  time.Duration
		want   decision
	}{
		"no key":                         {had(), shared, asked{}, 0, first(ErrRegenerateFirst)},
		"any age":                        {old, shared, asked{}, interval - 1, full},
		"alone":                          {old, alone, asked{}, 0, first(ErrRegenerateFirst)},
		"young enough":                   {old, Terms{MaxAge: time.Minute}, asked{}, time.Minute - 1, full},
		"too old":                        {old, Terms{MaxAge: time.Minute}, asked{}, time.Minute, first(ErrRegenerateFirst)},
		"from a clock that was ahead":    {old, Terms{MaxAge: time.Minute}, asked{}, -time.Hour, full},
		"comparison due":                 {old, shared, asked{}, interval, first(ErrCompareFirst)},
		"too old to be compared":         {old, Terms{MaxAge: interval}, asked{}, interval, first(ErrRegenerateFirst)},
		"comparison has failed":          {old, shared, asked{noon.Add(interval), true}, interval + time.Minute - 1, decision{unconfirmed: true}},
		"comparison failed too long ago": {old, shared, asked{noon.Add(interval - time.Minute), true}, interval, first(ErrCompareFirst)},

		"made for the reader":         {old, Terms{Fresh: 1}, asked{}, time.Hour, full},
		"newer than made for it":      {had("a", "b"), Terms{Fresh: 1}, asked{}, time.Hour, full},
		"older than made for it":      {old, Terms{Fresh: 2}, asked{}, 0, first(ErrRegenerateFirst)},
		"made for it, on watch":       {named(old, "x", "a"), Terms{Fresh: 1}, asked{}, 0, short},
		"adopted since":               {watched, Terms{Fresh: 1}, succeed, 0, first(ErrRegenerateFirst)},
		"made for it, in doubt":       {doubt, Terms{Fresh: 1}, asked{}, 0, first(ErrCompareFirst)},
		"made for it, being replaced": {beside, Terms{Fresh: 1}, asked{}, 0, first(ErrRegenerateFirst)},
		"undelivered":                 {had("a"), alone, asked{}, undeliveredFor - 1, full},
		"undelivered for too long":    {had("a"), alone, asked{}, undeliveredFor, first(ErrRegenerateFirst)},
		"undelivered, on watch":       {named(had("a"), "x", "a"), alone, asked{}, 0, first(ErrCompareFirst)},
		"made for no reader":          {rotated, alone, asked{}, 0, first(ErrRegenerateFirst)},
		"adopted":                     {named(old, "x"), alone, succeed, 0, first(ErrRegenerateFirst)},

		"under way":                 {beside, shared, succeed, 0, first(ErrWaitFirst)},
		"under way, alone":          {beside, alone, succeed, 0, first(ErrRegenerateFirst)},
		"waited":                    {beside, waited, asked{}, 0, first(ErrCompareFirst)},
		"waited, compared":          {beside, waited, succeed, watchFresh - 1, short},
		"waited, compared long ago": {beside, waited, succeed, watchFresh, first(ErrCompareFirst)},
		"waited, GET fails":         {beside, waited, failed, watchFresh - 1, first(ErrInDoubt)},
		"under way in doubt":        {doubt.begin(noon), shared, asked{}, 0, first(ErrWaitFirst)},

		"in doubt":                    {doubt, shared, asked{}, 0, first(ErrCompareFirst)},
		"in doubt, compared before":   {doubt, shared, succeed, 0, first(ErrCompareFirst)},
		"in doubt, GET fails":         {doubt, shared, failed, watchFresh - 1, first(ErrInDoubt)},
		"in doubt, GET failed before": {doubt, shared, failed, watchFresh, first(ErrCompareFirst)},
		"in doubt for too long":       {doubt, shared, asked{noon.Add(DoubtFor), true}, DoubtFor, first(ErrRegenerateFirst)},
		"in doubt, alone":             {doubt, alone, asked{}, 0, first(ErrCompareFirst)},
		"in doubt, alone, GET fails":  {doubt, alone, failed, 0, first(ErrInDoubt)},

		"on watch":                      {watched, shared, asked{}, 0, first(ErrCompareFirst)},
		"on watch, compared":            {watched, shared, succeed, watchFresh - 1, short},
		"on watch, compared long ago":   {watched, shared, succeed, watchFresh, first(ErrCompareFirst)},
		"on watch, GET fails":           {watched, shared, failed, 0, blind},
		"on watch past its end":         {watched, shared, failed, watchFresh - 1, blind},
		"on watch, asked in the future": {watched, shared, asked{at: noon.Add(time.Hour)}, 0, first(ErrCompareFirst)},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, decided(c.record, c.terms, policy, c.asked, noon.Add(c.after)))
		})
	}
	require.Equal(t, first(ErrUnconfigured), decided(old, shared, Policy{DriftCheckInterval: interval}, asked{}, noon))
	require.Equal(t, full, decided(old, shared, Policy{Workspace: home}, asked{}, noon.Add(8760*time.Hour)))
	require.Equal(t, first(ErrCompareFirst), decided(watched, shared, Policy{Workspace: home}, asked{}, noon), "0 turns off no watch")
}

// Each mount compares a key that nobody holds at a time of its own.
func TestIdleComparisonsAreSpread(t *testing.T) {
	at := map[int]bool{}
	for n := range 100 {
		r := had("a")
		r.Salt = bytes.Repeat([]byte{byte(n)}, 32)
		minutes := 0
		s := situation{policy: Policy{Workspace: home}}
		for s.now = noon; !slices.Contains(due(r, s), WorkCompare); s.now = s.now.Add(time.Minute) {
			minutes++
		}
		require.True(t, minutes >= 23*60 && minutes <= 25*60, minutes)
		at[minutes] = true
	}
	require.Greater(t, len(at), 50)
}

func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	dueAt := func(at time.Time) func(time.Time, time.Time) time.Time {
		return func(time.Time, time.Time) time.Time { return at }
	}
	disclosed := had("a").disclosed()
	doubt, watched := disclosed.begin(noon).lost(noon), named(disclosed, "x")
	never := func(p *Policy) { p.DriftCheckInterval = 0 }
	turns := func(s *situation) { s.turning = true }
	for name, c := range map[string]struct {
		record Record
		leased []int
		asked  asked
		policy func(*Policy)
		also   func(*situation)
		after  time.Duration
		want   []string
	}{
		"nothing":             {record: disclosed, leased: []int{1}},
		"no configuration":    {record: doubt.wanted(noon), policy: func(p *Policy) { p.Workspace = Workspace{} }, also: turns, after: time.Hour},
		"rotate-key":          {record: disclosed.wanted(noon), leased: []int{1}, want: []string{WorkWanted}},
		"a doubt":             {record: doubt, leased: []int{1}, want: []string{WorkSettle}},
		"the first doubt":     {record: had().begin(noon).lost(noon), want: []string{WorkSettle}},
		"no doubt, under way": {record: disclosed.begin(noon), leased: []int{1}},

		"rotation":                {record: disclosed, leased: []int{1}, policy: func(p *Policy) { never(p); p.Rotation = dueAt(noon.Add(time.Hour)) }, after: time.Hour, want: []string{WorkRotate}},
		"not quite a rotation":    {record: disclosed, leased: []int{1}, policy: func(p *Policy) { never(p); p.Rotation = dueAt(noon.Add(time.Hour)) }, after: time.Hour - 1},
		"a schedule with no date": {record: had("a"), policy: func(p *Policy) { p.Rotation = dueAt(time.Time{}) }, after: time.Hour},

		"retirement":                   {record: disclosed, want: []string{WorkRetire}},
		"no retirement wanted":         {record: disclosed, policy: func(p *Policy) { p.Retire = false }},
		"not handed out":               {record: had("a")},
		"no key":                       {record: had()},
		"turning away":                 {record: disclosed, leased: []int{1}, also: turns, policy: func(p *Policy) { p.Retire = false }, want: []string{WorkRetire}},
		"turning away, not handed out": {record: had("a"), also: turns},
		"displaced, GET answers":       {record: watched, asked: succeed},
		"displaced, GET fails":         {record: watched, asked: failed, want: []string{WorkRetire}},
		"displaced, GET fails, leased": {record: watched, leased: []int{1}, asked: failed},
		"the record's, others leased":  {record: watched.disclosed(), leased: []int{1}, asked: succeed, want: []string{WorkRetire}},
		"displaced, turning away":      {record: watched, leased: []int{1}, asked: succeed, also: turns, want: []string{WorkRetire}},
		"displaced, no watch":          {record: func() Record { r := watched; r.Watch = watch{}; return r }(), asked: failed, also: turns},

		"comparison":               {record: disclosed, leased: []int{1}, after: 10 * time.Minute, want: []string{WorkCompare}},
		"no comparison wanted":     {record: disclosed, leased: []int{1}, policy: never, after: day - time.Hour - 1},
		"no lease to compare for":  {record: had("a"), after: day - time.Hour - 1},
		"once a day":               {record: had("a"), policy: never, after: day + time.Hour, want: []string{WorkCompare}},
		"no key to compare":        {record: had(), after: day},
		"on watch":                 {record: watched, want: []string{WorkCompare}},
		"on watch, without a key":  {record: doubt.turnedAway(abroad, noon), want: []string{WorkCompare}},
		"on watch, asked":          {record: watched, asked: succeed, after: watchTick - 1},
		"on watch, asked long ago": {record: watched, asked: succeed, after: watchTick, want: []string{WorkCompare}},

		"the most urgent first": {
			record: doubt.wanted(noon), policy: func(p *Policy) { p.Rotation = dueAt(noon) },
			want: []string{WorkWanted, WorkSettle, WorkRetire, WorkRotate},
		},
		"comparison last": {
			record: disclosed, policy: func(p *Policy) { p.Rotation = dueAt(noon) }, after: day + time.Hour,
			want: []string{WorkRetire, WorkRotate, WorkCompare},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := situation{policy: policy, asked: c.asked, now: noon.Add(c.after), leased: map[int]bool{}}
			for _, version := range c.leased {
				s.leased[version] = true
			}
			if c.policy != nil {
				c.policy(&s.policy)
			}
			if c.also != nil {
				c.also(&s)
			}
			require.Equal(t, append([]string{}, c.want...), due(c.record, s))
		})
	}
}

// A schedule counts from the last regeneration, and from its own beginning if there was none.
func TestDueAsksTheScheduleForTheLastRegeneration(t *testing.T) {
	var seen []time.Time
	s := situation{now: later, leased: map[int]bool{1: true}, policy: Policy{Workspace: home, Rotation: func(last, now time.Time) time.Time {
		seen = append(seen, last, now)
		return time.Time{}
	}}}
	due(had("a"), s)
	due(had("a").turnedAway(abroad, later), s)
	require.Equal(t, []time.Time{noon, later, {}, later}, seen)
}

// A clock that was ahead and is right again delays nothing: each wait is as long as usual.
func TestClockThatWasAheadDelaysNothing(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 24 * time.Hour, 400 * 24 * time.Hour} {
		wrong := noon.Add(ahead)
		r := had().answered("a", CauseRead, wrong)
		settled := r.disclosed().sane(noon)
		seen := asked{at: wrong, failed: true}
		require.Equal(t, ErrCompareFirst, decided(settled, shared, policy, seen, noon.Add(policy.DriftCheckInterval)).first)
		require.NoError(t, decided(settled, shared, policy, seen, noon.Add(policy.DriftCheckInterval-1)).first)

		doubt := r.disclosed().begin(wrong).lost(wrong).sane(noon)
		require.Equal(t, ErrCompareFirst, decided(doubt, shared, policy, seen, noon).first, "a comparison in the future does not count")
		fails := asked{at: noon.Add(DoubtFor), failed: true}
		require.Equal(t, ErrRegenerateFirst, decided(doubt, shared, policy, fails, noon.Add(DoubtFor)).first)

		settledAgain, _ := doubt.compared("a", noon)
		for _, c := range []struct {
			at   time.Duration
			ends bool
		}{{watchFor - 1, false}, {watchFor, true}} {
			next, _ := settledAgain.compared("a", noon.Add(c.at))
			require.Equal(t, c.ends, !next.Watch.On(), "the watch ends neither early nor late")
		}
	}
}
