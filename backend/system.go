// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
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
