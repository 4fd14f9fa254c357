// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rand"
	"encoding/base64"
	"slices"
)

// keyBytes is the size of the key in Microsoft's older documentation: its example has 88
// characters of padded base64.
const keyBytes = 64

// deploymentKey is the tenant's key, and the previous one for stale reads.
type deploymentKey struct {
	current, previous string
}

// Key returns the tenant's current deployment access key, which is never empty.
func (s *Simulator) Key() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key.current
}

// RegenerateInPortal replaces the key, as an administrator would in the Defender portal,
// and returns the new one. It counts as no call.
func (s *Simulator) RegenerateInPortal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replaceKey()
}

// CanRegister reports whether a sensor could be installed with this key: whether it is,
// byte by byte, the tenant's current one.
func (s *Simulator) CanRegister(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return key == s.key.current
}

// Issued returns every secret that the simulator has ever issued or accepted, oldest
// first: client secrets, access tokens, deployment keys. None of them may appear in a log
// or an error.
func (s *Simulator) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// performRegenerate replaces the key for a call of Graph. Concurrent calls run one after
// the other.
func (s *Simulator) performRegenerate() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(Regenerate, performed)
	return s.replaceKey()
}

// performGet returns the key that a call of Graph reads: the previous one while reads are
// stale.
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
	_, _ = rand.Read(raw) // never returns an error
	return base64.StdEncoding.EncodeToString(raw)
}

// issued is a list of secrets without duplicates.
type issued []string

func (i *issued) add(secret string) {
	if !slices.Contains(*i, secret) {
		*i = append(*i, secret)
	}
}
