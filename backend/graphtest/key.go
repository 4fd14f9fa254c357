// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rand"
	"encoding/base64"
	"slices"
)

// keyBytes is the size of the key in Microsoft's older documentation, whose
// example has 88 characters of padded base64.
const keyBytes = 64

// deploymentKey is the tenant's one key, and the one before it for the sake of
// stale reads.
type deploymentKey struct {
	current, previous string
}

// Key is the tenant's current deployment access key. It is never empty.
func (s *Simulator) Key() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key.current
}

// RegenerateInPortal replaces the key as an administrator does in the Defender
// portal, behind everybody's back, and returns the new one. It counts as no call.
func (s *Simulator) RegenerateInPortal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replaceKey()
}

// CanRegister tells whether a sensor could be installed with this key: whether
// it is, byte for byte, the tenant's current one.
func (s *Simulator) CanRegister(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return key == s.key.current
}

// Issued returns every secret that the simulator has ever issued or accepted,
// oldest first: client secrets, access tokens, deployment keys. None of them
// belongs into a log or an error.
func (s *Simulator) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// performRegenerate replaces the key for a call of Graph. Two calls at a time
// come one after the other.
func (s *Simulator) performRegenerate() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(Regenerate, performed)
	return s.replaceKey()
}

// performGet is the key that a call of Graph reads: the one before, while Graph
// is stale.
func (s *Simulator) performGet() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(Get, performed)
	if s.settings.staleReads > 0 && s.key.previous != "" {
		s.settings.staleReads--
		return s.key.previous
	}
	return s.key.current
}

// replaceKey makes a new key current. The caller holds s.mu.
func (s *Simulator) replaceKey() string {
	return s.setKey(newDeploymentKey())
}

// setKey makes a given key current. The caller holds s.mu.
func (s *Simulator) setKey(key string) string {
	s.key = deploymentKey{current: key, previous: s.key.current}
	s.issued.add(key)
	return key
}

func newDeploymentKey() string {
	raw := make([]byte, keyBytes)
	_, _ = rand.Read(raw) // fails never, or crashes the program
	return base64.StdEncoding.EncodeToString(raw)
}

// issued is a list of secrets without repetition.
type issued []string

func (i *issued) add(secret string) {
	if !slices.Contains(*i, secret) {
		*i = append(*i, secret)
	}
}
