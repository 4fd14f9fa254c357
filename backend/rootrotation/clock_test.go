// SPDX-License-Identifier: MPL-2.0

package rootrotation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// while does something while the clock is wrong, and puts it right.
func (e *engine) while(off time.Duration, do func()) {
	e.shift(off)
	do()
	e.shift(-off)
	e.restart()
}

// shift puts the clock forward or back.
func (e *engine) shift(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at = e.at.Add(d)
}

// within requires that something holds before long, doing each minute what is due, or each
// quarter of an hour if it is about a day.
func (e *engine) within(longest time.Duration, holds func() bool) {
	e.t.Helper()
	step := time.Minute
	if longest > 2*time.Hour {
		step = 15 * time.Minute
	}
	for waited := time.Duration(0); !holds(); waited += step {
		require.Less(e.t, waited, longest+step)
		e.pass(step)
	}
}

// What a node has stored while its clock was wrong lets nothing wait longer than usual
// once the clock is right.
func TestClockThatWasWrong(t *testing.T) {
	const period = 24 * time.Hour
	longestRetry := health.LastRetry * 6 / 5
	for name, test := range map[string]func(e *engine, off time.Duration){
		"a failure": func(e *engine, off time.Duration) {
			e.configure(map[string]any{config.FieldRootRotationPeriod: "24h"})
			e.while(off, func() {
				e.sim.Inject(graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, Status: 403})
				_, err := e.rotator.Rotate(e.ctx)
				require.Error(e.t, err)
			})
			e.within(period+longestRetry, func() bool { return e.own() == 1 })
			require.Zero(e.t, e.stored().Root.Failures)
		},
		"a failure of what is due": func(e *engine, off time.Duration) {
			e.loses(graphtest.Fault{Reset: true})
			e.rotate() // it is wanted from now on
			e.pass(credential.ListingLag)
			e.sim.Inject(graphtest.Fault{Operation: graphtest.AddPassword, Times: 8, Status: 429, RetryAfter: "60"})
			e.while(off, func() { e.hours(4) })
			e.shift(-4 * time.Hour) // by the right clock, no time has passed
			e.sim.Clear()
			e.within(longestRetry, func() bool { return e.own() == 1 })
		},
		"a rotation": func(e *engine, off time.Duration) {
			e.configure(map[string]any{config.FieldRootRotationPeriod: "24h"})
			e.rotate()
			e.pass(credential.Grace)
			e.while(off, func() { require.Empty(e.t, e.rotate()) })
			require.Equal(e.t, 2, e.own())
			added := e.sim.Calls(graphtest.AddPassword).Performed
			e.within(credential.Grace, func() bool { return e.status().Retiring == 0 || added < e.sim.Calls(graphtest.AddPassword).Performed })
			e.within(period, func() bool { return e.sim.Calls(graphtest.AddPassword).Performed > added })
			e.within(credential.Grace+time.Minute, func() bool { return e.own() == 1 })
		},
		"a lost answer": func(e *engine, off time.Duration) {
			e.while(off, func() { e.loses(graphtest.Fault{Reset: true, AfterWork: true}) })
			e.within(longestRetry, func() bool { return e.own() == 0 })
		},
		"one that never works": func(e *engine, off time.Duration) {
			e.sim.Update(graphtest.WithPropagation(100000))
			e.while(off, func() { require.NotEmpty(e.t, e.rotate()) })
			e.sim.Update(graphtest.WithPropagation())
			for range 8 {
				e.hours(1)
			}
			require.False(e.t, e.status().Unfinished)
			require.Zero(e.t, e.own())
		},
	} {
		for _, off := range []time.Duration{time.Hour, 24 * time.Hour, 400 * 24 * time.Hour, -time.Hour, -400 * 24 * time.Hour} {
			t.Run(fmt.Sprint(name, " ", off), func(t *testing.T) {
				e := start(t, secret)
				test(e, off)
				e.works()
			})
		}
	}
}
