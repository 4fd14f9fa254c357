// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// keyStorageKey is where the one key record of a mount is stored.
const keyStorageKey = "key"

// supersededKept is how many superseded keys are remembered by their HMAC.
const supersededKept = 16

// cause says why a key version came to be.
type cause string

const (
	causeRead      cause = "read"      // a read asked for it
	causeRotation  cause = "rotation"  // the schedule
	causeManual    cause = "manual"    // rotate-key
	causeRetired   cause = "retired"   // the last lease on the one before had ended, or its tenant or mount was left
	causeExternal  cause = "external"  // somebody else regenerated it, such as in the Defender portal
	causeRecovered cause = "recovered" // found at Graph after a regeneration whose answer was lost
)

// keyRecord is all that the engine knows of the key. A record in use is not
// changed; a change makes a copy, stores it and puts it in the old one's place.
type keyRecord struct {
	// Version counts regenerations, across tenants as well, so that a lease
	// names one key for ever.
	Version       int       `json:"version"`
	Key           string    `json:"key"` // "" if none is known for the workspace
	RegeneratedAt time.Time `json:"regenerated_at"`
	Cause         cause     `json:"cause"`
	// ComparedAt is when the key was last found to be the tenant's.
	ComparedAt time.Time `json:"compared_at"`
	// Disclosed tells whether this engine has ever handed out the key.
	Disclosed bool      `json:"disclosed"`
	Workspace workspace `json:"workspace"`
	// Salt makes the HMACs of the keys useless elsewhere.
	Salt       []byte   `json:"salt"`
	Superseded [][]byte `json:"superseded"`
	Intent     *intent  `json:"intent"`
}

// intent is stored before Graph is asked to regenerate the key and removed with the
// answer. One that is found later means that the stored key is not to be trusted.
type intent struct {
	StartedAt time.Time `json:"started_at"`
	// Deadline is when the request can be assumed not to be on its way any more.
	Deadline time.Time `json:"deadline"`
	// Baseline is the HMAC of the tenant's key before the request, if it was asked
	// for.
	Baseline []byte `json:"baseline,omitempty"`
}

// verdict is what a comparison of the tenant's key with the record tells.
type verdict int

const (
	keyUnchanged  verdict = iota // it is the key of the record
	keySuperseded                // it is one that the engine replaced: Graph lags behind itself
	keyUnknown                   // somebody else made it, or a regeneration whose answer was lost
)

// newKeyRecord returns the record of a mount that has had no key yet.
func newKeyRecord() *keyRecord {
	salt := make([]byte, sha256.Size)
	_, _ = rand.Read(salt) // never fails: see the documentation of crypto/rand
	return &keyRecord{Salt: salt}
}

// in returns the record as it concerns a workspace: a record of another workspace
// contributes only its version number, and the salt.
func (r *keyRecord) in(ws workspace) *keyRecord {
	if r.Workspace == ws {
		return r
	}
	return &keyRecord{Version: r.Version, Workspace: ws, Salt: r.Salt}
}

// usable reports whether the record holds a key that may be handed out.
func (r *keyRecord) usable() bool {
	return r.Key != "" && r.Intent == nil
}

// next returns the record of the key that replaces r's.
func (r *keyRecord) next(key string, why cause, at time.Time) *keyRecord {
	n := *r
	for _, old := range r.oldMACs() {
		if !hmac.Equal(old, r.mac(key)) {
			n.Superseded = append([][]byte{old}, n.Superseded...)
		}
	}
	n.Superseded = n.Superseded[:min(len(n.Superseded), supersededKept)]
	n.Version++
	n.Key, n.Cause, n.RegeneratedAt = key, why, at
	n.Disclosed, n.ComparedAt, n.Intent = false, time.Time{}, nil
	return &n
}

// oldMACs returns the HMACs of the keys that a regeneration supersedes: the record's,
// and the one that the tenant had when the regeneration began.
func (r *keyRecord) oldMACs() [][]byte {
	var macs [][]byte
	if r.Intent != nil && r.Intent.Baseline != nil {
		macs = append(macs, r.Intent.Baseline)
	}
	if r.Key != "" && (macs == nil || !hmac.Equal(macs[0], r.mac(r.Key))) {
		macs = append(macs, r.mac(r.Key))
	}
	return macs
}

// compare tells what it means that Graph names key as the tenant's.
func (r *keyRecord) compare(key string) verdict {
	mac := r.mac(key)
	isMAC := func(other []byte) bool { return hmac.Equal(mac, other) }
	switch {
	case slices.ContainsFunc(r.oldMACs(), isMAC):
		return keyUnchanged
	case slices.ContainsFunc(r.Superseded, isMAC):
		return keySuperseded
	default:
		return keyUnknown
	}
}

// foreign tells whether the tenant's key is somebody else's, if no regeneration is on
// its way that could have made it.
func (r *keyRecord) foreign(key string) bool {
	settled := *r
	settled.Intent = nil
	return r.Key != "" && settled.compare(key) == keyUnknown
}

// fingerprint identifies the key to an operator who compares two readings of the
// status, and is of no other use.
func (r *keyRecord) fingerprint() string {
	if r.Key == "" {
		return ""
	}
	return hex.EncodeToString(r.mac(r.Key)[:16])
}

func (r *keyRecord) mac(key string) []byte {
	h := hmac.New(sha256.New, r.Salt)
	h.Write([]byte(key))
	return h.Sum(nil)
}
