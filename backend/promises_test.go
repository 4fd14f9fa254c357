// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// fleet mounts an engine with hosts that share a key for a week.
func fleet(t *testing.T) *rig {
	t.Helper()
	return sharing(t, map[string]any{config.FieldTTL: "168h"})
}

// besideOthers has a test that mostly waits run beside others with -short. Otherwise each of
// them is large enough to make the others late.
func besideOthers(t *testing.T) {
	if testing.Short() {
		t.Parallel()
	}
}

// hostsGoOn lets hosts read again and again while time passes, each time after the given
// disturbance, and requires that each has a key that works.
func (r *rig) hostsGoOn(times int, step time.Duration, disturb func()) {
	r.t.Helper()
	if testing.Short() {
		times = min(times, 4)
	}
	for i := range times {
		r.clock.advance(step)
		disturb()
		began := time.Now()
		resp := r.read(hosts)
		require.Less(r.t, time.Since(began), 5*time.Second)
		require.True(r.t, r.works(resp), "read %d", i)
	}
}

// postFaults are the ways in which regenerating fails while Graph names the key; with -short,
// some of them.
func postFaults() map[string]graphtest.Fault {
	faults := map[string]graphtest.Fault{"lost": {Lost: true}, "reset": {Reset: true}, "old key": {Body: graphtest.BodyOldKey}}
	statuses := []int{403, 503, 307, 400, 401, 404, 408, 409, 429, 500, 502, 504}
	if testing.Short() {
		statuses = statuses[:2]
	}
	for _, status := range statuses {
		faults[fmt.Sprint(status)] = graphtest.Fault{Status: status}
		faults[fmt.Sprint(status, " of a proxy")] = graphtest.Fault{Status: status, Body: graphtest.BodyHTML}
	}
	return faults
}

// One reader who wants a new key and cannot get it costs the hosts nothing.
func TestHostsGoOnWhileAReaderFails(t *testing.T) {
	besideOthers(t)
	for name, fault := range postFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fleet(t)
			r.read(hosts)
			fault.Operation = graphtest.Regenerate
			r.sim.Inject(fault)
			_, err := r.tryKey()
			require.Error(t, err)
			r.hostsGoOn(30, 15*time.Second, func() {})
		})
	}
}

// Nor does one who repeats that as fast as possible.
func TestHostsGoOnWhileAReaderLoops(t *testing.T) {
	besideOthers(t)
	for name, fault := range postFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fleet(t)
			r.read(hosts)
			fault.Operation = graphtest.Regenerate
			r.sim.Inject(fault)
			ctx, stop := context.WithCancel(t.Context())
			var loop sync.WaitGroup
			loop.Go(func() {
				for ctx.Err() == nil {
					_, _ = r.request(t.Context(), logical.ReadOperation, keyPath, nil)
				}
			})
			r.hostsGoOn(15, time.Second, func() {})
			stop()
			loop.Wait()
			require.Less(t, r.sim.Calls(graphtest.Regenerate).Started, 60, "they are paced")
		})
	}
}

// Nor does a rotation that is due, for two hours.
func TestHostsGoOnWhileARotationFails(t *testing.T) {
	besideOthers(t)
	for name, fault := range postFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fleet(t)
			r.write(configPath, map[string]any{schedule.FieldPeriod: "24h"})
			r.read(hosts)
			r.clock.advance(24 * time.Hour)
			fault.Operation = graphtest.Regenerate
			r.sim.Inject(fault)
			r.hostsGoOn(30, 4*time.Minute, r.tick)
		})
	}
}

// A regeneration that hangs keeps hosts for two seconds.
func TestHostsGoOnWhileARegenerationHangs(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Latency: time.Hour})
	var done sync.WaitGroup
	done.Go(func() { _, _ = r.tryKey() })
	require.NoError(t, r.sim.Wait(t.Context(), graphtest.Regenerate, func(c graphtest.Calls) bool { return c.Started == 2 }))
	r.hostsGoOn(2, time.Second, func() {})
	r.sim.Clear()
	done.Wait()
}

// A proxy answers in Graph's place although Graph has done the work: no dead key is
// handed out.
func TestAnswerOfAProxyAfterTheWork(t *testing.T) {
	for _, status := range []int{307, 401, 403, 408, 409, 429, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := fleet(t)
			r.read(hosts)
			r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 2, Status: status, AfterWork: true, Body: graphtest.BodyHTML})
			r.fails(503, logical.ReadOperation, keyPath, nil)
			r.hostsGoOn(40, 15*time.Second, func() {})
		})
	}
}

// A POST that its gateway has given up is carried out later: short leases bound for how
// long a host holds the key that it replaces, and none is handed out for more than ten
// seconds after.
func TestRegenerationThatIsCarriedOutLate(t *testing.T) {
	r := fleet(t)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Reset: true, Stubborn: true, Latency: time.Hour, Times: 1})
	_, _, err := r.engine.keys.Apply(t.Context(), accesskey.Event{Kind: accesskey.Wanted})
	require.NoError(t, err)
	r.tick()
	r.clock.advance(46 * time.Second)
	held := r.read(hosts)
	require.True(t, r.works(held))
	require.LessOrEqual(t, held.Secret.TTL, accesskey.ShortTTL)
	r.sim.Clear()
	r.eventually("it is carried out", func() bool { return !r.works(held) })
	r.clock.advance(10 * time.Second)
	r.hostsGoOn(60, 15*time.Second, func() {})
}

// Whatever one client repeats that is refused, Graph and storage have peace.
func TestRefusedReadsAreCheap(t *testing.T) {
	r := fleet(t)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403})
	var puts atomic.Int32
	r.storage.FailWhen(func(op, _ string) bool {
		if op == "put" {
			puts.Add(1)
		}
		return false
	})
	for range 500 {
		_, err := r.request(t.Context(), logical.ReadOperation, hosts, nil)
		require.Error(t, err)
	}
	require.Equal(t, 1, r.sim.Calls(graphtest.Regenerate).Started)
	require.Less(t, puts.Load(), int32(10))
}

// A Retry-After of ten years, such as on a maintenance page, does not disarm the
// break-glass, and a verified write of the configuration forgets it.
func TestRetryAfterDoesNotDisarmRotateKey(t *testing.T) {
	r := fleet(t)
	leaked := r.read(hosts)
	throttle := graphtest.Fault{Operation: graphtest.Regenerate, Status: 503, RetryAfter: "315360000", Times: 1}
	r.sim.Inject(throttle)
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.write(rotateKeyPath, nil)
	require.False(t, r.works(leaked))

	r.sim.Inject(throttle)
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.fails(503, logical.ReadOperation, keyPath, nil)
	r.write(configPath, map[string]any{config.FieldVerifyConnection: true})
	require.True(t, r.works(r.key()))
}

// rotate-key does not need Graph's GET.
func TestRotateKeyWithoutTheGET(t *testing.T) {
	r := fleet(t)
	leaked := r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 500})
	r.write(rotateKeyPath, nil)
	require.False(t, r.works(leaked))
}

// A reader who arrives while the key is retired with its configuration gets none.
func TestReadersDuringConfigDelete(t *testing.T) {
	for name, turn := range map[string]func(r *rig) (*logical.Response, error){
		"delete": func(r *rig) (*logical.Response, error) {
			return r.request(r.t.Context(), logical.DeleteOperation, configPath, nil)
		},
		"another tenant": func(r *rig) (*logical.Response, error) {
			return r.request(r.t.Context(), logical.UpdateOperation, configPath, configOf(graphtest.Start(r.t)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := fleet(t)
			r.read(hosts)
			ctx, stop := context.WithCancel(t.Context())
			var (
				loops sync.WaitGroup
				mu    sync.Mutex
				given = []*logical.Response{}
			)
			for i := range 16 {
				path := []string{hosts, keyPath}[i/12]
				loops.Go(func() {
					for ctx.Err() == nil {
						if resp, err := r.request(t.Context(), logical.ReadOperation, path, nil); err == nil {
							mu.Lock()
							given = append(given, resp)
							mu.Unlock()
						}
					}
				})
			}
			time.Sleep(50 * time.Millisecond) // the loops are in full swing
			resp, err := turn(r)
			stop()
			require.NoError(t, err)
			loops.Wait()
			if resp != nil {
				require.Empty(t, resp.Warnings)
			}
			for _, held := range given {
				require.False(t, r.works(held), "it belongs to the tenant that was left")
			}
		})
	}
}

// The write of the intent fails and is carried out: Graph was not asked, and hosts go on.
func TestIntentThatIsStoredAndReportedAsFailed(t *testing.T) {
	r := fleet(t)
	r.read(hosts)
	r.storage.LieWhen(storagetest.Nth(1, "put", accesskey.StorageKey))
	_, err := r.tryKey()
	require.Error(t, err)
	require.Equal(t, 1, r.sim.Calls(graphtest.Regenerate).Started)
	require.True(t, r.works(r.read(hosts)))
	require.Equal(t, false, r.status()[fieldIntentPending])
}

// The withdrawal of the intent fails: Graph has refused, and hosts go on.
func TestWithdrawalThatCannotBeStored(t *testing.T) {
	r := fleet(t)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 403, Times: 1})
	r.storage.FailWhen(storagetest.Nth(2, "put", accesskey.StorageKey))
	_, err := r.tryKey()
	require.ErrorContains(t, err, "403")
	require.True(t, r.works(r.read(hosts)))
}

// A reader who hangs up while the lease is being stored keeps no key alive.
func TestReaderWhoHangsUpKeepsNoKeyAlive(t *testing.T) {
	r := fleet(t)
	held := r.read(hosts)
	r.storage.Storage = &storagetest.Slow{Storage: r.storage.Storage, Takes: 30 * time.Millisecond, Heeds: true}
	for range 20 {
		ctx, hangUp := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := r.request(ctx, logical.ReadOperation, hosts, nil)
		hangUp()
		require.Error(t, err)
	}
	r.revoke(held)
	r.eventually("the key is dead", func() bool { return !r.works(held) })
}

// No handler outlasts its bound because storage is slow, whoever else it is slow for.
func TestSlowStorageHoldsNobodyBeyondTheirBound(t *testing.T) {
	besideOthers(t)
	slow := []time.Duration{3 * time.Second, 5 * time.Second, 8 * time.Second, 10 * time.Second}
	if testing.Short() {
		slow = []time.Duration{time.Second}
	}
	for _, by := range slow {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			r := fleet(t)
			r.read(hosts)
			r.restart()
			r.storage.Storage = &storagetest.Slow{Storage: r.storage.Storage, Takes: by, Heeds: true}
			var done sync.WaitGroup
			do := func(what string, operation logical.Operation, path string) {
				done.Go(func() {
					began := time.Now()
					_, _ = r.engine.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: path, Storage: r.storage})
					if took := time.Since(began); took > requestBudget+time.Second {
						t.Errorf("%s took %s", what, took)
					}
				})
			}
			for i := range 4 {
				do("rotate-key", logical.UpdateOperation, rotateKeyPath)
				do("status", logical.ReadOperation, statusPath)
				do("a read", logical.ReadOperation, hosts)
				do("a tick", logical.RollbackOperation, "")
				time.Sleep(time.Duration(i) * 500 * time.Millisecond) // they begin at different moments
			}
			done.Wait()
		})
	}
}

// Graph answers once at the beginning of an outage, is away for half an hour, and comes
// back: the key is dead within a minute of that.
func TestOutageThatFlaps(t *testing.T) {
	besideOthers(t)
	r := fleet(t)
	held := r.read(hosts)
	outage := graphtest.Fault{Status: 503, Body: graphtest.BodyHTML}
	r.sim.Inject(outage)
	r.revoke(held)
	r.eventually("the retirement fails", func() bool { return r.status()[fieldConsecutiveFailures] == 1 })
	r.sim.Clear()
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 401, Times: 1}, outage) // a probe is answered
	r.clock.advance(30 * time.Second)
	r.tick()
	minutes := 31
	if testing.Short() {
		minutes = 4
	}
	for range minutes {
		r.clock.advance(time.Minute)
		r.tick()
	}
	require.True(t, r.works(held))
	r.sim.Clear()
	r.clock.advance(time.Minute)
	r.tick()
	require.False(t, r.works(held))
}

// Readers in doubt share one GET.
func TestDoubtMakesNoStorm(t *testing.T) {
	besideOthers(t)
	r := fleet(t)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Status: 504}, graphtest.Fault{Operation: graphtest.Get, Status: 500})
	_, err := r.tryKey()
	require.Error(t, err)
	before, lines := r.gets(), len(r.log.String())
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 100 {
				_, _ = r.request(t.Context(), logical.ReadOperation, hosts, nil)
			}
		})
	}
	readers.Wait()
	require.LessOrEqual(t, r.gets()-before, 3)
	require.Less(t, len(r.log.String())-lines, 4000)
	require.Contains(t, r.status()[fieldLastErrorCode], "Gateway", "the evidence is kept")
}

// A pause that has been acknowledged holds.
func TestNoRetirementAfterItHasBeenPaused(t *testing.T) {
	r := fleet(t)
	held := r.read(hosts)
	entered, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.storage.FailWhen(func(op, key string) bool {
		if op == "put" && key == config.StorageKey {
			once.Do(func() { close(entered); <-goOn })
		}
		return false
	})
	acknowledged := make(chan struct{})
	go func() {
		defer close(acknowledged)
		r.write(configPath, map[string]any{fieldDisableAutomatedRotation: true})
	}()
	<-entered
	revoked := make(chan struct{})
	go func() { defer close(revoked); r.revoke(held) }()
	close(goOn)
	<-acknowledged
	<-revoked
	posts := r.posts()
	r.idle()
	r.tick()
	require.LessOrEqual(t, r.posts(), posts)
}
