// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

// gate is an address through which the simulator is reached, or not at all.
type gate struct {
	t      *testing.T
	target string

	mu      sync.Mutex
	address string
	ln      net.Listener
	conns   []net.Conn
}

func openGate(t *testing.T, sim *graphtest.Simulator) *gate {
	t.Helper()
	g := &gate{t: t, target: strings.TrimPrefix(sim.URL(), "https://"), address: "127.0.0.1:0"}
	g.open()
	t.Cleanup(g.close)
	return g
}

func (g *gate) url() string { return "https://" + g.address }

// open listens, at the same address each time.
func (g *gate) open() {
	ln, err := new(net.ListenConfig).Listen(g.t.Context(), "tcp", g.address)
	require.NoError(g.t, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ln, g.address = ln, ln.Addr().String()
	go g.serve(ln)
}

// close refuses connections from now on, and breaks those that there are.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.ln.Close() // or is closed already
	for _, conn := range g.conns {
		_ = conn.Close() // likewise
	}
	g.conns = nil
}

func (g *gate) serve(ln net.Listener) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).DialContext(g.t.Context(), "tcp", g.target)
		if err != nil {
			_ = in.Close() // the client sees it
			continue
		}
		g.mu.Lock()
		g.conns = append(g.conns, in, out)
		g.mu.Unlock()
		go forward(in, out)
		go forward(out, in)
	}
}

func forward(to, from net.Conn) {
	_, _ = io.Copy(to, from) // until one of them is closed
	_ = to.Close()
}

// night lets ten hours pass in which a rotation is due and cannot happen, and checks
// that the status says so all the time and that nobody loses a key or a lease. It
// returns the number of attempts.
func (r *rig) night() (attempts int) {
	r.t.Helper()
	held := r.read(hosts)
	leases := r.status()[fieldLiveLeases]
	lines := len(r.log.String())
	for range 10 * 60 {
		r.tickFor(time.Minute)
		status := r.status()
		require.Equal(r.t, accesskey.WorkRotate, status[fieldDue].([]string)[0])
		require.Equal(r.t, "2027-02-28T20:00:00Z", status[fieldNextRotation], "it stays due")
		require.Equal(r.t, "rotation", status[fieldLastErrorCause])
		require.NotEmpty(r.t, status[fieldNextAttempt])
		require.Equal(r.t, leases, status[fieldLiveLeases])
		require.Equal(r.t, false, status[fieldIntentPending], "an outage of Graph is not made ours")
		attempts = status[fieldConsecutiveFailures].(int)
	}
	require.Equal(r.t, attempts, strings.Count(r.log.String()[lines:], "was not regenerated"), "one line for each attempt")
	again := r.read(hosts)
	require.Len(r.t, again.Warnings, 1, "it could not be compared")
	require.Equal(r.t, keyIn(held), keyIn(again))
	require.True(r.t, r.works(again))
	return attempts
}

// untilRotated tells after how many minutes the rotation happens.
func (r *rig) untilRotated() (minutes int) {
	r.t.Helper()
	posts := r.posts()
	for ; r.posts() == posts; minutes++ {
		require.Less(r.t, minutes, 120)
		r.tickFor(time.Minute)
	}
	status := r.status()
	require.Equal(r.t, "rotation", status[fieldCause])
	require.Equal(r.t, 0, status[fieldConsecutiveFailures])
	require.Empty(r.t, status[fieldDue])
	return minutes
}

// before20h is a mount a minute before its rotation is due, in a new process: it has
// no token.
func before20h(t *testing.T, fields map[string]any) *rig {
	t.Helper()
	r := scheduled(t, fields)
	r.read(hosts)
	r.tickFor(8*time.Hour - time.Minute)
	r.restart()
	return r
}

// Nobody listens where Graph and Entra are.
func TestNightWithoutANetwork(t *testing.T) {
	sim := graphtest.Start(t)
	r := newRig(t)
	r.sim = sim
	g := openGate(t, sim)
	r.write(configPath, r.config(map[string]any{config.FieldGraphEndpoint: g.url(), config.FieldAuthorityHost: g.url(), schedule.FieldCron: "0 20 * * *"}))
	r.write("roles/hosts", map[string]any{config.FieldTTL: "168h"})
	r.read(hosts)
	r.tickFor(8*time.Hour - time.Minute)
	r.restart()
	calls := sim.Calls(graphtest.Get).Started
	g.close()
	attempts := r.night()
	require.Greater(t, attempts, 15)
	require.Less(t, attempts, 30)
	require.Equal(t, calls, sim.Calls(graphtest.Get).Started)
	g.open()
	require.Equal(t, 1, r.untilRotated(), "within a minute of the network's return")
}

// Graph answers knocks, and nobody can sign in. Knocks tell nothing then, so that it
// can take until the next attempt.
func TestNightWithoutSignIn(t *testing.T) {
	r := before20h(t, map[string]any{schedule.FieldCron: "0 20 * * *"})
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 503, RetryAfter: "6"})
	tokens, gets := r.sim.Calls(graphtest.Token).Started, r.gets()
	attempts := r.night()
	require.Greater(t, attempts, 15)
	require.Less(t, attempts, 30)
	require.LessOrEqual(t, r.sim.Calls(graphtest.Token).Started-tokens, 2*attempts, "the key is compared as well")
	require.LessOrEqual(t, r.gets()-gets, 10*60, "probes, without a token")
	r.sim.Clear()
	require.LessOrEqual(t, r.untilRotated(), 36)
}

// With nothing due but the comparison of a key that is leased, a night costs no more.
func TestNightWithNothingButComparisons(t *testing.T) {
	r := scheduled(t, map[string]any{config.FieldTTL: "24h"})
	held := r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 503, RetryAfter: "6"})
	before := r.gets()
	r.tickFor(10 * time.Hour)
	require.Less(t, r.gets()-before, 30)
	require.Equal(t, "failed", r.status()[fieldDriftResult])
	require.True(t, r.works(held))
	r.sim.Clear()
	r.tickFor(40 * time.Minute)
	require.Equal(t, "unchanged", r.status()[fieldDriftResult])
}
