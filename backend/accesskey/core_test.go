// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	noon   = time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)
	home   = Workspace{TenantID: "home", GraphRoot: "https://graph.microsoft.com"}
	abroad = Workspace{TenantID: "abroad", GraphRoot: "https://graph.microsoft.com"}
)

// had returns a settled record whose workspace had these keys, one after the other, the
// last of them made at noon.
func had(keys ...string) Record {
	r := Record{Salt: []byte("salt"), Workspace: home}
	for _, key := range keys {
		r = r.answered(key, CauseRead, noon)
	}
	return r
}

// macs returns what a record remembers of superseded keys.
func macs(keys ...string) [][]byte {
	var all [][]byte
	for _, key := range keys {
		all = append(all, had().mac(key))
	}
	return all
}

func TestTransitions(t *testing.T) {
	later := noon.Add(time.Hour)
	inDoubt := had("a").begin(macs("b")[0], noon)
	for name, c := range map[string]struct {
		from, to Record
		changes  func(*Record) // all that distinguishes to from from
	}{
		"begin": {had("a"), had("a").begin(nil, later), func(r *Record) {
			r.Intent = &intent{StartedAt: later, Deadline: later.Add(postLife)}
		}},
		"begin again, with a baseline": {inDoubt, inDoubt.begin(macs("c")[0], later), func(r *Record) {
			r.Intent = &intent{StartedAt: later, Deadline: later.Add(postLife), Baseline: macs("c")[0]}
		}},
		"the first key": {had(), had().answered("a", CauseRead, later), func(r *Record) {
			r.Version, r.Key, r.Cause, r.RegeneratedAt = 1, "a", CauseRead, later
		}},
		"answered": {inDoubt.disclosed(), inDoubt.disclosed().answered("c", CauseManual, later), func(r *Record) {
			r.Version, r.Key, r.Cause, r.RegeneratedAt = 2, "c", CauseManual, later
			r.Superseded, r.Disclosed, r.Intent = macs("a", "b"), false, nil
		}},
		"refused":                {inDoubt.disclosed(), inDoubt.disclosed().refused(), func(r *Record) { r.Intent = nil }},
		"lost":                   {inDoubt, inDoubt.lost(later), func(*Record) {}},
		"lost without an intent": {had("a"), had("a").lost(later), func(*Record) {}},
		"lost by a node whose clock is behind": {inDoubt, inDoubt.lost(noon.Add(-time.Hour)), func(r *Record) {
			r.Intent = &intent{StartedAt: noon.Add(-time.Hour), Deadline: noon.Add(postLife - time.Hour), Baseline: macs("b")[0]}
		}},
		"disclosed":   {had("a"), had("a").disclosed(), func(r *Record) { r.Disclosed = true }},
		"undelivered": {had("a").disclosed(), had("a").disclosed().undelivered(), func(r *Record) { r.Disclosed = false }},
		"at home":     {inDoubt, inDoubt.turnedAway(home), func(*Record) {}},
		"turned away": {inDoubt.disclosed(), inDoubt.disclosed().turnedAway(abroad), func(r *Record) {
			*r = Record{Version: 1, Workspace: abroad, Salt: r.Salt}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.changes(&c.from)
			require.Equal(t, c.from, c.to)
		})
	}
}

func TestCompared(t *testing.T) {
	// The tenant had a, b and the record's c; before the request of a doubt it had p.
	settled := had("a", "b", "c").disclosed()
	doubt, blind := settled.begin(macs("p")[0], noon), settled.begin(nil, noon)
	first, firstBlind := had().begin(macs("p")[0], noon), had().begin(nil, noon)
	adopted := func(key, cause string) func(Record, time.Time) Record {
		return func(r Record, now time.Time) Record { return r.answered(key, cause, now) }
	}
	same := func(r Record, _ time.Time) Record { return r }
	seen := func(r Record, now time.Time) Record { r.ComparedAt = now; return r }
	for name, c := range map[string]struct {
		from  Record
		key   string
		after time.Duration
		found finding
		to    func(Record, time.Time) Record
	}{
		"the record's key":           {settled, "c", 0, unchanged, seen},
		"one that it replaced":       {settled, "a", 0, stale, seen},
		"one from elsewhere":         {settled, "x", 0, external, adopted("x", CauseExternal)},
		"none":                       {settled, "", 0, undecided, same},
		"none where there is no key": {had(), "", 0, undecided, same},
		"a key where there is none":  {had(), "x", 0, external, adopted("x", CauseExternal)},

		"a new key in doubt":             {doubt, "x", 0, recovered, adopted("x", CauseRecovered)},
		"a new key long after":           {doubt, "x", time.Hour, recovered, adopted("x", CauseRecovered)},
		"the record's, too early":        {doubt, "c", postLife - 1, undecided, same},
		"the record's":                   {doubt, "c", postLife, notCarried, same},
		"the baseline, too early":        {doubt, "p", postLife - 1, undecided, same},
		"the baseline":                   {doubt, "p", postLife, external, adopted("p", CauseExternal)},
		"a replaced one, too early":      {doubt, "a", postLife - 1, undecided, same},
		"a replaced one":                 {doubt, "a", postLife, notCarried, same},
		"none, too early":                {doubt, "", postLife - 1, undecided, same},
		"none in doubt":                  {doubt, "", postLife, notCarried, same},
		"a baseline that was replaced":   {settled.begin(macs("b")[0], noon), "b", postLife, notCarried, same},
		"a baseline that is the key":     {settled.begin(macs("c")[0], noon), "c", postLife, notCarried, same},
		"without baseline, the record's": {blind, "c", postLife, notCarried, same},
		"without baseline, a new key":    {blind, "p", 0, recovered, adopted("p", CauseRecovered)},

		"the first key":                   {first, "x", 0, recovered, adopted("x", CauseRecovered)},
		"the key before the first":        {first, "p", postLife, notCarried, same},
		"the first key, without baseline": {firstBlind, "p", 0, recovered, adopted("p", CauseRecovered)},
	} {
		t.Run(name, func(t *testing.T) {
			now := noon.Add(c.after)
			next, found := c.from.compared(c.key, now)
			require.Equal(t, c.found, found)
			require.Equal(t, c.to(c.from, now), next)
		})
	}
}

func TestSupersedingRemembersEveryKeyOnceTheLatestFirst(t *testing.T) {
	r := had("a")
	r.Intent = &intent{Baseline: macs("a")[0]}
	require.Equal(t, macs("a"), r.answered("b", CauseRead, noon).Superseded, "the baseline was the record's key")
	require.Equal(t, macs("a"), had("a").begin(macs("b")[0], noon).answered("b", CauseRead, noon).Superseded, "the new key is not superseded")

	var keys, want []string
	for i := range supersededKept + 3 {
		keys = append(keys, fmt.Sprint(i))
	}
	for i := range supersededKept {
		want = append(want, fmt.Sprint(supersededKept+1-i))
	}
	require.Equal(t, macs(want...), had(keys...).Superseded)
}

func TestFingerprintIdentifiesAKeyAndDoesNotShowIt(t *testing.T) {
	require.Empty(t, had().Fingerprint())
	require.Zero(t, had().LastRegenerated())
	one := had("a")
	require.Equal(t, noon, one.LastRegenerated())
	require.Len(t, one.Fingerprint(), 32)
	require.Equal(t, one.Fingerprint(), had("b", "a").Fingerprint())
	require.NotEqual(t, one.Fingerprint(), had("b").Fingerprint())
	other := newRecord().answered("a", CauseRead, noon)
	require.NotEqual(t, one.Fingerprint(), other.Fingerprint(), "each mount has a salt of its own")
}
