// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"slices"
	"strings"
	"time"
)

// Credential describes one of the application's secrets or certificates.
type Credential struct {
	// Type is "secret" or "certificate".
	Type  string `json:"type"`
	KeyID string `json:"key_id"`
	// DisplayName is the subject's common name for a certificate.
	DisplayName string `json:"display_name"`
	// Thumbprint is a certificate's SHA-1 in upper-case hexadecimal.
	Thumbprint string    `json:"thumbprint,omitempty"`
	End        time.Time `json:"end"`
}

// Credentials returns the application's secrets and then its certificates, expired ones
// included, in the order in which they were added.
func (s *Simulator) Credentials() []Credential {
	t := s.current()
	var all []Credential
	for _, p := range t.passwords {
		all = append(all, Credential{Type: "secret", KeyID: p.keyID, DisplayName: p.name, End: p.end})
	}
	for _, c := range t.certificates {
		all = append(all, Credential{
			Type: "certificate", KeyID: c.keyID, DisplayName: c.Subject.CommonName,
			Thumbprint: thumbprint(c.Certificate), End: c.NotAfter,
		})
	}
	return all
}

// RemoveInPortal removes a secret or certificate, as an administrator would, and reports
// whether there was one with this id. It counts as no call.
func (s *Simulator) RemoveInPortal(keyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removePassword(keyID) || s.removeCertificate(keyID)
}

// removePassword reports whether there was such a secret. The caller holds s.mu.
func (s *Simulator) removePassword(keyID string) bool {
	before := s.settings.passwords
	s.settings.passwords = slices.DeleteFunc(slices.Clone(before), func(p password) bool {
		return strings.EqualFold(p.keyID, keyID)
	})
	return len(s.settings.passwords) < len(before)
}

// removeCertificate reports whether there was such a certificate. The caller holds s.mu.
func (s *Simulator) removeCertificate(keyID string) bool {
	before := s.settings.certificates
	s.settings.certificates = slices.DeleteFunc(slices.Clone(before), func(c certificate) bool {
		return strings.EqualFold(c.keyID, keyID)
	})
	return len(s.settings.certificates) < len(before)
}

// spread delays when a credential that Graph has just added works and is listed. The
// caller holds s.mu.
func (s *Simulator) spread(keyID string) {
	s.pending[keyID] = s.settings.propagation
	s.unlisted[keyID] = s.settings.listingLag
}

// listed reports whether the current read of the application finds a credential. Each
// read uses up one miss.
func (s *Simulator) listed(keyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlisted[keyID] == 0 {
		return true
	}
	s.unlisted[keyID]--
	return false
}

// propagated reports whether the current sign-in finds a valid credential. Each sign-in
// uses up one outcome.
func (s *Simulator) propagated(keyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcomes := s.pending[keyID]
	if len(outcomes) == 0 {
		return true
	}
	s.pending[keyID] = outcomes[1:]
	return outcomes[0]
}

// note adds a secret that the simulator did not make to those that must not leak.
func (s *Simulator) note(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued.add(secret)
}
