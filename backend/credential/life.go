// SPDX-License-Identifier: MPL-2.0

package credential

import (
	"fmt"
	"slices"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	// Grace is how long a credential that has been replaced goes on to exist,
	// for requests that are under way and for nodes that learn of it late.
	Grace = 15 * time.Minute

	// lifetimeWithoutPeriod is that of a new credential where no period says otherwise.
	// Microsoft recommends less than a year, and tenants may enforce less still.
	lifetimeWithoutPeriod = 180 * 24 * time.Hour

	ShortestPeriod = time.Hour

	// pendingTTL is how long a new credential may fail to work before it is given
	// up. Propagation takes seconds; what has been removed by somebody never works.
	pendingTTL = 6 * time.Hour

	// ListingLag is how long Graph is allowed to list the app's secrets without
	// one that it has added: it answers from copies, which agree within seconds.
	ListingLag = 2 * time.Minute
)

// Life is what the engine knows of its own credential's life at Entra. It is
// stored with the credential, in one write, so that they cannot contradict.
type Life struct {
	// Period is how often the credential is replaced by itself; 0: not.
	Period time.Duration `json:"root_rotation_period"`
	// Since is when Period was set, or the credential was last replaced.
	Since time.Time `json:"since"`

	// KeyID is the id of the current credential, and Thumbprint stands for it where
	// the id of a certificate is not known. Both are "" if the engine did not make it:
	// such a one is somebody else's and never removed.
	KeyID      string `json:"key_id"`
	Thumbprint string `json:"thumbprint"`
	// EndsAt is when the current credential ends; zero for a client secret that
	// somebody has configured and whose end could not be looked up.
	EndsAt time.Time `json:"ends_at"`

	// Intent tells that a secret of that name may have been added, after IntentAt.
	// A record without that time is of a version that did not note it: long ago.
	Intent   string    `json:"intent"`
	IntentAt time.Time `json:"intent_at"`
	// Wanted tells that a rotation has been asked for that could not begin because
	// of the intent, until it has a pending credential or is refused.
	Wanted bool `json:"wanted"`
	// Pending has been made, and perhaps added, and is not known to work yet.
	Pending *Made `json:"pending"`
	// Retiring are credentials to be removed when their time has come.
	Retiring []RetiringID `json:"retiring"`

	Failures    int       `json:"failures"`
	NextAttempt time.Time `json:"next_attempt"`
	LastError   string    `json:"last_error"`
	LastErrorAt time.Time `json:"last_error_at"`
}

// Made is a credential that the engine has made.
type Made struct {
	Credential Credential `json:"credential"`
	KeyID      string     `json:"key_id"` // "" until it is known
	MadeAt     time.Time  `json:"made_at"`
	EndsAt     time.Time  `json:"ends_at"`
}

// ID identifies the credential, by its thumbprint as long as Entra has not told its id.
func (m *Made) ID() ID {
	if m.KeyID != "" {
		return ID{Type: m.Credential.Type, KeyID: m.KeyID}
	}
	info, _ := graph.ParseCertificate(m.Credential.Certificate) // an error may be that it has ended
	return ID{Type: m.Credential.Type, Thumbprint: info.Thumbprint}
}

// ID says which credential of the app is meant. Nothing in it is secret.
type ID struct {
	Type       string `json:"type"`
	KeyID      string `json:"key_id"`
	Thumbprint string `json:"thumbprint"` // of a certificate without KeyID
}

// RetiringID is one that is on its way out.
type RetiringID struct {
	ID

	RemoveAfter time.Time `json:"remove_after"`
}

// Same tells whether two are the same; there may be none.
func (m *Made) Same(other *Made) bool {
	if m == nil || other == nil {
		return m == other
	}
	return m.Credential == other.Credential
}

// Lifetime returns how long a new credential is to be valid: long enough for one
// rotation to fail for a whole period.
func (r *Life) Lifetime() time.Duration {
	if r.Period > 0 {
		return 2 * r.Period
	}
	return lifetimeWithoutPeriod
}

// Due tells whether there is something to do: leftovers to settle, a rotation, or a
// removal. After a failure it waits, and while it cannot be told what there is to settle.
func (r *Life) Due(now time.Time) bool {
	if now.Before(r.NextAttempt) || r.Doubtful(now) {
		return false
	}
	return r.Unsettled() || r.RotationDue(now) || len(r.Removable(now)) > 0
}

// Hopeless tells whether the pending credential is to be given up.
func (r *Life) Hopeless(now time.Time) bool {
	return r.Pending != nil && now.Sub(r.Pending.MadeAt) > pendingTTL
}

// GiveUp drops the pending credential; if it was added, it is to be removed.
func (r *Life) GiveUp(now time.Time) {
	r.Retire(r.Pending.ID(), now)
	r.Pending = nil
}

func (r *Life) Unsettled() bool {
	return r.Intent != "" || r.Pending != nil || r.Wanted
}

// Intend notes that a secret of that name is about to be added.
func (r *Life) Intend(name string, now time.Time) {
	r.Intent, r.IntentAt = name, now
}

// Settled notes that no secret of the intent's name is there without being known.
func (r *Life) Settled() {
	r.Intent, r.IntentAt = "", time.Time{}
}

// Doubtful tells whether a secret of the intent's name that is not listed may be there
// all the same. A time that a clock far ahead has noted does not count.
func (r *Life) Doubtful(now time.Time) bool {
	return r.Intent != "" && now.Sub(r.IntentAt).Abs() < ListingLag
}

// Settleable returns when the intent is settled by itself.
func (r *Life) Settleable() time.Time {
	at := r.IntentAt.Add(ListingLag)
	if r.NextAttempt.After(at) {
		return r.NextAttempt
	}
	return at
}

func (r *Life) RotationDue(now time.Time) bool {
	return r.Period > 0 && !now.Before(r.Next())
}

// Next returns when the credential is to be replaced by itself: after its period, or
// when half of the time that it had left at Since has passed, whichever is earlier, so
// that a longer period does not let a credential end that was made for a shorter one.
func (r *Life) Next() time.Time {
	next := r.Since.Add(r.Period)
	if half := r.Since.Add(r.EndsAt.Sub(r.Since) / 2); !r.EndsAt.IsZero() && half.Before(next) {
		next = half
	}
	return next
}

// Removable returns the credentials whose time has come.
func (r *Life) Removable(now time.Time) []RetiringID {
	var due []RetiringID
	for _, c := range r.Retiring {
		if !now.Before(c.RemoveAfter) {
			due = append(due, c)
		}
	}
	return due
}

// Own identifies the current credential, which is of that kind. It is empty if somebody
// else has made that.
func (r *Life) Own(kind string) ID {
	return ID{Type: kind, KeyID: r.KeyID, Thumbprint: r.Thumbprint}
}

// Retire puts a credential of the engine's own on the list of those to be removed.
func (r *Life) Retire(id ID, after time.Time) {
	if id.KeyID != "" || id.Thumbprint != "" {
		r.Retiring = append(slices.Clone(r.Retiring), RetiringID{id, after})
	}
}

// Removed takes a credential off the list.
func (r *Life) Removed(id ID) {
	r.forget(func(c ID) bool { return c == id })
}

// forget takes credentials off the list.
func (r *Life) forget(which func(ID) bool) {
	r.Retiring = slices.DeleteFunc(slices.Clone(r.Retiring), func(c RetiringID) bool { return which(c.ID) })
}

// ReplacedBy returns the state after somebody has configured another credential: what
// the engine made so far is retired, and the new one is not its own. What cannot be
// Removed any more is forgotten (see forgottenBy).
//
// If the configuration leads elsewhere, everything unfinished is. A pending credential
// would otherwise be tried at a host that whoever has written the configuration chose,
// and what that host says of a removal proves nothing about Entra.
func (r *Life) ReplacedBy(old, next Credential, sameApp, redirected bool, now time.Time) Life {
	state := Life{Period: r.Period, Since: now, EndsAt: next.EndsAt()}
	if sameApp && old == next {
		state.Since, state.KeyID, state.Thumbprint, state.EndsAt = r.Since, r.KeyID, r.Thumbprint, r.EndsAt
	}
	if !sameApp || redirected {
		return state
	}
	state.Intent, state.IntentAt, state.Retiring = r.Intent, r.IntentAt, r.Retiring
	if r.Pending != nil {
		// It may be so new that the removal would overlook it.
		state.Retire(r.Pending.ID(), now.Add(ListingLag))
	}
	state.Retire(r.Own(old.Type), now.Add(Grace))
	state.forget(func(id ID) bool {
		// To remove a certificate takes its id and another certificate.
		return id.Type == ClientCertificate && (id.KeyID == "" || next.Type != ClientCertificate)
	})
	return state
}

// Tended tells whether the engine does anything by itself with the app's own credential.
// After a failure of a rotation that somebody has asked for it does not, so there is no
// time at which that is tried again.
func (r *Life) Tended() bool {
	return r.Unsettled() || r.Period > 0 || len(r.Retiring) > 0
}

// NextRotation returns when the credential is to be replaced automatically, zero if it is not.
func (r *Life) NextRotation() time.Time {
	if r.Period == 0 {
		return time.Time{}
	}
	return r.Next()
}

// NextTry returns until when active work waits after a failure, zero if it does not.
func (r *Life) NextTry() time.Time {
	if !r.Tended() {
		return time.Time{}
	}
	return r.NextAttempt
}

// Names describes the credentials of the app that the engine has made, or may have, in
// words that a person finds in Entra's portal. The current one is of that kind. Nothing
// in them is secret.
func (r *Life) Names(kind string) []string {
	names := []string{}
	if r.KeyID != "" || r.Thumbprint != "" {
		names = append(names, r.Own(kind).describe())
	}
	if r.Pending != nil {
		names = append(names, r.Pending.ID().describe())
	}
	for _, old := range r.Retiring {
		names = append(names, old.describe())
	}
	if r.Intent != "" {
		names = append(names, fmt.Sprintf("the client secret named %q, if there is one", r.Intent))
	}
	return names
}

// describe names a certificate whose id is not known by its thumbprint.
func (id ID) describe() string {
	switch {
	case id.KeyID == "":
		return "the certificate with the thumbprint " + id.Thumbprint + ", if it is registered"
	case id.Type == ClientSecret:
		return "the client secret with the id " + id.KeyID
	default:
		return "the certificate with the id " + id.KeyID
	}
}
