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
func (s *Simulator) Key() string { return s.KeyOf("") }

// KeyOf returns the current key of one of the tenants of [WithCustomers], or that of the
// application's home tenant.
func (s *Simulator) KeyOf(tenant string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keyOf(tenant).current
}

// keyOf returns the key of a tenant. The caller holds s.mu.
func (s *Simulator) keyOf(tenant string) *deploymentKey {
	key := s.customers[tenant]
	if key == nil {
		key = &s.key
	}
	return key
}

// RegenerateInPortal replaces the key, as an administrator would in the Defender portal,
// and returns the new one. It counts as no call.
func (s *Simulator) RegenerateInPortal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replaceKey(&s.key)
}

// CanRegister reports whether a sensor could be installed with this key: whether it is,
// byte by byte, the current one of the tenant, or of one of [WithCustomers].
func (s *Simulator) CanRegister(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opens(key)
}

// opens is CanRegister for a caller that holds s.mu.
func (s *Simulator) opens(key string) bool {
	for _, k := range s.customers {
		if key == k.current {
			return true
		}
	}
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
func (s *Simulator) performRegenerate(tenant string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(Regenerate, performed)
	return s.replaceKey(s.keyOf(tenant))
}

// performGet returns the key that a call of Graph reads: the previous one while reads are
// stale.
func (s *Simulator) performGet(tenant string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(Get, performed)
	key := s.keyOf(tenant)
	if s.settings.staleReads > 0 && key.previous != "" {
		s.settings.staleReads--
		return key.previous
	}
	return key.current
}

// replaceKey makes a new key current. The caller holds s.mu.
func (s *Simulator) replaceKey(key *deploymentKey) string {
	return s.setKey(key, newDeploymentKey())
}

// setKey makes a given key current. The caller holds s.mu.
func (s *Simulator) setKey(key *deploymentKey, value string) string {
	*key = deploymentKey{current: value, previous: key.current}
	s.issued.add(value)
	return value
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
