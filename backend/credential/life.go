// SPDX-License-Identifier: MPL-2.0

package credential

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	// Grace is how long a replaced credential is kept, for requests that are under way
	// and for nodes that learn of its successor late.
	Grace = 15 * time.Minute

	// ShortestPeriod is the shortest that a rotation period may be.
	ShortestPeriod = time.Hour

	// lifetimeWithoutPeriod is that of a new credential without a rotation period.
	// Microsoft recommends less than a year, and tenants may enforce less still.
	lifetimeWithoutPeriod = 180 * 24 * time.Hour

	// pendingTTL is how long a new credential may fail to work before it is abandoned.
	// Propagation takes seconds; one that was removed in the portal never works.
	pendingTTL = 6 * time.Hour

	// ListingLag is how long Graph may fail to list a credential that it has added: reads
	// are eventually consistent, within seconds.
	ListingLag = 2 * time.Minute

	// skew is how far apart the clocks of nodes may be. What was noted at a time further
	// ahead was noted by a clock that was wrong, and nothing waits for it.
	skew = 2 * time.Minute
)

// The stages that are stored. Proven and removed are not: a credential is proven and
// becomes current in one write, since a proof holds for the moment only, and one that is
// removed leaves the list.
const (
	planned  = "planned"  // may have been added; Entra has not confirmed it
	added    = "added"    // Entra has confirmed it; not known to work yet
	current  = "current"  // in use
	retiring = "retiring" // to be removed at RemoveAfter
)

// Life is what the engine knows of the credentials that it makes for the app. It is
// stored with the credential in use, in one write, so that the two cannot contradict.
type Life struct {
	// Period is how often the credential is replaced automatically; 0: never.
	Period time.Duration `json:"root_rotation_period"`
	// Since is when Period was set, or the credential was last replaced.
	Since time.Time `json:"since"`
	// EndsAt is when the credential in use ends; zero for a configured client secret.
	EndsAt time.Time `json:"ends_at"`
	// Made are the credentials that the engine has made, or may have: at most one is
	// planned or added, and at most one is current. None is if the operator made that.
	Made []Made `json:"made"`
	// Requested says that a requested rotation could not begin because of a planned
	// secret. It holds until another secret is added or refused.
	Requested bool `json:"wanted"` // the name of version 0.1.x

	Failures    int       `json:"failures"`
	NextAttempt time.Time `json:"next_attempt"`
	LastError   string    `json:"last_error"`
	LastErrorAt time.Time `json:"last_error_at"`
}

// Made is a credential that the engine has made. Type, Name, KeyID and Thumbprint
// identify it.
type Made struct {
	Stage       string     `json:"stage"`
	Type        string     `json:"type"`
	Name        string     `json:"name"`       // of a secret that is planned
	KeyID       string     `json:"key_id"`     // "" until Entra has told it
	Thumbprint  string     `json:"thumbprint"` // of a certificate without KeyID
	Credential  Credential `json:"credential"` // until the configuration has it
	PlannedAt   time.Time  `json:"made_at"`    // the name of version 0.1.x
	EndsAt      time.Time  `json:"ends_at"`
	RemoveAfter time.Time  `json:"remove_after"`
}

// What has happened.
const (
	Planned    = "planned"    // Of is about to be added
	Added      = "added"      // Entra has answered with KeyID, Secret and EndsAt
	NotAdded   = "not added"  // or added in vain: Found with the secret's name, and removed
	Proven     = "proven"     // Of works, and is used from now on
	Abandoned  = "abandoned"  // Of never worked
	Removed    = "removed"    // Of has gone, or the operator has been asked to remove it
	Requested  = "requested"  // a rotation, which cannot begin while Of is planned
	Reported   = "reported"   // work has succeeded, or failed with Problem and has to Wait
	Configured = "configured" // New took the place of Old, in the same app or Redirected
)

// Event is what has happened to one of the credentials, or to all.
type Event struct {
	Kind string
	At   time.Time
	Of   Made

	KeyID, Secret       string
	EndsAt              time.Time
	Found               []string // key ids
	Refused             bool     // and so not to be tried again
	Problem             string
	Wait                time.Duration
	Old, New            Credential
	SameApp, Redirected bool
}

// transitions are the stages that the credential of an event may be in, and what the rest
// of the life becomes of it. Without stages, the event is about the life as a whole.
var transitions = map[string]struct {
	from []string
	to   func(*Life, Made, Event)
}{
	Planned:    {nil, (*Life).planned},
	Added:      {[]string{planned}, (*Life).added},
	NotAdded:   {[]string{planned}, (*Life).notAdded},
	Requested:  {[]string{planned}, (*Life).requested},
	Proven:     {[]string{planned, added}, (*Life).proven},
	Abandoned:  {[]string{planned, added}, (*Life).abandoned},
	Removed:    {[]string{retiring}, func(*Life, Made, Event) {}},
	Reported:   {nil, (*Life).reported},
	Configured: {nil, (*Life).configured},
}

// Apply returns the life after an event. It is false if the event does not fit: other
// work, or another configuration, has ended what it is about.
func (l Life) Apply(e Event) (Life, bool) {
	t, m := transitions[e.Kind], Made{}
	i := slices.IndexFunc(l.Made, func(m Made) bool { return m.same(e.Of) && slices.Contains(t.from, m.Stage) })
	if t.from != nil && i < 0 || e.Kind == Planned && l.has().Stage != "" {
		return l, false
	}
	l.Made = slices.Clone(l.Made)
	if i >= 0 {
		m = l.Made[i]
		l.Made = slices.Delete(l.Made, i, i+1)
	}
	t.to(&l, m, e)
	return l, true
}

func (l *Life) planned(_ Made, e Event) {
	e.Of.Stage, e.Of.PlannedAt = planned, e.At
	l.Made = append(l.Made, e.Of)
}

func (l *Life) added(m Made, e Event) {
	m.Stage, m.Name, m.KeyID, m.Thumbprint = added, "", e.KeyID, ""
	if m.Type == ClientSecret {
		m.Credential, m.EndsAt = Credential{Type: ClientSecret, Secret: e.Secret}, e.EndsAt
	}
	l.Made, l.Requested = append(l.Made, m), false
}

// notAdded has the secrets that were found removed once more if they are young: a replica
// of the registration that does not have them yet may have answered the removal.
func (l *Life) notAdded(m Made, e Event) {
	l.Requested = l.Requested && !e.Refused
	for _, id := range e.Found {
		if m.unlisted(e.At) {
			l.retire(Made{Type: m.Type, KeyID: id}, m.PlannedAt.Add(ListingLag))
		}
	}
}

func (l *Life) requested(m Made, _ Event) { l.Made, l.Requested = append(l.Made, m), true }

func (l *Life) proven(m Made, e Event) {
	next := Life{Period: l.Period, Since: e.At, EndsAt: m.EndsAt}
	for _, old := range l.Made {
		if old.Stage == current {
			next.retire(old, e.At.Add(Grace))
		} else {
			next.Made = append(next.Made, old)
		}
	}
	next.Made = append(next.Made, Made{Stage: current, Type: m.Type, KeyID: m.KeyID, Thumbprint: m.Thumbprint})
	*l = next
}

func (l *Life) abandoned(m Made, e Event) { l.retire(m, e.At) }

func (l *Life) reported(_ Made, e Event) {
	if e.Problem == "" {
		l.Failures, l.NextAttempt = 0, time.Time{}
		return
	}
	l.Failures++
	l.LastError, l.LastErrorAt, l.NextAttempt = e.Problem, e.At, e.At.Add(e.Wait)
}

func (l *Life) retire(m Made, after time.Time) {
	l.Made = append(l.Made, Made{Stage: retiring, Type: m.Type, KeyID: m.KeyID, Thumbprint: m.Thumbprint, RemoveAfter: after})
}

// configured retires what the engine has made so far; the configured credential is not
// its own. What can no longer be removed is forgotten, so that the caller has to name it.
//
// If the configuration leads elsewhere, that is everything unfinished: a pending
// credential must not be tried at a host of the writer's choice, and what that host says
// of a removal proves nothing about Entra.
func (l *Life) configured(_ Made, e Event) {
	next := Life{Period: l.Period, Since: e.At, EndsAt: e.New.endsAt()}
	kept := e.SameApp && e.Old == e.New
	if kept {
		next.Since, next.EndsAt = l.Since, l.EndsAt
	}
	for _, m := range l.Made {
		switch {
		case kept && m.Stage == current:
			next.Made = append(next.Made, m)
		case !e.SameApp || e.Redirected:
		case m.Type == ClientCertificate && (m.KeyID == "" || e.New.Type != ClientCertificate):
			// To remove a certificate takes its id and another certificate.
		case m.Stage == current:
			next.retire(m, e.At.Add(Grace))
		case m.Stage == retiring, m.valueless():
			next.Made = append(next.Made, m)
		default:
			next.retire(m, e.At.Add(ListingLag)) // earlier, the removal might miss it
		}
	}
	*l = next
}

// What to do next.
const (
	Nothing = "nothing"
	Plan    = "plan"    // another credential, with that Lifetime, and add it
	Find    = "find"    // a secret by its name, which may have been added
	Add     = "add"     // Of, a certificate, unless it has been
	Prove   = "prove"   // that Of works, and use it
	Abandon = "abandon" // Of
)

// Step is what there is to do with the app's credential, and how things stand.
type Step struct {
	Do       string
	Of       Made
	Lifetime time.Duration
	// Remove are the credentials whose time has come, whatever becomes of the rest.
	Remove []Made
	// Unlisted is when it will be known whether Of is there, although Graph does not list
	// it; zero if it is known by now.
	Unlisted time.Time

	Unfinished   bool
	Retiring     int
	NextRotation time.Time // zero if none is scheduled
	NextAttempt  time.Time // zero if nothing waits for it
}

// Due reports whether there is anything to do.
func (s Step) Due() bool { return s.Do != Nothing || len(s.Remove) > 0 }

// Next decides what to do. Unless a rotation is asked for, that is nothing while a failure
// keeps the engine waiting, or while it cannot be known whether a planned secret is there.
// A rotation begins only if it is asked for, now or before, or scheduled.
func (l Life) Next(now time.Time, asked bool) Step {
	of := l.has()
	s := Step{Do: Nothing, Of: of, Lifetime: lifetimeWithoutPeriod, Unfinished: of.Stage != "" || l.Requested}
	if l.Period > 0 {
		// Long enough for one rotation to fail for a whole period.
		s.NextRotation, s.Lifetime = l.nextRotation(now), 2*l.Period
	}
	for _, m := range l.Made {
		if m.Stage == retiring {
			s.Retiring++
			if !now.Before(m.RemoveAfter) || wrong(m.RemoveAfter.Add(-Grace), now) {
				s.Remove = append(s.Remove, m)
			}
		}
	}
	if wrong(l.LastErrorAt, now) {
		l.NextAttempt = time.Time{}
	}
	if s.Unfinished || l.Period > 0 || s.Retiring > 0 {
		s.NextAttempt = l.NextAttempt
	}
	if of.unlisted(now) {
		s.Unlisted = slices.MaxFunc([]time.Time{of.PlannedAt.Add(ListingLag), l.NextAttempt}, time.Time.Compare)
	}
	begin := asked || l.Requested || l.Period > 0 && !now.Before(s.NextRotation)
	switch {
	case !asked && (now.Before(l.NextAttempt) || of.valueless() && !s.Unlisted.IsZero()):
		s.Remove = nil
	case of.valueless():
		s.Do = Find
	case of.Stage != "" && (now.Sub(of.PlannedAt) > pendingTTL || wrong(of.PlannedAt, now)):
		s.Do = Abandon
	case of.Stage == planned:
		s.Do = Add
	case of.Stage == added:
		s.Do = Prove
	case begin:
		s.Do = Plan
	}
	return s
}

// wrong reports whether a time at which something happened is that of a clock far ahead.
func wrong(at, now time.Time) bool { return at.After(now.Add(skew)) }

// nextRotation returns when the credential is replaced automatically: after its period, or
// when half of the time that it had left at Since has passed, whichever is earlier. So a
// longer period does not let a credential end that was made for a shorter one. It is now
// if it is not known since when the period counts.
func (l Life) nextRotation(now time.Time) time.Time {
	if wrong(l.Since, now) {
		return now
	}
	next := l.Since.Add(l.Period)
	if half := l.Since.Add(l.EndsAt.Sub(l.Since) / 2); !l.EndsAt.IsZero() && half.Before(next) {
		return half
	}
	return next
}

// has returns the credential that is planned or added, a zero one if there is none.
func (l Life) has() Made {
	for _, m := range l.Made {
		if m.Stage == planned || m.Stage == added {
			return m
		}
	}
	return Made{}
}

// valueless reports whether the credential is a secret that Entra may have made, whose
// value only Entra's answer has.
func (m Made) valueless() bool { return m.Stage == planned && m.Type == ClientSecret }

// unlisted reports whether Graph may not list the planned credential although it is
// there. A time that a clock far ahead has noted does not count.
func (m Made) unlisted(now time.Time) bool {
	return m.Stage == planned && now.Sub(m.PlannedAt).Abs() < ListingLag
}

func (m Made) same(other Made) bool {
	return m.Type == other.Type && m.Name == other.Name && m.KeyID == other.KeyID && m.Thumbprint == other.Thumbprint
}

// Names describes the credentials that the engine has made, or may have, in words that an
// operator finds in Entra's portal. Nothing in them is secret.
func (l Life) Names() []string {
	names := []string{}
	for _, m := range l.Made {
		switch {
		case m.Name != "":
			names = append(names, fmt.Sprintf("the client secret named %q, if there is one", m.Name))
		case m.KeyID == "":
			names = append(names, "the certificate with the thumbprint "+m.Thumbprint+", if it is registered")
		case m.Type == ClientSecret:
			names = append(names, "the client secret with the id "+m.KeyID)
		default:
			names = append(names, "the certificate with the id "+m.KeyID)
		}
	}
	return names
}

// storedLife is what is stored: a [Life], and its credentials in the form of version
// 0.1.x, which has to be able to go on from it. When that version stores, it drops the
// field made, so what it has stored is read in its own form. The next minor version no
// longer writes that.
type storedLife struct {
	life

	KeyID      string    `json:"key_id"`
	Thumbprint string    `json:"thumbprint"`
	Intent     string    `json:"intent"`
	IntentAt   time.Time `json:"intent_at"`
	Pending    *Made     `json:"pending"`
	Retiring   []Made    `json:"retiring"`
}

type life Life // without methods

// MarshalJSON writes both forms.
func (l Life) MarshalJSON() ([]byte, error) {
	s := storedLife{life: life(l)}
	s.Made = append([]Made{}, l.Made...) // not null, even if there are none
	for _, m := range l.Made {
		switch {
		case m.Stage == current:
			s.KeyID, s.Thumbprint = m.KeyID, m.Thumbprint
		case m.Stage == retiring:
			s.Retiring = append(s.Retiring, m)
		case m.valueless():
			s.Intent, s.IntentAt = m.Name, m.PlannedAt
		default:
			s.Pending = &m
		}
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads either form.
func (l *Life) UnmarshalJSON(text []byte) error {
	var s storedLife
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	*l = Life(s.life)
	if l.Made != nil {
		if len(l.Made) == 0 {
			l.Made = nil
		}
		return nil
	}
	if s.Intent != "" {
		l.Made = append(l.Made, Made{Stage: planned, Type: ClientSecret, Name: s.Intent, PlannedAt: s.IntentAt})
	}
	if m := s.Pending; m != nil {
		m.Stage, m.Type = added, m.Credential.Type
		if m.KeyID == "" {
			info, _ := graph.ParseCertificate(m.Credential.Certificate) // the error may be that it has ended
			m.Stage, m.Thumbprint = planned, info.Thumbprint
		}
		l.Made = append(l.Made, *m)
	}
	if s.KeyID != "" || s.Thumbprint != "" {
		l.Made = append(l.Made, Made{Stage: current, KeyID: s.KeyID, Thumbprint: s.Thumbprint})
	}
	for _, m := range s.Retiring {
		m.Stage = retiring
		l.Made = append(l.Made, m)
	}
	return nil
}

// With returns the life together with the credential in use, which completes what earlier
// versions have stored.
func (l Life) With(inUse Credential) Life {
	if l.EndsAt.IsZero() {
		l.EndsAt = inUse.endsAt()
	}
	for i := range l.Made {
		if l.Made[i].Stage == current {
			l.Made[i].Type = inUse.Type
		}
	}
	return l
}
