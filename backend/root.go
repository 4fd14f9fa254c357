// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	// rootGrace is how long a credential that has been replaced goes on to exist,
	// for requests that are under way and for nodes that learn of it late.
	rootGrace = 15 * time.Minute

	// rootLifetime is that of a new credential where no period says otherwise.
	// Microsoft recommends less than a year, and tenants may enforce less still.
	rootLifetime = 180 * 24 * time.Hour

	minRootRotationPeriod = time.Hour

	// rootPatience is how long a new credential may fail to work before it is given
	// up. Propagation takes seconds; what has been removed by somebody never works.
	rootPatience = 6 * time.Hour

	// rootListingLag is how long Graph is allowed to list the app's secrets without
	// one that it has added: it answers from copies, which agree within seconds.
	rootListingLag = 2 * time.Minute
)

// rootState is what the engine knows of its own credential's life at Entra. It is
// stored with the credential, in one write, so that they cannot contradict.
type rootState struct {
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
	Pending *madeCredential `json:"pending"`
	// Retiring are credentials to be removed when their time has come.
	Retiring []retiringCredential `json:"retiring"`

	Failures    int       `json:"failures"`
	NextAttempt time.Time `json:"next_attempt"`
	LastError   string    `json:"last_error"`
	LastErrorAt time.Time `json:"last_error_at"`
}

// madeCredential is a credential that the engine has made.
type madeCredential struct {
	Credential credential `json:"credential"`
	KeyID      string     `json:"key_id"` // "" until it is known
	MadeAt     time.Time  `json:"made_at"`
	EndsAt     time.Time  `json:"ends_at"`
}

// id identifies the credential, by its thumbprint as long as Entra has not told its id.
func (m *madeCredential) id() credentialID {
	if m.KeyID != "" {
		return credentialID{Type: m.Credential.Type, KeyID: m.KeyID}
	}
	info, _ := graph.ParseCertificate(m.Credential.Certificate) // an error may be that it has ended
	return credentialID{Type: m.Credential.Type, Thumbprint: info.Thumbprint}
}

// credentialID says which credential of the app is meant. Nothing in it is secret.
type credentialID struct {
	Type       string `json:"type"`
	KeyID      string `json:"key_id"`
	Thumbprint string `json:"thumbprint"` // of a certificate without KeyID
}

// retiringCredential is one that is on its way out.
type retiringCredential struct {
	credentialID

	RemoveAfter time.Time `json:"remove_after"`
}

// same tells whether two are the same; there may be none.
func (m *madeCredential) same(other *madeCredential) bool {
	if m == nil || other == nil {
		return m == other
	}
	return m.Credential == other.Credential
}

// lifetime returns how long a new credential is to be valid: long enough for one
// rotation to fail for a whole period.
func (r *rootState) lifetime() time.Duration {
	if r.Period > 0 {
		return 2 * r.Period
	}
	return rootLifetime
}

// due tells whether there is something to do: leftovers to settle, a rotation, or a
// removal. After a failure it waits, and while it cannot be told what there is to settle.
func (r *rootState) due(now time.Time) bool {
	if now.Before(r.NextAttempt) || r.doubtful(now) {
		return false
	}
	return r.unsettled() || r.rotationDue(now) || len(r.removable(now)) > 0
}

// hopeless tells whether the pending credential is to be given up.
func (r *rootState) hopeless(now time.Time) bool {
	return r.Pending != nil && now.Sub(r.Pending.MadeAt) > rootPatience
}

// giveUp drops the pending credential; if it was added, it is to be removed.
func (r *rootState) giveUp(now time.Time) {
	r.retire(r.Pending.id(), now)
	r.Pending = nil
}

func (r *rootState) unsettled() bool {
	return r.Intent != "" || r.Pending != nil || r.Wanted
}

// intend notes that a secret of that name is about to be added.
func (r *rootState) intend(name string, now time.Time) {
	r.Intent, r.IntentAt = name, now
}

// settled notes that no secret of the intent's name is there without being known.
func (r *rootState) settled() {
	r.Intent, r.IntentAt = "", time.Time{}
}

// doubtful tells whether a secret of the intent's name that is not listed may be there
// all the same. A time that a clock far ahead has noted does not count.
func (r *rootState) doubtful(now time.Time) bool {
	return r.Intent != "" && now.Sub(r.IntentAt).Abs() < rootListingLag
}

// settleable returns when the intent is settled by itself.
func (r *rootState) settleable() time.Time {
	at := r.IntentAt.Add(rootListingLag)
	if r.NextAttempt.After(at) {
		return r.NextAttempt
	}
	return at
}

func (r *rootState) rotationDue(now time.Time) bool {
	return r.Period > 0 && !now.Before(r.next())
}

// next returns when the credential is to be replaced by itself: after its period, or
// when half of the time that it had left at Since has passed, whichever is earlier, so
// that a longer period does not let a credential end that was made for a shorter one.
func (r *rootState) next() time.Time {
	next := r.Since.Add(r.Period)
	if half := r.Since.Add(r.EndsAt.Sub(r.Since) / 2); !r.EndsAt.IsZero() && half.Before(next) {
		next = half
	}
	return next
}

// removable returns the credentials whose time has come.
func (r *rootState) removable(now time.Time) []retiringCredential {
	var due []retiringCredential
	for _, c := range r.Retiring {
		if !now.Before(c.RemoveAfter) {
			due = append(due, c)
		}
	}
	return due
}

// own identifies the current credential, which is of that kind. It is empty if somebody
// else has made that.
func (r *rootState) own(kind string) credentialID {
	return credentialID{Type: kind, KeyID: r.KeyID, Thumbprint: r.Thumbprint}
}

// retire puts a credential of the engine's own on the list of those to be removed.
func (r *rootState) retire(id credentialID, after time.Time) {
	if id.KeyID != "" || id.Thumbprint != "" {
		r.Retiring = append(slices.Clone(r.Retiring), retiringCredential{id, after})
	}
}

// removed takes a credential off the list.
func (r *rootState) removed(id credentialID) {
	r.forget(func(c credentialID) bool { return c == id })
}

// forget takes credentials off the list.
func (r *rootState) forget(which func(credentialID) bool) {
	r.Retiring = slices.DeleteFunc(slices.Clone(r.Retiring), func(c retiringCredential) bool { return which(c.credentialID) })
}

// replacedBy returns the state after somebody has configured another credential: what
// the engine made so far is retired, and the new one is not its own. What cannot be
// removed any more is forgotten (see forgottenBy).
//
// If the configuration leads elsewhere, everything unfinished is. A pending credential
// would otherwise be tried at a host that whoever has written the configuration chose,
// and what that host says of a removal proves nothing about Entra.
func (r *rootState) replacedBy(old, next *config, now time.Time) rootState {
	state := rootState{Period: r.Period, Since: now, EndsAt: next.Credential.endsAt()}
	if old.sameApp(next) && old.Credential == next.Credential {
		state.Since, state.KeyID, state.Thumbprint, state.EndsAt = r.Since, r.KeyID, r.Thumbprint, r.EndsAt
	}
	if !old.sameApp(next) || old.movedBy(next) != "" {
		return state
	}
	state.Intent, state.IntentAt, state.Retiring = r.Intent, r.IntentAt, r.Retiring
	if r.Pending != nil {
		// It may be so new that the removal would overlook it.
		state.retire(r.Pending.id(), now.Add(rootListingLag))
	}
	state.retire(r.own(old.Credential.Type), now.Add(rootGrace))
	state.forget(func(id credentialID) bool {
		// To remove a certificate takes its id and another certificate.
		return id.Type == credentialClientCertificate && (id.KeyID == "" || next.Credential.Type != credentialClientCertificate)
	})
	return state
}

// tended tells whether the engine does anything by itself with the app's own credential.
// After a failure of a rotation that somebody has asked for it does not, so there is no
// time at which that is tried again.
func (r *rootState) tended() bool {
	return r.unsettled() || r.Period > 0 || len(r.Retiring) > 0
}

// describe adds to the status what is known of the credential.
func (r *rootState) describe(data map[string]any) {
	data[fieldRootUnsettled] = r.unsettled()
	data[fieldRootRetiring] = len(r.Retiring)
	data[fieldRootFailures] = r.Failures
	describeTime(data, fieldRootExpiresAt, r.EndsAt)
	if r.Period > 0 {
		describeTime(data, fieldRootNextRotation, r.next())
	}
	if r.tended() {
		describeTime(data, fieldRootNextAttempt, r.NextAttempt)
	}
	describeTime(data, fieldRootLastErrorAt, r.LastErrorAt)
	describeText(data, fieldRootLastError, r.LastError)
}
