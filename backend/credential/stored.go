// SPDX-License-Identifier: MPL-2.0

package credential

import (
	"encoding/json"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

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
