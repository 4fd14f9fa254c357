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

// postLife is how long version 0.1.x waits for a regeneration that was begun.
const postLife = 45 * time.Second

// The findings: what a comparison has shown. If the tenant's key is unknown, it is the cause of
// the new version: CauseExternal or CauseRecovered.
const (
	Unchanged = "unchanged" // the tenant's key is the record's
	Stale     = "stale"     // it is one that is superseded: Graph lags behind
	Returned  = "returned"  // it is that of a displaced version, which is the record again
)

// begin announces a regeneration.
func (r Record) begin(now time.Time) Record {
	next := intent{
		StartedAt: now, UnderWay: true, BegunAt: now, Deadline: now.Add(postLife),
		Newest: r.newest(), Wanted: !r.WantedSince.IsZero(),
	}
	if r.Intent.Doubt {
		next.StartedAt, next.Doubt = r.Intent.StartedAt, true
	}
	r.Intent = next
	return r
}

// answered makes key the current version. All versions that were known when the
// regeneration was sent are dead. If key is one of theirs, the regeneration has failed,
// nothing is proven, and the record is in doubt.
func (r Record) answered(key, cause string, now time.Time) Record {
	at := cmp.Or(r.Intent, intent{Newest: r.newest()})
	known, isKnown := r.known(key)
	if isKnown && known.Version <= at.Newest || r.holds(r.Superseded, key) {
		return r.lost(now)
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
	r.Intent = intent{}
	// A comparison beside the regeneration may have found the key, and a reader may have it.
	if at.Wanted && !known.Disclosed {
		r.WantedSince = time.Time{}
	}
	if at.Doubt {
		r = r.onWatch(now, true) // the one before may still be carried out
	}
	return r
}

// refused ends a regeneration that is proven not to have been carried out. It proves
// nothing about one before.
func (r Record) refused() Record {
	r.Intent.UnderWay, r.Intent.Wanted = false, false
	return r.settled()
}

// lost leaves the record in doubt.
func (r Record) lost(now time.Time) Record {
	r.Intent = cmp.Or(r.Intent, intent{StartedAt: now, BegunAt: now})
	r.Intent.Doubt, r.Intent.UnderWay, r.Intent.Wanted = true, false, false
	return r.onWatch(now, true)
}

// compared is what becomes of the record when Graph has named the tenant's key. Graph's
// word counts, and since it may be stale, an unknown key puts the mount on watch.
func (r Record) compared(key string, now time.Time) (next Record, finding string) {
	unproven := r.Intent.Pending() || r.Watch.Unproven
	ends := !r.Intent.Pending() && !now.Before(r.Watch.Until)
	if r.Intent.Doubt { // that ends, but not a regeneration that is under way
		r.Intent.Doubt, r.Intent.StartedAt = false, r.Intent.BegunAt
		r = r.settled().onWatch(now, true)
	}
	switch {
	case r.Key != "" && hmac.Equal([]byte(r.Key), []byte(key)):
		r.ComparedAt = now
		if ends {
			r.Watch = watch{}
		}
		return r, Unchanged
	case r.holds(r.Superseded, key):
		return r, Stale
	}
	before, cause := r.newest(), CauseExternal
	if unproven {
		cause = CauseRecovered
	}
	r = r.becomes(key, cause, now).onWatch(now, unproven)
	if r.Version <= before {
		return r, Returned
	}
	return r, cause
}

// disclosed records that the key has been handed out.
func (r Record) disclosed() Record {
	r.Disclosed = true
	return r
}

// wanted records that an operator wants a new key.
func (r Record) wanted(now time.Time) Record {
	r.WantedSince = cmp.Or(r.WantedSince, now)
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
	if r.Intent.Pending() || r.Watch.On() {
		next = next.onWatch(now, true)
	}
	return next
}

// found is what a process makes of a stored record: whatever was under way has been lost,
// and a watch begins anew, because clocks of two nodes are not compared. The version that
// the lost regeneration would have made is skipped: a lease that nobody has may be on record.
func (r Record) found(now time.Time) Record {
	switch {
	case r.Intent.Pending() && (r.Intent.UnderWay || !r.Intent.Doubt): // version 0.1.x knows neither
		r.Newest = r.newest() + 1
		return r.lost(now)
	case r.Watch.On():
		return r.onWatch(now, false)
	}
	return r
}

// times are those that a clock ahead may have left in the record.
func (r *Record) times() []*time.Time {
	return []*time.Time{&r.RegeneratedAt, &r.ComparedAt, &r.WantedSince, &r.Intent.StartedAt, &r.Intent.BegunAt}
}

// ahead reports whether a clock ahead has left a time that is later than it can be.
func (r Record) ahead(now time.Time) bool {
	return r.Watch.Until.After(now.Add(watchFor)) || slices.ContainsFunc(r.times(), func(t *time.Time) bool { return t.After(now) })
}

// sane corrects the times that a clock ahead has left. A watch begins anew.
func (r Record) sane(now time.Time) Record {
	for _, t := range r.times() {
		if t.After(now) {
			*t = now
		}
	}
	if r.Watch.Until.After(now.Add(watchFor)) {
		return r.onWatch(now, false)
	}
	return r
}

// settled drops an intent that says nothing any longer.
func (r Record) settled() Record {
	if !r.Intent.UnderWay && !r.Intent.Doubt {
		r.Intent = intent{}
	}
	return r
}

// onWatch begins or prolongs the watch.
func (r Record) onWatch(now time.Time, unproven bool) Record {
	r.Watch = watch{Until: now.Add(watchFor), Unproven: unproven || r.Watch.Unproven}
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
