// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"crypto/hmac"
	"slices"
	"time"
)

// The transitions of a record. Each takes a record and returns another; the store applies
// them under its lock.
//
//	          begin                 answered
//	settled ─────────▶ in doubt ──────────────▶ settled, one version higher
//	   ▲                 │ │  ▲
//	   │     refused     │ │  │ lost
//	   ├─────────────────┘ │  └──── stays in doubt
//	   │     compared      │
//	   └───────────────────┘
//
// A settled record becomes disclosed when it is handed out, and stays settled when it is
// compared with the tenant's key, or is displaced by one that was made elsewhere.
// turnedAway is what is left of it for another workspace.

// postLife is how long a regeneration that was begun can still be under way.
const postLife = 45 * time.Second

// finding is what a comparison of the tenant's key with the record has shown.
type finding int

const (
	unchanged  finding = iota // the tenant's key is the record's
	stale                     // it is one that the engine has replaced: Graph lags behind
	external                  // it was made elsewhere
	recovered                 // it was made by the regeneration whose answer was lost
	undecided                 // the regeneration may still be carried out
	notCarried                // the regeneration has not been carried out, and no longer can be
)

// begin announces a regeneration. From here on it is in doubt which key is the tenant's.
// baseline is the HMAC of the tenant's key, if Graph has just named it.
func (r Record) begin(baseline []byte, now time.Time) Record {
	r.Intent = &intent{StartedAt: now, Deadline: now.Add(postLife), Baseline: baseline}
	return r
}

// answered makes key the current version.
func (r Record) answered(key, cause string, now time.Time) Record {
	r = r.superseding(key)
	r.Version++
	r.Key, r.Cause, r.RegeneratedAt = key, cause, now
	r.Disclosed, r.ComparedAt, r.Intent = false, time.Time{}, nil
	return r
}

// refused ends the doubt: the regeneration is proven not to have been carried out.
func (r Record) refused() Record {
	r.Intent = nil
	return r
}

// lost leaves the record in doubt. An intent from a node whose clock was ahead counts from
// now, not from when this clock has caught up.
func (r Record) lost(now time.Time) Record {
	if r.Intent != nil && r.Intent.StartedAt.After(now) {
		return r.begin(r.Intent.Baseline, now)
	}
	return r
}

// compared is what becomes of the record when Graph has named the tenant's key, or, as
// "", that there is none.
func (r Record) compared(key string, now time.Time) (Record, finding) {
	switch known := key == "" || r.holds(r.current(), key); {
	case r.Intent == nil && key == "":
		return r, undecided // whatever the record says, Graph has not named a key
	case r.Intent == nil && known:
		r.ComparedAt = now
		return r, unchanged
	case r.Intent == nil && r.holds(r.Superseded, key):
		r.ComparedAt = now
		return r, stale
	case r.Intent == nil:
		return r.answered(key, CauseExternal, now), external
	case !known && !r.holds(r.Superseded, key):
		return r.answered(key, CauseRecovered, now), recovered
	case now.Before(r.Intent.Deadline): // the request may still be on its way
		return r, undecided
	case key != "" && r.Key != "" && !r.holds(r.refused().current(), key) && !r.holds(r.Superseded, key):
		// It is the baseline: the tenant had it, and not the record's, before the request.
		return r.answered(key, CauseExternal, now), external
	default:
		return r, notCarried
	}
}

// disclosed records that the key has been handed out.
func (r Record) disclosed() Record {
	r.Disclosed = true
	return r
}

// undelivered records that a key disclosed in advance has reached no reader.
func (r Record) undelivered() Record {
	r.Disclosed = false
	return r
}

// turnedAway returns what a record means to a workspace. One of another workspace
// contributes its version number and the salt, and nothing else.
func (r Record) turnedAway(to Workspace) Record {
	if r.Workspace == to {
		return r
	}
	return Record{Version: r.Version, Workspace: to, Salt: r.Salt}
}

// superseding remembers the keys that key replaces.
func (r Record) superseding(key string) Record {
	for _, old := range r.current() {
		if !hmac.Equal(old, r.mac(key)) && !slices.ContainsFunc(r.Superseded, func(known []byte) bool { return hmac.Equal(known, old) }) {
			r.Superseded = append([][]byte{old}, r.Superseded...)
		}
	}
	r.Superseded = r.Superseded[:min(len(r.Superseded), supersededKept)]
	return r
}

// current returns the HMACs of the keys that may have been the tenant's so far: the
// record's, and the one that it had when the regeneration began.
func (r Record) current() [][]byte {
	var macs [][]byte
	if r.Intent != nil && r.Intent.Baseline != nil {
		macs = append(macs, r.Intent.Baseline)
	}
	if r.Key != "" && (macs == nil || !hmac.Equal(macs[0], r.mac(r.Key))) {
		macs = append(macs, r.mac(r.Key))
	}
	return macs
}
