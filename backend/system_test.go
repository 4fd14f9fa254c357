// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// nodeIs changes the state of the node, and lets the engine forget the one before.
func (r *rig) nodeIs(state consts.ReplicationState) {
	r.system.set(func(core *logical.StaticSystemView) { core.ReplicationStateVal = state })
	r.clock.advance(systemFor)
}

// countingView counts the questions to core.
type countingView struct {
	logical.StaticSystemView
	states, locals int
}

func (v *countingView) ReplicationState() consts.ReplicationState {
	v.states++
	return v.ReplicationStateVal
}

func (v *countingView) LocalMount() bool {
	v.locals++
	return v.LocalMountVal
}

func TestCoreIsAskedWhetherToForwardOnceASecond(t *testing.T) {
	clock := &clock{at: time.Unix(0, 0)}
	core := &countingView{}
	s := &system{SystemView: core, now: clock.now}
	for second := 1; second <= 3; second++ {
		for range 10 {
			require.False(t, s.ReplicationState().HasState(mustForward))
			require.False(t, s.LocalMount())
		}
		require.Equal(t, []int{second, 0}, []int{core.states, core.locals})
		clock.advance(systemFor)
	}
	clock.advance(-time.Hour)
	s.LocalMount()
	require.Equal(t, 4, core.states, "the clock was put back")
}

// The mount's maximum is asked for once a minute, also by a clock that has been put back.
func TestTheMaximumIsAskedForOnceAMinute(t *testing.T) {
	clock := &clock{at: time.Unix(0, 0)}
	core := &countingView{}
	s := &system{SystemView: core, now: clock.now}
	for _, c := range []struct{ after, maximum, want time.Duration }{
		{0, 0, 0}, // core cannot be asked
		{0, 2 * time.Minute, 2 * time.Minute},
		{time.Minute - 1, 3 * time.Minute, 2 * time.Minute},
		{1, 3 * time.Minute, 3 * time.Minute},
		{-time.Hour, 4 * time.Minute, 4 * time.Minute},
		{2 * time.Minute, 48 * time.Hour, 48 * time.Hour},
	} {
		clock.advance(c.after)
		core.MaxLeaseTTLVal = c.maximum
		require.Equal(t, c.want, s.maxTTL())
	}
}

func TestANodeThatForwardsIsAskedEachTime(t *testing.T) {
	for _, state := range []consts.ReplicationState{
		consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary, consts.ReplicationDRSecondary,
	} {
		core := &countingView{StaticSystemView: logical.StaticSystemView{ReplicationStateVal: state}}
		s := &system{SystemView: core, now: time.Now}
		require.Equal(t, state, s.ReplicationState())
		core.ReplicationStateVal = consts.ReplicationUnknown
		require.Equal(t, consts.ReplicationUnknown, s.ReplicationState(), "the node has become the active one")
	}
}
