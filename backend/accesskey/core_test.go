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
	later  = noon.Add(time.Minute)
	home   = Workspace{TenantID: "home", GraphRoot: "https://graph.microsoft.com"}
	abroad = Workspace{TenantID: "abroad", GraphRoot: "https://graph.microsoft.com"}
)

// had returns a settled record whose workspace had these keys, one after the other, the
// last of them made at noon.
func had(keys ...string) Record {
	r := Record{Salt: exploreSalt, Workspace: home}
	for _, key := range keys {
		r = r.begin(noon).answered(key, CauseRead, noon)
	}
	return r
}

// named returns what a record becomes when Graph names keys, one after the other.
func named(r Record, keys ...string) Record {
	for _, key := range keys {
		r, _ = r.compared(key, noon)
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

func watchUntil(at time.Time, unproven bool) watch {
	return watch{Until: at.Add(watchFor), Unproven: unproven}
}

func underWay(begun time.Time, newest int) intent {
	return intent{StartedAt: begun, UnderWay: true, BegunAt: begun, Newest: newest, Deadline: begun.Add(postLife)}
}

func TestTransitions(t *testing.T) {
	settled := had("a")
	doubt := settled.begin(noon).lost(noon)
	again := doubt.begin(later)
	answered := func(r Record, key string) Record {
		r = r.answered(key, CauseManual, later)
		return r
	}
	for name, c := range map[string]struct {
		from, to Record
		changes  func(*Record) // all that distinguishes to from from
	}{
		"begin": {settled, settled.begin(later), func(r *Record) { r.Intent = underWay(later, 1) }},
		"begin in doubt": {doubt, again, func(r *Record) {
			r.Intent = underWay(later, 1)
			r.Intent.StartedAt, r.Intent.Doubt = noon, true
		}},
		"begin what is wanted": {settled.wanted(noon), settled.wanted(noon).begin(later), func(r *Record) {
			r.Intent = underWay(later, 1)
			r.Intent.Wanted = true
		}},

		"lost": {settled.begin(noon), settled.begin(noon).lost(later), func(r *Record) {
			r.Intent.Doubt, r.Intent.UnderWay, r.Watch = true, false, watchUntil(later, true)
		}},
		"lost again": {again, again.lost(later), func(r *Record) {
			r.Intent.UnderWay, r.Watch = false, watchUntil(later, true)
		}},
		"lost without an intent": {settled, settled.lost(later), func(r *Record) {
			r.Intent, r.Watch = intent{StartedAt: later, BegunAt: later, Doubt: true}, watchUntil(later, true)
		}},
		"refused":                    {settled, settled.begin(noon).refused(), func(*Record) {}},
		"refused, an older in doubt": {again, again.refused(), func(r *Record) { r.Intent.UnderWay = false }},

		"the first key": {had(), answered(had().begin(noon), "a"), func(r *Record) {
			r.Version, r.Newest, r.Key, r.Cause, r.RegeneratedAt, r.ComparedAt = 1, 1, "a", CauseManual, later, later
		}},
		"answered": {settled.disclosed(), answered(settled.disclosed().begin(noon), "b"), func(r *Record) {
			r.Version, r.Newest, r.Key, r.Cause, r.RegeneratedAt, r.ComparedAt = 2, 2, "b", CauseManual, later, later
			r.Superseded, r.Disclosed = macs("a"), false
		}},
		"answered, an older in doubt": {again, answered(again, "b"), func(r *Record) {
			r.Version, r.Newest, r.Key, r.Cause, r.RegeneratedAt, r.ComparedAt = 2, 2, "b", CauseManual, later, later
			r.Superseded, r.Intent, r.Watch = macs("a"), intent{}, watchUntil(later, true)
		}},
		"answered on watch": {named(settled, "x"), answered(named(settled, "x").begin(noon), "b"), func(r *Record) {
			r.Version, r.Newest, r.Key, r.Cause, r.RegeneratedAt, r.ComparedAt = 3, 3, "b", CauseManual, later, later
			r.Superseded, r.Displaced = macs("x", "a"), nil
		}},
		"answered with what was wanted": {settled, answered(settled.wanted(noon).begin(noon), "b"), func(r *Record) {
			*r = answered(settled.begin(noon), "b")
		}},
		"answered, wanted since": {settled, answered(settled.begin(noon).wanted(noon), "b"), func(r *Record) {
			*r = answered(settled.begin(noon), "b").wanted(noon)
		}},

		"disclosed":    {settled, settled.disclosed(), func(r *Record) { r.Disclosed = true }},
		"wanted":       {settled, settled.wanted(noon), func(r *Record) { r.WantedSince = noon }},
		"wanted twice": {settled.wanted(noon), settled.wanted(noon).wanted(later), func(*Record) {}},

		"at home": {doubt, doubt.turnedAway(home, later), func(*Record) {}},
		"turned away": {settled.disclosed(), settled.disclosed().turnedAway(abroad, later), func(r *Record) {
			*r = Record{Version: 1, Newest: 1, Workspace: abroad, Salt: r.Salt}
		}},
		"turned away in doubt": {doubt, doubt.turnedAway(abroad, later), func(r *Record) {
			*r = Record{Version: 1, Newest: 1, Workspace: abroad, Salt: r.Salt, Watch: watchUntil(later, true)}
		}},
		"turned away on watch": {named(settled, "x"), named(settled, "x").turnedAway(abroad, later), func(r *Record) {
			*r = Record{Version: 2, Newest: 2, Workspace: abroad, Salt: r.Salt, Watch: watchUntil(later, true)}
		}},

		"found settled": {settled, settled.found(later), func(*Record) {}},
		"found under way": {settled.begin(noon), settled.begin(noon).found(later), func(r *Record) {
			*r = r.lost(later)
			r.Newest = 2 // skipped
		}},
		"found in doubt": {doubt, doubt.found(later), func(r *Record) { r.Watch = watchUntil(later, true) }},
		"found on watch": {named(settled, "x"), named(settled, "x").found(later), func(r *Record) { r.Watch = watchUntil(later, false) }},
		"found as 0.1 left it": {settled, Record{
			Version: 1, Key: "a", Workspace: home, Salt: settled.Salt, Intent: intent{StartedAt: noon, Deadline: noon.Add(postLife)},
		}.found(later), func(r *Record) {
			*r = Record{Version: 1, Newest: 2, Key: "a", Workspace: home, Salt: r.Salt, Watch: watchUntil(later, true)}
			r.Intent = intent{StartedAt: noon, Deadline: noon.Add(postLife), Doubt: true}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want := c.from
			c.changes(&want)
			if len(c.to.Displaced) == 0 {
				want.Displaced, c.to.Displaced = nil, nil
			}
			require.Equal(t, want, c.to)
		})
	}
}

func TestCompared(t *testing.T) {
	// The tenant had a and the record's b; x was named for a while.
	settled := had("a", "b").disclosed()
	doubt := settled.begin(noon).lost(noon)
	watched, over := named(settled, "x"), later.Add(watchFor)
	beside := settled.begin(noon)
	for name, c := range map[string]struct {
		from    Record
		key     string
		at      time.Time
		finding string
		version int
		cause   string
		watch   watch
	}{
		"the record's key":            {settled, "b", later, Unchanged, 2, CauseRead, watch{}},
		"a superseded key":            {settled, "a", later, Stale, 2, CauseRead, watch{}},
		"an unknown key":              {settled, "x", later, CauseExternal, 3, CauseExternal, watchUntil(later, false)},
		"a key where there was none":  {had(), "x", later, CauseExternal, 1, CauseExternal, watchUntil(later, false)},
		"a displaced key":             {watched, "b", later, Returned, 2, CauseRead, watchUntil(later, false)},
		"in doubt, the record's key":  {doubt, "b", later, Unchanged, 2, CauseRead, watchUntil(later, true)},
		"in doubt, a superseded key":  {doubt, "a", later, Stale, 2, CauseRead, watchUntil(later, true)},
		"in doubt, an unknown key":    {doubt, "x", later, CauseRecovered, 3, CauseRecovered, watchUntil(later, true)},
		"on watch, the record's key":  {watched, "x", later, Unchanged, 3, CauseExternal, watchUntil(noon, false)},
		"the watch ends":              {watched, "x", over, Unchanged, 3, CauseExternal, watch{}},
		"staleness ends no watch":     {watched, "a", over, Stale, 3, CauseExternal, watchUntil(noon, false)},
		"an unknown key as it ends":   {watched, "y", over, CauseExternal, 4, CauseExternal, watchUntil(over, false)},
		"after a doubt, an unknown":   {named(doubt, "b"), "x", later, CauseRecovered, 3, CauseRecovered, watchUntil(later, true)},
		"beside, the record's key":    {beside, "b", later, Unchanged, 2, CauseRead, watch{}},
		"beside, an unknown key":      {beside, "x", later, CauseRecovered, 3, CauseRecovered, watchUntil(later, true)},
		"beside, no watch ends":       {watched.begin(noon), "x", over, Unchanged, 3, CauseExternal, watchUntil(noon, false)},
		"beside, an older doubt ends": {doubt.begin(noon), "b", later, Unchanged, 2, CauseRead, watchUntil(later, true)},
	} {
		t.Run(name, func(t *testing.T) {
			r, finding := c.from.compared(c.key, c.at)
			require.Equal(t, c.finding, finding)
			require.Equal(t, c.version, r.Version)
			require.Equal(t, c.cause, r.Cause)
			require.Equal(t, c.watch, r.Watch)
			require.Equal(t, c.from.Intent.UnderWay, r.Intent.UnderWay)
			require.False(t, r.Intent.Doubt)
			require.Equal(t, finding != Stale, r.ComparedAt.Equal(c.at))
		})
	}
}

// The version that Graph's word displaces is the record again, as it was, when Graph names
// its key again.
func TestDisplacedVersionReturnsAsItWas(t *testing.T) {
	settled := had("a").disclosed()
	away := named(settled, "x", "y")
	require.False(t, away.Disclosed)
	require.Equal(t, []int{2, 1}, []int{away.Displaced[0].Version, away.Displaced[1].Version})
	back := named(away, "a")
	require.Equal(t, settled.Version, back.Version)
	require.Equal(t, settled.RegeneratedAt, back.RegeneratedAt)
	require.True(t, back.Disclosed)
	require.Equal(t, 3, back.Newest)
	next := back.begin(later).answered("b", CauseRead, later)
	require.Zero(t, next.Intent)
	require.Equal(t, 4, next.Version)
	require.Equal(t, macs("a", "y", "x"), next.Superseded, "whatever was known when it left is dead")
	require.Empty(t, next.Displaced)
}

// A comparison beside a regeneration can find its key before its answer comes.
func TestAnswerConfirmsTheKeyThatAComparisonHasFound(t *testing.T) {
	r := named(had("a").begin(noon), "b").disclosed()
	require.Equal(t, CauseRecovered, r.Cause)
	require.True(t, r.Intent.UnderWay)
	r = named(r, "a", "z")
	r = r.answered("b", CauseRotation, later)
	require.Zero(t, r.Intent)
	require.Equal(t, 2, r.Version)
	require.Equal(t, CauseRotation, r.Cause)
	require.True(t, r.Disclosed)
	require.Equal(t, macs("a"), r.Superseded)
	require.Equal(t, 3, r.Displaced[0].Version, "it was not known when the regeneration was sent")
	require.NotZero(t, r.Watch, "the one who was named may be the tenant's")
}

// A regeneration that answers with a key from before it has failed, and proves nothing.
func TestOldAnswerIsADoubt(t *testing.T) {
	r := named(had("a", "b"), "x").wanted(noon).begin(noon)
	for _, old := range []string{"a", "b", "x"} {
		next := r.answered(old, CauseManual, later)
		require.True(t, next.Intent.Doubt, old)
		require.Equal(t, r.lost(later), next, old)
		require.False(t, next.WantedSince.IsZero(), old)
	}
	require.True(t, had("a").answered("a", CauseRead, later).Intent.Doubt, "even if the intent is lost")
}

func TestSixteenKeysAreRemembered(t *testing.T) {
	var keys, dead, gone []string
	for i := range remembered + 3 {
		keys = append(keys, fmt.Sprint(i))
	}
	for i := range remembered {
		dead = append(dead, fmt.Sprint(remembered+1-i))
		gone = append(gone, fmt.Sprint(remembered+1-i))
	}
	require.Equal(t, macs(dead...), had(keys...).Superseded)
	away := named(had(), keys...)
	require.Len(t, away.Displaced, remembered)
	for i, key := range gone {
		require.Equal(t, away.mac(key), away.Displaced[i].MAC)
	}
	last := keys[len(keys)-1]
	next := away.begin(later).answered("b", CauseRead, later)
	require.Equal(t, macs(append([]string{last}, gone[:remembered-1]...)...), next.Superseded, "the record's key comes first")
}

// Transitions change no record but the one that they return.
func TestTransitionsLeaveTheRecordAlone(t *testing.T) {
	build := func() Record { return named(had("a", "b").wanted(noon).begin(noon).lost(noon), "x").begin(noon) }
	r := build()
	for range 2 {
		r.begin(later)
		_ = r.answered("c", CauseRead, later)
		r.refused()
		r.lost(later)
		named(r, "y", "b")
		r.found(later)
		r.sane(noon.Add(-time.Hour))
		r.turnedAway(abroad, later)
	}
	require.Equal(t, build(), r)
}

// A clock that was ahead leaves no time in the record that is later than it can be.
func TestSane(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 24 * time.Hour, 400 * 24 * time.Hour} {
		at := noon.Add(ahead)
		r := Record{Salt: exploreSalt, Workspace: home}.answered("a", CauseRead, at)
		require.True(t, r.ahead(noon))
		r = r.wanted(at).begin(at).lost(at)
		require.False(t, r.ahead(at), "the clock that wrote it sees nothing wrong")
		got := r.sane(noon)
		require.False(t, got.ahead(noon))
		for _, found := range []time.Time{got.RegeneratedAt, got.ComparedAt, got.WantedSince, got.Intent.StartedAt, got.Intent.BegunAt} {
			require.Equal(t, noon, found)
		}
		require.Equal(t, watchUntil(noon, true), got.Watch, "it begins anew")
		require.Equal(t, got, got.sane(noon))
	}
	onWatch := named(had("a"), "x")
	require.False(t, onWatch.ahead(noon))
	require.Equal(t, onWatch, onWatch.sane(noon))
	require.False(t, had().ahead(noon))
}

func TestFingerprintIdentifiesAKeyAndDoesNotShowIt(t *testing.T) {
	require.Empty(t, had().Fingerprint())
	require.Zero(t, had().RegeneratedAt)
	one := had("a")
	require.Equal(t, noon, one.RegeneratedAt)
	require.Len(t, one.Fingerprint(), 32)
	require.Equal(t, one.Fingerprint(), had("b", "a").Fingerprint())
	require.NotEqual(t, one.Fingerprint(), had("b").Fingerprint())
	other := newRecord().answered("a", CauseRead, noon)
	require.NotEqual(t, one.Fingerprint(), other.Fingerprint(), "each mount has a salt of its own")
}

func TestTimesThatStatusShows(t *testing.T) {
	settled := had("a")
	require.Zero(t, settled.Intent.StartedAt)
	require.Zero(t, settled.Watch.Until)
	lost := settled.begin(noon).lost(later)
	require.Equal(t, noon, lost.Intent.StartedAt)
	require.Equal(t, later.Add(watchFor), lost.Watch.Until)
}

// A comparison beside the regeneration that an operator waits for has found its key, and a
// reader has it: the key may have leaked, so the operator's wish is not fulfilled.
func TestKeyThatWasHandedOutBesideDoesNotFulfilAWish(t *testing.T) {
	for handedOut, wanted := range map[bool]bool{false: false, true: true} {
		r := newRecord().answered("old", CauseRead, noon)
		r, _ = r.wanted(noon).begin(noon).compared("new", noon)
		if handedOut {
			r = r.disclosed()
		}
		r = r.answered("new", CauseManual, noon)
		require.Zero(t, r.Intent)
		require.Equal(t, wanted, !r.WantedSince.IsZero())
	}
}
