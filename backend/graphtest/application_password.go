// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"fmt"
	"slices"
	"time"
)

// addPassword makes a new client secret. Only this answer contains its value.
func addPassword(x *exchange, s settings) answer {
	var request struct {
		PasswordCredential struct {
			DisplayName   string    `json:"displayName"`
			StartDateTime time.Time `json:"startDateTime"`
			EndDateTime   time.Time `json:"endDateTime"`
		} `json:"passwordCredential"`
	}
	if refused := x.read(&request); refused != nil {
		return *refused
	}
	requested := request.PasswordCredential
	p := newPassword(requested.DisplayName, newClientSecret())
	p.start, p.end = requested.StartDateTime, requested.EndDateTime
	if p.start.IsZero() {
		p.start = s.clock()
	}
	if p.end.IsZero() {
		p.end = p.start.AddDate(2, 0, 0) // Graph's default
	}
	if !p.end.After(p.start) {
		return *x.badRequest("The end of a credential must come after its start.")
	}
	if refused := x.checkLifetime(s, p.start, p.end); refused != nil {
		return *refused
	}
	x.sim.performAddPassword(p)
	fields := p.json()
	fields["secretText"] = p.value
	return x.object("microsoft.graph.passwordCredential", fields)
}

func (s *Simulator) performAddPassword(p password) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings.passwords = append(slices.Clone(s.settings.passwords), p)
	s.spread(p.keyID)
	s.issued.add(p.value)
	s.count(AddPassword, performed)
}

func removePassword(x *exchange, _ settings) answer {
	var request struct {
		KeyID string `json:"keyId"`
	}
	if refused := x.read(&request); refused != nil {
		return *refused
	}
	if !x.sim.performRemove(RemovePassword, request.KeyID, (*Simulator).removePassword) {
		return *x.badRequest(fmt.Sprintf("No password credential found with keyId '%s'.", request.KeyID))
	}
	return x.noContent()
}

// performRemove removes a credential and counts that in one step.
func (s *Simulator) performRemove(op Operation, keyID string, remove func(*Simulator, string) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !remove(s, keyID) {
		return false
	}
	s.count(op, performed)
	return true
}
