// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/role"
)

// systemFor is how long core's answers are remembered.
const systemFor = time.Second

// mustForward are the states in which a node has the active one do the work.
const mustForward = consts.ReplicationPerformanceStandby | consts.ReplicationPerformanceSecondary | consts.ReplicationDRSecondary

// system is core's view of the mount. Before each request the framework asks core whether to
// forward it: two calls between processes, a fifth of the plugin's work for a shared read.
// That it need not is remembered for a moment. If that has changed since, the first write
// fails, before Graph is asked for anything.
type system struct {
	logical.SystemView
	now  func() time.Time
	last atomic.Pointer[place]

	defaultTTL atomic.Int64 // default-lease-ttl, when maxTTL last asked for it
	toldOfIt   atomic.Bool  // a reader has been told that it has no effect
}

// place is what core says of the node and the mount.
type place struct {
	at    time.Time
	state consts.ReplicationState
	local bool
}

func (s *system) ask() place {
	if last := s.last.Load(); last != nil {
		if age := s.now().Sub(last.at); age >= 0 && age < systemFor {
			return *last
		}
	}
	found := place{s.now(), s.SystemView.ReplicationState(), s.SystemView.LocalMount()}
	if !found.state.HasState(mustForward) {
		s.last.Store(&found)
	}
	return found
}

// ReplicationState implements logical.SystemView.
func (s *system) ReplicationState() consts.ReplicationState { return s.ask().state }

// LocalMount implements logical.SystemView.
func (s *system) LocalMount() bool { return s.ask().local }

// maxTTL asks core for the mount's maximum lease TTL and, until a reader has been told that
// it has no effect, for the default. That is once a minute: readers do not wait for core.
func (s *system) maxTTL() time.Duration {
	if !s.toldOfIt.Load() {
		s.defaultTTL.Store(int64(s.DefaultLeaseTTL()))
	}
	return s.MaxLeaseTTL()
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
