// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/role"
)

const (
	// systemFor is how long core's answers about the node are remembered.
	systemFor = time.Second

	// maxTTLFor is how long the mount's maximum lease TTL is remembered: asking core for it
	// takes longer than anything else in a shared read but one. Core caps the lease in any
	// case; for as long, the ledger's records may end too late.
	maxTTLFor = time.Minute
)

// mustForward are the states in which a node has the active one do the work.
const mustForward = consts.ReplicationPerformanceStandby | consts.ReplicationPerformanceSecondary | consts.ReplicationDRSecondary

// system is core's view of the mount. Before each request the framework asks core whether to
// forward it: two calls between processes, a fifth of the plugin's work for a shared read.
// That it need not is remembered for a moment. If that has changed since, the first write
// fails, before Graph is asked for anything.
type system struct {
	logical.SystemView
	now   func() time.Time
	place remembered[place]
	limit remembered[time.Duration]

	defaultTTL atomic.Int64 // default-lease-ttl, when maxTTL last asked for it
	toldOfIt   atomic.Bool  // a reader has been told that it has no effect
}

// place is what core says of the node and the mount.
type place struct {
	state consts.ReplicationState
	local bool
}

// remembered is an answer of core's, and when it was asked for.
type remembered[T any] struct{ last atomic.Pointer[said[T]] }

type said[T any] struct {
	value T
	at    time.Time
}

// get returns the answer of less than d ago, or asks for another, which it keeps if that may
// be remembered. Several may ask at once: core may be slow.
func (r *remembered[T]) get(now time.Time, d time.Duration, ask func() (value T, keep bool)) T {
	last := cmp.Or(r.last.Load(), &said[T]{})
	if age := now.Sub(last.at); age >= 0 && age < d {
		return last.value
	}
	value, keep := ask()
	if keep {
		r.last.Store(&said[T]{value, now})
	}
	return value
}

func (s *system) ask() place {
	return s.place.get(s.now(), systemFor, func() (place, bool) {
		found := place{s.SystemView.ReplicationState(), s.SystemView.LocalMount()}
		return found, !found.state.HasState(mustForward)
	})
}

// ReplicationState implements logical.SystemView.
func (s *system) ReplicationState() consts.ReplicationState { return s.ask().state }

// LocalMount implements logical.SystemView.
func (s *system) LocalMount() bool { return s.ask().local }

// maxTTL returns the mount's maximum lease TTL, 0 if core cannot be asked. Until a reader has
// been told that it has no effect, it asks for the default as well. That is once a minute:
// readers do not wait for core.
func (s *system) maxTTL() time.Duration {
	return s.limit.get(s.now(), maxTTLFor, func() (time.Duration, bool) {
		if !s.toldOfIt.Load() {
			s.defaultTTL.Store(int64(s.DefaultLeaseTTL()))
		}
		limit := s.MaxLeaseTTL()
		return limit, limit != 0
	})
}

// warningOfDefault returns a warning, once, if Vault's default of default-lease-ttl was
// replaced. By whom cannot be told.
func (s *system) warningOfDefault(ttl time.Duration) string {
	tuned := time.Duration(s.defaultTTL.Load())
	if tuned == 768*time.Hour || tuned == ttl || !s.toldOfIt.CompareAndSwap(false, true) {
		return ""
	}
	return fmt.Sprintf("default-lease-ttl of this mount or server (%s) has no effect on the key: the lease lasts for the %s of %s or of the role. This is said once.", tuned, config.FieldTTL, configPath)
}

// warningOfMax returns a warning if leases are to last longer than the mount allows.
func (s *system) warningOfMax(ttl time.Duration) string {
	limit := s.MaxLeaseTTL()
	if ttl <= limit {
		return ""
	}
	return fmt.Sprintf("%s is longer than the mount's maximum lease TTL, so leases will last %s", role.FieldTTL, limit)
}
