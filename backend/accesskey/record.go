// SPDX-License-Identifier: MPL-2.0

// Package accesskey owns the record of the deployment access key: which key is current,
// who may have it, and what has to happen to it.
//
// A tenant has one key, and regenerating it kills the one before. What the engine knows
// of it is one [Record]. The rule of what may become of a record is a pure core: core.go
// has its transitions, functions from a record to a record, and decide.go the two
// decisions, what a reader may have and what the engine must do. Neither reads a clock,
// storage, a lock or Graph, so both can be read on two pages and explored by a test.
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

// supersededKept is the number of superseded keys that a record remembers by their HMAC.
const supersededKept = 16

// The causes of a key version.
const (
	CauseRead      = "read"      // a read asked for it
	CauseRotation  = "rotation"  // the schedule
	CauseManual    = "manual"    // rotate-key
	CauseRetired   = "retired"   // the last lease on the one before had ended, or its tenant or mount was left
	CauseExternal  = "external"  // it was regenerated outside the engine, such as in the Defender portal
	CauseRecovered = "recovered" // found at Graph after a regeneration whose answer was lost
)

// Record is everything that the engine knows of the key. The fields are those of the
// storage entry.
type Record struct {
	// Version counts regenerations, also across tenants, so that a lease names one key
	// for ever.
	Version       int       `json:"version"`
	Key           string    `json:"key"` // "" if the workspace has no known key
	RegeneratedAt time.Time `json:"regenerated_at"`
	Cause         string    `json:"cause"`
	// ComparedAt is when the key was last found to be the tenant's.
	ComparedAt time.Time `json:"compared_at"`
	// Disclosed says whether this engine has ever handed out the key.
	Disclosed bool      `json:"disclosed"`
	Workspace Workspace `json:"workspace"`
	// Salt makes the HMACs of the keys useless elsewhere.
	Salt       []byte   `json:"salt"`
	Superseded [][]byte `json:"superseded"`
	Intent     *intent  `json:"intent"`
}

// Workspace says whose key a record holds. A key is never served for a workspace other
// than the one it came from.
type Workspace struct {
	TenantID  string `json:"tenant_id"`
	GraphRoot string `json:"graph_root"`
}

// intent is stored before Graph is asked to regenerate the key, and removed with the
// answer. As long as a record has one, it is in doubt which key is the tenant's.
type intent struct {
	StartedAt time.Time `json:"started_at"`
	// Deadline is when the request can no longer be under way.
	Deadline time.Time `json:"deadline"`
	// Baseline is the HMAC of the tenant's key before the request, if Graph was asked.
	Baseline []byte `json:"baseline,omitempty"`
}

// Started returns when the regeneration began, zero if none did.
func (i *intent) Started() time.Time {
	if i == nil {
		return time.Time{}
	}
	return i.StartedAt
}

// newRecord returns the record of a mount that has had no key yet.
func newRecord() Record {
	salt := make([]byte, sha256.Size)
	_, _ = rand.Read(salt) // never fails: see the documentation of crypto/rand
	return Record{Salt: salt}
}

// usable reports whether the record holds a key that may be handed out.
func (r Record) usable() bool { return r.Key != "" && r.Intent == nil }

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

// LastRegenerated returns when the key was regenerated, zero if there is none.
func (r Record) LastRegenerated() time.Time {
	if r.Key == "" {
		return time.Time{}
	}
	return r.RegeneratedAt
}
