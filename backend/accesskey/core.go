// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"cmp"
	"crypto/hmac"
	"slices"
	"time"
)

// The transitions of a record. Each takes a record and returns another; the store applies
// them under its lock.
//
//	        begin             answered, refused
//	settled ─────▶ under way ───────────────────▶ settled
//	   ▲              │  ▲
//	   │              │  │ begin
//	   │   compared   ▼  │
//	   └──────────── doubt: lost
//
// A regeneration under way can begin in doubt, and then a refusal leads back to it. Beside
// these, a record can be on watch: while a regeneration without proof may still be carried
// out, and while Graph may have named a key that is not the tenant's. turnedAway is what
// is left of a record for another workspace.

const (
	// postLife is how long version 0.1.x waits for a regeneration that was begun.
	postLife = 45 * time.Second

	// watchFor has to be longer than a regeneration can be on its way, and Graph's answers
	// stale after it.
	watchFor = 2 * time.Minute
)

// Finding is what Graph's answer has shown.
type Finding string

// The findings.
const (
	Unchanged Finding = "unchanged"  // the tenant's key is the record's
	Stale     Finding = "stale"      // it is one that is superseded: Graph lags behind
	External  Finding = "external"   // it is unknown, and was made outside the engine
	Recovered Finding = "recovered"  // it is unknown, and a regeneration without proof may have made it
	Returned  Finding = "returned"   // it is that of a displaced version, which is the record again
	Renewed   Finding = "renewed"    // the regeneration has made a new key
	OldAnswer Finding = "old answer" // the regeneration was answered with a key from before it
)

// begin announces a regeneration.
func (r Record) begin(now time.Time) Record {
	next := intent{
		StartedAt: now, UnderWay: true, BegunAt: now, Deadline: now.Add(postLife),
		Newest: r.newest(), Wanted: !r.WantedSince.IsZero(),
	}
	if r.InDoubt() {
		next.StartedAt, next.Doubt = r.Intent.StartedAt, true
	}
	return r.intending(next)
}

// answered makes key the current version. All versions that were known when the
// regeneration was sent are dead. If key is one of theirs, the regeneration has failed,
// and nothing is proven.
func (r Record) answered(key, cause string, now time.Time) (Record, Finding) {
	at := cmp.Or(orZero(r.Intent), intent{Newest: r.newest()})
	known, isKnown := r.known(key)
	if isKnown && known.Version <= at.Newest || r.holds(r.Superseded, key) {
		return r.lost(now), OldAnswer
	}
	var dead [][]byte // the record's first, which Graph may name for longest
	for _, d := range r.versions() {
		if d.Version <= at.Newest {
			dead = append(dead, d.MAC)
		}
	}
	dead = slices.Concat(dead, r.Superseded)
	r.Superseded = dead[:min(len(dead), remembered)]
	r = r.becomes(key, cause, now)
	r.Cause = cause // also if a comparison has found the key before the answer came
	r.Displaced = slices.DeleteFunc(r.Displaced, func(d displaced) bool { return d.Version <= at.Newest })
	r.Intent = nil
	// A comparison beside the regeneration may have found the key, and a reader may have it.
	if at.Wanted && !known.Disclosed {
		r.WantedSince = time.Time{}
	}
	if at.Doubt {
		r = r.onWatch(now, true) // the one before may still be carried out
	}
	return r, Renewed
}

// refused ends a regeneration that is proven not to have been carried out. It proves
// nothing about one before.
func (r Record) refused() Record {
	kept := orZero(r.Intent)
	kept.UnderWay, kept.Wanted = false, false
	return r.intending(kept)
}

// lost leaves the record in doubt.
func (r Record) lost(now time.Time) Record {
	kept := cmp.Or(orZero(r.Intent), intent{StartedAt: now, BegunAt: now})
	kept.Doubt, kept.UnderWay, kept.Wanted = true, false, false
	return r.intending(kept).onWatch(now, true)
}

// compared is what becomes of the record when Graph has named the tenant's key. Graph's
// word counts, and since it may be stale, an unknown key puts the mount on watch.
func (r Record) compared(key string, now time.Time) (Record, Finding) {
	unproven := r.Intent != nil || orZero(r.Watch).Unproven
	ends := !r.UnderWay() && !r.InDoubt() && !now.Before(r.Watch.Ends())
	if r.InDoubt() { // that ends, but not a regeneration that is under way
		kept := *r.Intent
		kept.Doubt, kept.StartedAt = false, kept.BegunAt
		r = r.intending(kept).onWatch(now, true)
	}
	switch {
	case r.Key != "" && r.holds([][]byte{r.mac(r.Key)}, key):
		r.ComparedAt = now
		if ends {
			r.Watch = nil
		}
		return r, Unchanged
	case r.holds(r.Superseded, key):
		return r, Stale
	}
	before := r.newest()
	cause, finding := CauseExternal, External
	if unproven {
		cause, finding = CauseRecovered, Recovered
	}
	r = r.becomes(key, cause, now).onWatch(now, unproven)
	if r.Version <= before {
		finding = Returned
	}
	return r, finding
}

// disclosed records that the key has been handed out.
func (r Record) disclosed() Record {
	r.Disclosed = true
	return r
}

// wanted records that an operator wants a new key.
func (r Record) wanted(now time.Time) Record {
	if r.WantedSince.IsZero() {
		r.WantedSince = now
	}
	return r
}

// turnedAway returns what a record means to a workspace. One of another workspace
// contributes its version number and the salt. It leaves a watch if it had one or was in
// doubt: the workspace may be configured again before that is over.
func (r Record) turnedAway(to Workspace, now time.Time) Record {
	if r.Workspace == to {
		return r
	}
	next := Record{Version: r.newest(), Newest: r.newest(), Workspace: to, Salt: r.Salt}
	if r.Workspace.TenantID == to.TenantID {
		next.WantedSince = r.WantedSince // it is the same key, at another endpoint
	}
	if r.Intent != nil || r.Watch != nil {
		next = next.onWatch(now, true)
	}
	return next
}

// found is what a process makes of a stored record: whatever was under way has been lost,
// and a watch begins anew, because clocks of two nodes are not compared. The version that
// the lost regeneration would have made is skipped: a lease that nobody has may be on record.
func (r Record) found(now time.Time) Record {
	switch {
	case r.Intent != nil && (r.UnderWay() || !r.InDoubt()): // version 0.1.x knows neither
		r.Newest = r.newest() + 1
		return r.lost(now)
	case r.Watch != nil:
		return r.onWatch(now, r.Watch.Unproven)
	}
	return r
}

// ahead reports whether a clock ahead has left a time that is later than it can be.
func (r Record) ahead(now time.Time) bool {
	sane := r.sane(now)
	return sane.RegeneratedAt != r.RegeneratedAt || sane.ComparedAt != r.ComparedAt || sane.WantedSince != r.WantedSince ||
		orZero(sane.Intent) != orZero(r.Intent) || orZero(sane.Watch) != orZero(r.Watch)
}

// sane corrects the times that a clock ahead has left. A watch begins anew.
func (r Record) sane(now time.Time) Record {
	kept := orZero(r.Intent)
	for _, t := range []*time.Time{&r.RegeneratedAt, &r.ComparedAt, &r.WantedSince, &kept.StartedAt, &kept.BegunAt} {
		if t.After(now) {
			*t = now
		}
	}
	if r.Intent != nil {
		r.Intent = &kept
	}
	if r.Watch.Ends().After(now.Add(watchFor)) {
		return r.onWatch(now, false)
	}
	return r
}

// intending returns the record with an intent, or with none if it says nothing.
func (r Record) intending(next intent) Record {
	r.Intent = nil
	if next.UnderWay || next.Doubt {
		r.Intent = &next
	}
	return r
}

// onWatch begins or prolongs the watch.
func (r Record) onWatch(now time.Time, unproven bool) Record {
	r.Watch = &watch{Until: now.Add(watchFor), Unproven: unproven || orZero(r.Watch).Unproven}
	return r
}

// becomes makes key the record's, as the version that it was, or as a new one. The
// version that the record was is displaced.
func (r Record) becomes(key, cause string, now time.Time) Record {
	next, isKnown := r.known(key)
	if !isKnown {
		next = displaced{Version: r.newest() + 1, RegeneratedAt: now, Cause: cause}
	}
	others := slices.DeleteFunc(r.versions(), func(d displaced) bool { return d.Version == next.Version })
	r.Displaced = others[:min(len(others), remembered)]
	r.Newest = max(r.newest(), next.Version)
	r.Version, r.Key, r.RegeneratedAt = next.Version, key, next.RegeneratedAt
	r.Cause, r.Disclosed, r.ComparedAt = next.Cause, next.Disclosed, now
	return r
}

// versions returns the record's version and the displaced ones. Without a key there are none.
func (r Record) versions() []displaced {
	if r.Key == "" {
		return nil
	}
	own := displaced{Version: r.Version, MAC: r.mac(r.Key), RegeneratedAt: r.RegeneratedAt, Cause: r.Cause, Disclosed: r.Disclosed}
	return slices.Concat([]displaced{own}, r.Displaced)
}

// known returns the version that has a key, the record's or a displaced one.
func (r Record) known(key string) (version displaced, isKnown bool) {
	mac := r.mac(key)
	for _, d := range r.versions() {
		if hmac.Equal(d.MAC, mac) {
			return d, true
		}
	}
	return displaced{}, false
}

// newest returns the highest version so far. Version 0.1.x does not store it.
func (r Record) newest() int { return max(r.Newest, r.Version) }
