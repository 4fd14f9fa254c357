// SPDX-License-Identifier: MPL-2.0

// Package accesskey owns the record of the deployment access key: which key is current,
// who may have it, and what has to happen to it.
//
// A tenant has one key, and regenerating it kills the one before. What the engine knows
// of it is one [Record]. The rule of what may become of a record is a pure core: core.go
// has its transitions, functions from a record to a record, and decide.go the two
// decisions, what a reader may have and what the engine must do. Neither reads a clock,
// storage, a lock or Graph, so both can be read without the rest and explored by a test.
//
// The [Store] applies the core under its lock. It promises that a key leaves the engine
// at one place only, [Store.Lease]: under the lock that confirms that the key is current,
// for the workspace that is configured, and after the record of its lease has been
// stored. The I/O that a decision asks for is its callers' (package rotation).
package accesskey

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// StorageKey is where the record is stored.
const StorageKey = "key"

// remembered is the number of superseded keys, and of displaced versions, that a record
// remembers by their HMAC: with a regeneration a second, all that Graph may still name.
const remembered = int(watchFor / time.Second)

// The causes of a key version.
const (
	CauseRead      = "read"      // a read asked for it
	CauseRotation  = "rotation"  // the schedule
	CauseManual    = "manual"    // rotate-key
	CauseRetired   = "retired"   // the last lease on the one before had ended, or its tenant or mount was left
	CauseExternal  = "external"  // found at Graph, and regenerated outside the engine, such as in the Defender portal
	CauseRecovered = "recovered" // found at Graph, and perhaps made by a regeneration whose answer was lost
)

// Record is everything that the engine knows of the key. The fields are those of the
// storage entry.
type Record struct {
	// Version is the number of the key: a new key gets a higher one than any before, also
	// across tenants, so that a lease names one key for ever. It goes back if a displaced version is the record again: Newest is the
	// highest that a key has had, or may have had.
	Version       int       `json:"version"`
	Newest        int       `json:"newest"`
	Key           string    `json:"key"`            // "" if the workspace has no known key
	RegeneratedAt time.Time `json:"regenerated_at"` // zero without a key
	Cause         string    `json:"cause"`
	// ComparedAt is when the key was last found to be the tenant's.
	ComparedAt time.Time `json:"compared_at"`
	// Disclosed says whether this engine has ever handed out the key.
	Disclosed bool      `json:"disclosed"`
	Workspace Workspace `json:"workspace"`
	// Salt makes the HMACs of the keys useless elsewhere.
	Salt []byte `json:"salt"`
	// Superseded are the HMACs of keys that are dead for certain: they were known when a
	// regeneration was sent that Graph has answered.
	Superseded [][]byte `json:"superseded"`
	// Displaced are versions that were the record until Graph named another key. Any of
	// them may still be the tenant's key.
	Displaced []displaced `json:"displaced,omitempty"`
	// Intent and Watch are zero if there are none.
	Intent intent `json:"intent,omitzero"`
	Watch  watch  `json:"watch,omitzero"`
	// WantedSince is since when an operator has wanted a new key; zero if none does.
	WantedSince time.Time `json:"wanted_since"`
}

// Workspace says whose key a record holds. A key is never served for a workspace other
// than the one it came from.
type Workspace struct {
	TenantID  string `json:"tenant_id"`
	GraphRoot string `json:"graph_root"`
}

// displaced is a version that the record was, without its key.
type displaced struct {
	Version       int       `json:"version"`
	MAC           []byte    `json:"mac"`
	RegeneratedAt time.Time `json:"regenerated_at"`
	Cause         string    `json:"cause"`
	Disclosed     bool      `json:"disclosed"`
}

// intent is stored before Graph is asked to regenerate the key, and removed with the
// answer. It says that a regeneration is under way, or that it is in doubt which key is
// the tenant's, or both. One that says neither is none.
type intent struct {
	// StartedAt is when the first regeneration began that no answer has followed.
	StartedAt time.Time `json:"started_at"`
	// Doubt says that a regeneration got neither an answer nor a proof that it was not
	// carried out, and that Graph has named no key since.
	Doubt bool `json:"doubt"`

	// UnderWay says that a regeneration is under way, since BegunAt.
	UnderWay bool      `json:"under_way"`
	BegunAt  time.Time `json:"begun_at"`
	// Newest was the highest version then. If Graph answers, all versions up to it are dead.
	Newest int `json:"newest"`
	// Wanted says that an operator has waited for it since before it began.
	Wanted bool `json:"wanted"`

	// Deadline is for version 0.1.x, which waits so long.
	Deadline time.Time `json:"deadline"`
}

// watch is a time in which a regeneration without proof may still be carried out, or
// Graph may have named a key that is not the tenant's. It ends with the first comparison
// after Until that finds the record's key.
type watch struct {
	Until time.Time `json:"until"`
	// Unproven says that a regeneration without proof may have made an unknown key.
	Unproven bool `json:"unproven"`
}

// Pending reports whether there is an intent.
func (i intent) Pending() bool { return i != intent{} }

// On reports whether the mount is on watch.
func (w watch) On() bool { return w != watch{} }

// newRecord returns the record of a mount that has had no key yet.
func newRecord() Record { return Record{Salt: []byte(rand.Text())} }

// Fingerprint identifies the key to an operator who compares two readings of the status,
// and is of no other use. It is "" if there is no key.
func (r Record) Fingerprint() string {
	if r.Key == "" {
		return ""
	}
	return hex.EncodeToString(r.mac(r.Key)[:16])
}

func (r Record) mac(key string) []byte {
	h := hmac.New(sha256.New, r.Salt)
	h.Write([]byte(key))
	return h.Sum(nil)
}

// holds reports whether key is one of the keys with the HMACs.
func (r Record) holds(macs [][]byte, key string) bool {
	mac := r.mac(key)
	return slices.ContainsFunc(macs, func(other []byte) bool { return hmac.Equal(mac, other) })
}
