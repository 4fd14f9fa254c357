// SPDX-License-Identifier: MPL-2.0

package accesskey_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

var (
	home   = accesskey.Workspace{TenantID: "home", GraphRoot: "https://graph.microsoft.com"}
	abroad = accesskey.Workspace{TenantID: "abroad", GraphRoot: "https://graph.microsoft.com"}

	shared = accesskey.Terms{TTL: time.Hour, MaxAge: accesskey.AnyAge}
	alone  = accesskey.Terms{TTL: time.Hour}
)

// rig is a store on a storage that fails on demand, configured for a workspace, and its
// clock. The shortest test:
//
//	r := newRig(t)
//	r.regenerated("a")
//	require.Equal(t, "a", r.lease(shared).Record.Key)
type rig struct {
	t       *testing.T
	storage *storagetest.Storage
	store   *accesskey.Store
	now     time.Time
	at      accesskey.Workspace // that is configured
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, storage: storagetest.New(), now: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)}
	r.restart()
	return r
}

// restart forgets all that is not stored.
func (r *rig) restart() {
	r.store = accesskey.New(r.storage, func() time.Time { return r.now })
	r.configure(accesskey.Policy{Workspace: home, DriftCheckInterval: 10 * time.Minute, Retire: true})
}

func (r *rig) configure(p accesskey.Policy) {
	r.t.Helper()
	r.at = p.Workspace
	r.apply(accesskey.Event{Kind: accesskey.Configured, Policy: p})
}

func (r *rig) apply(e accesskey.Event) (accesskey.Record, string) {
	r.t.Helper()
	rec, finding, err := r.store.Apply(r.t.Context(), e)
	require.NoError(r.t, err)
	return rec, finding
}

// happen applies events that have nothing but a kind.
func (r *rig) happen(kinds ...string) {
	r.t.Helper()
	for _, kind := range kinds {
		r.apply(accesskey.Event{Kind: kind, Posts: r.store.Posts(), Workspace: r.at})
	}
}

func (r *rig) fails(want error, e accesskey.Event) {
	r.t.Helper()
	_, _, err := r.store.Apply(r.t.Context(), e)
	require.ErrorIs(r.t, err, want)
}

func (r *rig) compared(key string) string {
	r.t.Helper()
	_, finding := r.apply(accesskey.Event{Kind: accesskey.Compared, Key: key, Posts: r.store.Posts(), Workspace: r.at})
	return finding
}

func (r *rig) regenerated(key string) accesskey.Record {
	r.t.Helper()
	r.happen(accesskey.Begun)
	rec, _ := r.apply(accesskey.Event{Kind: accesskey.Answered, Key: key, Cause: accesskey.CauseManual})
	return rec
}

func (r *rig) lease(t accesskey.Terms) *accesskey.Lease {
	r.t.Helper()
	l, err := r.store.Lease(r.t.Context(), t)
	require.NoError(r.t, err)
	return l
}

func (r *rig) refused(want error, t accesskey.Terms) {
	r.t.Helper()
	l, err := r.store.Lease(r.t.Context(), t)
	require.ErrorIs(r.t, err, want)
	require.Nil(r.t, l)
}

func (r *rig) record() accesskey.Record {
	r.t.Helper()
	rec, err := r.store.Record(r.t.Context())
	require.NoError(r.t, err)
	return rec
}

func (r *rig) live() int {
	r.t.Helper()
	n, err := r.store.Live(r.t.Context())
	require.NoError(r.t, err)
	return n
}

func (r *rig) due() []string {
	r.t.Helper()
	_, due, err := r.store.Due(r.t.Context())
	require.NoError(r.t, err)
	return due
}

func (r *rig) revoke(l *accesskey.Lease) error {
	_, err := r.store.Revoke(r.t.Context(), l.Record.Version, l.ID)
	return err
}

// fail makes the next write of the record fail, carried out or not.
func (r *rig) fail(carriedOut bool) {
	next := storagetest.Nth(1, "put", accesskey.StorageKey)
	if carriedOut {
		r.storage.LieWhen(next)
	} else {
		r.storage.FailWhen(next)
	}
}

// A lease is on record, and its key counts as disclosed, before the key is returned.
func TestLeaseIsStoredBeforeItIsReturned(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	first := r.lease(shared)
	require.Equal(t, time.Hour, first.TTL)
	require.Equal(t, "a", first.Record.Key)
	require.True(t, first.Record.Disclosed)
	r.restart()
	require.True(t, r.record().Disclosed)
	require.Equal(t, 1, r.live())
	second := r.lease(shared)
	require.NotEqual(t, first.ID, second.ID)
	require.Equal(t, first.Record, second.Record)
	require.Equal(t, 2, r.live())

	r.now = r.now.Add(time.Hour + lease.Grace - time.Nanosecond)
	require.Equal(t, 2, r.live())
	r.now = r.now.Add(lease.PageSpan)
	require.Zero(t, r.live())
}

func TestLeaseSaysWhatHasToHappenFirst(t *testing.T) {
	r := newRig(t)
	r.refused(accesskey.ErrRegenerateFirst, shared)
	r.regenerated("a")
	r.lease(shared)
	r.refused(accesskey.ErrRegenerateFirst, alone)
	r.now = r.now.Add(10 * time.Minute)
	r.refused(accesskey.ErrCompareFirst, shared)
	r.compared("a")
	require.Equal(t, r.now, r.record().ComparedAt)
	r.lease(shared)

	r.happen(accesskey.Begun)
	r.refused(accesskey.ErrWaitFirst, shared)
	r.refused(accesskey.ErrRegenerateFirst, alone)
	r.happen(accesskey.Lost)
	r.refused(accesskey.ErrCompareFirst, shared)
	r.happen(accesskey.Unnamed)
	r.refused(accesskey.ErrInDoubt, shared)
	r.now = r.now.Add(time.Minute)
	r.compared("a")
	l := r.lease(shared)
	require.True(t, l.Short)
	require.False(t, l.Unconfirmed)
	require.Equal(t, accesskey.ShortTTL, l.TTL)
	r.happen(accesskey.Unnamed)
	require.True(t, r.lease(shared).Unconfirmed)
	require.Equal(t, time.Minute, r.lease(accesskey.Terms{TTL: time.Minute, MaxAge: accesskey.AnyAge}).TTL)
}

// While the engine turns away from a workspace, or the mount goes away, nothing leaves it.
func TestNothingIsHandedOutBehindAClosedDoor(t *testing.T) {
	for kinds, want := range map[[2]string]error{
		{accesskey.Closed, accesskey.Reopened}: accesskey.ErrClosed,
		{accesskey.Turning, accesskey.Turned}:  accesskey.ErrTurning,
	} {
		r := newRig(t)
		r.regenerated("a")
		for range 2 { // a key that was not handed out before, and one that was
			r.happen(kinds[0])
			r.refused(want, shared)
			r.refused(want, alone)
			r.happen(kinds[1])
			r.lease(shared)
		}
		r.happen(kinds[0])
		require.Equal(t, []string{accesskey.WorkRetire}, r.due(), "whatever is leased")
		r.restart()
		r.lease(shared)
	}
}

// A key is served for the workspace that it came from and no other.
func TestLeaseIsOfTheConfiguredWorkspace(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	held := r.lease(shared)
	r.configure(accesskey.Policy{Workspace: abroad, Retire: true})
	r.refused(accesskey.ErrRegenerateFirst, shared)
	require.Equal(t, accesskey.Record{Version: 1, Newest: 1, Workspace: abroad, Salt: held.Record.Salt}, r.record())
	r.configure(accesskey.Policy{})
	require.Equal(t, held.Record, r.record(), "without a configuration it is that of the workspace before")
	r.refused(accesskey.ErrUnconfigured, shared)
	require.Empty(t, r.due())
	r.configure(accesskey.Policy{Workspace: abroad})
	require.Equal(t, 2, r.regenerated("b").Version)
	r.configure(accesskey.Policy{Workspace: home})
	require.Empty(t, r.record().Key)
	require.NoError(t, r.revoke(held))
}

// The watch of a workspace outlives it.
func TestWatchOutlivesTheConfiguration(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.happen(accesskey.Begun, accesskey.Lost)
	r.configure(accesskey.Policy{Workspace: abroad})
	r.regenerated("b")
	r.configure(accesskey.Policy{Workspace: home})
	require.NotZero(t, r.record().Watch)
	r.regenerated("c")
	require.NotZero(t, r.record().Watch)
}

func TestLeaseThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.regenerated("a")
		for _, failing := range []func(string, string) bool{
			storagetest.Nth(1, "get", accesskey.StorageKey),
			storagetest.Nth(1, "put", lease.Prefix),
			storagetest.Nth(1, "put", accesskey.StorageKey),
		} {
			r.restart()
			r.storage.FailWhen(failing)
			r.refused(storagetest.ErrBroken, shared)
			synctest.Wait() // the record of the lease is discarded
			require.Zero(t, r.live())
			require.False(t, r.record().Disclosed)
		}
		r.lease(shared)
		r.storage.FailWhen(storagetest.Nth(1, "put", lease.Prefix))
		r.refused(storagetest.ErrBroken, shared)
		require.Equal(t, 1, r.live())
	})
}

// leaver is the context of a reader who leaves at the last moment: nothing has noticed it
// when the lease has been stored.
type leaver struct {
	context.Context
	left atomic.Bool
}

func (c *leaver) Done() <-chan struct{} { return nil }

func (c *leaver) Err() error {
	if c.left.Load() {
		return context.Canceled
	}
	return nil
}

// The record of a lease does not outlive a reader who has left.
func TestLeaseOfAReaderWhoHasLeftIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.regenerated("a")
		for range 2 { // a key that was not handed out before, and one that was
			reader := &leaver{Context: t.Context()}
			r.storage.FailWhen(func(op, _ string) bool {
				if op == "put" {
					reader.left.Store(true)
				}
				return false
			})
			l, err := r.store.Lease(reader, shared)
			require.ErrorIs(t, err, context.Canceled)
			require.Nil(t, l)
			synctest.Wait()
			require.Zero(t, r.live())
			require.True(t, r.record().Disclosed, "the key may have left the engine")
		}
	})
}

func TestRevoke(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	old := r.lease(shared)
	r.regenerated("b")
	held := r.lease(shared)
	r.storage.FailWhen(storagetest.Nth(1, "delete", lease.Prefix))
	mayBeLast, err := r.store.Revoke(t.Context(), 1, old.ID)
	require.NoError(t, err, "superseded versions are dropped as a whole")
	require.False(t, mayBeLast)
	mayBeLast, err = r.store.Revoke(t.Context(), 99, "0-x.0")
	require.NoError(t, err)
	require.True(t, mayBeLast)
	require.ErrorIs(t, r.revoke(held), storagetest.ErrBroken)
	require.Zero(t, r.live(), "it is removed later")
	r.configure(accesskey.Policy{})
	for range 2 {
		require.NoError(t, r.revoke(held))
	}
	require.Zero(t, r.live())
	r.restart()
	r.storage.FailWhen(storagetest.Nth(1, "get", accesskey.StorageKey))
	require.ErrorIs(t, r.revoke(held), storagetest.ErrBroken)
}

// The leases on a displaced version stay: it may be the record again.
func TestLeasesOnADisplacedVersionStay(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	held := r.lease(shared)
	require.Equal(t, accesskey.CauseExternal, r.compared("x"))
	require.NoError(t, r.store.Prune(t.Context()))
	require.Equal(t, accesskey.Returned, r.compared("a"))
	require.Equal(t, 1, r.live())
	require.NotContains(t, r.due(), accesskey.WorkRetire)
	r.compared("x")
	mayBeLast, err := r.store.Revoke(t.Context(), held.Record.Version, held.ID)
	require.NoError(t, err)
	require.True(t, mayBeLast)
	require.NotContains(t, r.due(), accesskey.WorkRetire)
	r.happen(accesskey.Unnamed)
	require.Contains(t, r.due(), accesskey.WorkRetire, "nothing says which version lives")
}

func TestPruneDropsWhatHasEndedOrIsSuperseded(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.lease(shared)
	r.regenerated("b")
	r.lease(shared)
	stored := func() int {
		keys, err := logical.CollectKeysWithPrefix(t.Context(), r.storage, lease.Prefix)
		require.NoError(t, err)
		return len(keys)
	}
	for _, want := range []int{2, 1, 0} {
		require.Equal(t, want, stored())
		require.NoError(t, r.store.Prune(t.Context()))
		r.now = r.now.Add(2 * time.Hour)
	}
}

// After a crash the stored record counts, and the leases on its version.
func TestPruneGoesByAStoredRecord(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.lease(shared)
	r.happen(accesskey.Begun)
	r.fail(false)
	r.fails(storagetest.ErrBroken, accesskey.Event{Kind: accesskey.Answered, Key: "b"})
	r.fail(false)
	require.ErrorIs(t, r.store.Prune(t.Context()), storagetest.ErrBroken)
	prunes := r.store
	r.restart()
	require.Equal(t, 1, r.live())

	r.store = prunes
	require.NoError(t, r.store.Prune(t.Context()))
	r.restart()
	require.Equal(t, 2, r.record().Version)
}

// What a clock ahead has left is corrected once, not by each process anew: the key would be
// as young as the process.
func TestTickStoresWhatAClockAheadHasLeft(t *testing.T) {
	r := newRig(t)
	right := r.now
	r.now = right.Add(24 * time.Hour)
	r.regenerated("a")
	r.now = right
	require.NoError(t, r.store.Prune(t.Context()))
	r.now = right.Add(2 * time.Hour)
	r.restart()
	require.Equal(t, right, r.record().RegeneratedAt)
}

func TestApplySaysWhatItHasMadeOfTheRecord(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.happen(accesskey.Wanted, accesskey.Begun)
	require.True(t, r.record().Intent.UnderWay)
	rec, _ := r.apply(accesskey.Event{Kind: accesskey.Answered, Key: "b", Cause: accesskey.CauseManual})
	require.Equal(t, 2, rec.Version)
	require.Zero(t, rec.Intent)
	require.Empty(t, r.due())
	r.restart()
	require.Equal(t, 2, r.record().Version)
	require.Equal(t, rec.Fingerprint(), r.record().Fingerprint())
	require.Equal(t, accesskey.Stale, r.compared("a"))
	require.Equal(t, accesskey.Unchanged, r.compared("b"))
	_, _, err := r.store.Apply(t.Context(), accesskey.Event{Kind: "nonsense"})
	require.ErrorContains(t, err, "nonsense")
}

// A comparison from before a regeneration was sent, answered or lost says nothing, whether
// Graph has named a key or not.
func TestComparisonThatARegenerationHasOvertaken(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	before := r.store.Posts()
	overtaken := func() {
		t.Helper()
		r.fails(accesskey.ErrOvertaken, accesskey.Event{Kind: accesskey.Compared, Key: "a", Posts: before, Workspace: home})
		r.fails(accesskey.ErrOvertaken, accesskey.Event{Kind: accesskey.Unnamed, Posts: before, Workspace: home})
	}
	r.happen(accesskey.Begun)
	overtaken()
	r.refused(accesskey.ErrCompareFirst, accesskey.Terms{TTL: time.Hour, MaxAge: accesskey.AnyAge, Waited: true})
	before = r.store.Posts()
	r.apply(accesskey.Event{Kind: accesskey.Answered, Key: "b"})
	overtaken()
	require.Equal(t, "b", r.record().Key)
	r.happen(accesskey.Begun)
	before = r.store.Posts()
	r.happen(accesskey.Lost)
	overtaken()
	require.True(t, r.record().Intent.Doubt)
	r.refused(accesskey.ErrCompareFirst, shared)
	r.now = r.now.Add(-time.Hour) // the clock was put back
	require.Equal(t, accesskey.Unchanged, r.compared("b"))
}

// An intent whose write fails was not sent, whatever storage has, and costs readers nothing.
func TestIntentThatCannotBeStored(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		r := newRig(t)
		r.regenerated("a")
		r.lease(shared)
		r.fail(carriedOut)
		r.fails(storagetest.ErrBroken, accesskey.Event{Kind: accesskey.Begun})
		require.Equal(t, time.Hour, r.lease(shared).TTL)
		r.restart()
		require.Zero(t, r.record().Intent, "it was corrected before the key was leased")

		r.fail(carriedOut)
		r.fails(storagetest.ErrBroken, accesskey.Event{Kind: accesskey.Begun})
		r.restart()
		require.Equal(t, carriedOut, r.record().Intent.Doubt, "another process knows only what is stored")
	}
}

// A refusal counts even if the withdrawal of the intent cannot be stored.
func TestRefusalThatCannotBeStored(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		r := newRig(t)
		r.regenerated("a")
		r.lease(shared)
		r.happen(accesskey.Begun)
		r.fail(carriedOut)
		r.fails(storagetest.ErrBroken, accesskey.Event{Kind: accesskey.Refused})
		require.Equal(t, time.Hour, r.lease(shared).TTL)
		r.restart()
		require.Zero(t, r.record().Intent)
		require.Zero(t, r.record().Watch)
	}
}

// An answer that cannot be stored goes on in memory. It is stored before it is leased, and
// a process that ends before leaves a doubt.
func TestAnswerThatCannotBeStored(t *testing.T) {
	answered := func() *rig {
		r := newRig(t)
		r.regenerated("a")
		r.lease(shared)
		r.happen(accesskey.Begun)
		r.storage.FailWhen(func(op, key string) bool { return op == "put" && key == accesskey.StorageKey })
		rec, _, err := r.store.Apply(t.Context(), accesskey.Event{Kind: accesskey.Answered, Key: "b"})
		require.ErrorIs(t, err, storagetest.ErrBroken)
		require.Equal(t, "b", rec.Key)
		require.Equal(t, "b", r.record().Key)
		r.refused(storagetest.ErrBroken, shared)
		r.storage.FailWhen(nil)
		return r
	}
	r := answered()
	require.Equal(t, "b", r.lease(shared).Record.Key)
	r.restart()
	require.Equal(t, "b", r.record().Key)

	r = answered()
	r.restart()
	require.True(t, r.record().Intent.Doubt)
	require.Equal(t, accesskey.CauseRecovered, r.compared("b"))

	r = answered()
	r.happen(accesskey.Refused) // changes nothing, and stores what is known
	r.restart()
	require.Equal(t, "b", r.record().Key)
}

func TestAttemptBeginsOnlyWhileItsReasonHolds(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	held := r.lease(shared)
	retire := accesskey.Event{Kind: accesskey.Begun, OnlyIf: accesskey.WorkRetire}
	r.fails(accesskey.ErrNotDue, retire)
	require.Zero(t, r.record().Intent)
	require.NoError(t, r.revoke(held))
	r.store.Forget()
	r.storage.FailWhen(storagetest.Nth(1, "list", lease.Prefix))
	r.fails(storagetest.ErrBroken, retire)
	r.apply(retire)
	require.True(t, r.record().Intent.UnderWay)
}

func TestDueLooksAtTheLeases(t *testing.T) {
	r := newRig(t)
	require.Empty(t, r.due())
	r.regenerated("a")
	held := r.lease(shared)
	require.Empty(t, r.due())
	r.now = r.now.Add(10 * time.Minute)
	require.Equal(t, []string{accesskey.WorkCompare}, r.due())
	r.happen(accesskey.Turning)
	require.Equal(t, []string{accesskey.WorkRetire, accesskey.WorkCompare}, r.due())
	r.happen(accesskey.Turned)
	require.NoError(t, r.revoke(held))
	require.Equal(t, []string{accesskey.WorkRetire}, r.due())
	r.store.Forget()
	r.storage.FailWhen(storagetest.Nth(1, "list", lease.Prefix))
	_, _, err := r.store.Due(t.Context())
	require.ErrorIs(t, err, storagetest.ErrBroken)
}

// A key that readers wait for is stored as disclosed. If none of them ends up with a
// lease, it counts as undisclosed, unless another process may have given it one.
func TestDisclosureInAdvance(t *testing.T) {
	answered := func(t *testing.T) *rig {
		r := newRig(t)
		r.happen(accesskey.Begun)
		r.storage.FailWhen(storagetest.Nth(1, "put", lease.Prefix)) // so that no lease is recorded in advance
		rec, _ := r.apply(accesskey.Event{Kind: accesskey.Answered, Key: "a", Cause: accesskey.CauseRead, TTL: time.Hour})
		require.Zero(t, r.live())
		require.False(t, rec.Disclosed)
		require.Equal(t, rec, r.record())
		require.Empty(t, r.due())
		return r
	}
	t.Run("a lease follows", func(t *testing.T) {
		r := answered(t)
		r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey)) // which is not written again
		require.True(t, r.lease(accesskey.Terms{TTL: time.Hour, Fresh: 1}).Record.Disclosed)
		require.True(t, r.record().Disclosed)
		require.Empty(t, r.due())
	})
	t.Run("no lease follows", func(t *testing.T) {
		r := answered(t)
		r.storage.FailWhen(func(op, _ string) bool { return op == "put" })
		r.refused(storagetest.ErrBroken, shared)
		r.storage.FailWhen(nil)
		require.False(t, r.record().Disclosed)
		r.now = r.now.Add(10 * time.Minute)
		r.compared("a")
		require.Empty(t, r.due())
		require.True(t, r.lease(shared).Record.Disclosed)
		r.restart()
		require.True(t, r.record().Disclosed)
	})
	t.Run("the next reader who wants a new key", func(t *testing.T) {
		r := answered(t)
		r.now = r.now.Add(2*time.Minute - 1)
		require.Equal(t, "a", r.lease(alone).Record.Key)
		r.refused(accesskey.ErrRegenerateFirst, alone)
	})
	for name, other := range map[string]func(*rig){
		"another process": (*rig).restart,
		"another node":    func(r *rig) { r.store.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			r := answered(t)
			other(r)
			require.Equal(t, []string{accesskey.WorkRetire}, r.due())
		})
	}
}

// The lease of a reader who waits is recorded while the new key is being stored.
func TestLeaseInAdvance(t *testing.T) {
	answer := accesskey.Event{Kind: accesskey.Answered, Key: "b", Cause: accesskey.CauseRead, TTL: time.Hour}
	fresh := accesskey.Terms{TTL: time.Hour, Fresh: 2}
	under := func(t *testing.T) *rig {
		r := newRig(t)
		r.regenerated("a")
		r.happen(accesskey.Begun)
		return r
	}
	answered := func(t *testing.T) *rig {
		r := under(t)
		r.apply(answer)
		require.Equal(t, 1, r.live())
		return r
	}
	t.Run("the first reader takes it", func(t *testing.T) {
		r := answered(t)
		r.storage.FailWhen(func(op, _ string) bool { return op == "put" })
		first := r.lease(fresh)
		require.Equal(t, 2, first.Record.Version)
		r.refused(storagetest.ErrBroken, fresh)
		r.storage.FailWhen(nil)
		require.NoError(t, r.revoke(first))
		require.Equal(t, []string{accesskey.WorkRetire}, r.due())
	})
	t.Run("one on other terms", func(t *testing.T) {
		r := answered(t)
		require.Equal(t, time.Minute, r.lease(accesskey.Terms{TTL: time.Minute, Fresh: 2}).TTL)
		require.Equal(t, 1, r.live())
	})
	t.Run("one who comes later", func(t *testing.T) {
		r := answered(t)
		r.now = r.now.Add(time.Minute)
		later := r.lease(fresh)
		r.now = r.now.Add(time.Hour + lease.Grace - time.Second)
		require.Equal(t, 1, r.live(), "a lease lasts from when it is handed out")
		require.NoError(t, r.revoke(later))
	})
	t.Run("nobody is left", func(t *testing.T) {
		r := answered(t)
		r.store.Unreserve()
		require.Zero(t, r.live())
		require.Empty(t, r.due(), "the key has not been handed out")
		r.store.Unreserve()
		r.lease(fresh)
		require.Equal(t, 1, r.live())
	})
	t.Run("another key comes first", func(t *testing.T) {
		r := answered(t)
		r.regenerated("c")
		require.Equal(t, 3, r.lease(shared).Record.Version)
		require.Equal(t, 1, r.live())
	})
	t.Run("it cannot be recorded", func(t *testing.T) {
		r := under(t)
		r.storage.FailWhen(storagetest.Nth(1, "put", lease.Prefix))
		r.apply(answer)
		r.lease(fresh)
		require.Equal(t, 1, r.live())
	})
	t.Run("on watch", func(t *testing.T) {
		r := under(t)
		r.happen(accesskey.Lost, accesskey.Begun)
		r.apply(answer)
		r.storage.FailWhen(func(op, _ string) bool { return op == "put" || op == "delete" })
		require.Equal(t, accesskey.ShortTTL, r.lease(fresh).TTL)
	})
	t.Run("a comparison has found the key", func(t *testing.T) {
		r := under(t)
		r.compared("b")
		r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey))
		r.fails(storagetest.ErrBroken, answer)
		r.restart()
		r.compared("b")
		require.Equal(t, 2, r.record().Version)
		require.Zero(t, r.live())
	})
	t.Run("another node has written", func(t *testing.T) {
		r := answered(t)
		r.store.Forget()
		require.Zero(t, r.live())
	})
	t.Run("the process dies before the key is stored", func(t *testing.T) {
		r := under(t)
		r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey))
		r.fails(storagetest.ErrBroken, answer)
		r.restart()
		r.compared("b")
		require.Equal(t, 3, r.record().Version, "nobody has the lease on version 2")
		require.Zero(t, r.live())
		r.lease(shared)
		require.NoError(t, r.store.Prune(t.Context()))
		stored, err := r.storage.List(t.Context(), lease.Prefix)
		require.NoError(t, err)
		require.Equal(t, []string{"3/"}, stored)
	})
}

func TestForgetReadsWhatAnotherNodeHasWritten(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.lease(shared)
	other := &rig{t: t, storage: r.storage, now: r.now}
	other.restart()
	other.regenerated("b")
	other.lease(shared)
	require.Equal(t, 1, r.record().Version)
	r.store.Forget()
	require.Equal(t, "b", r.record().Key)
	require.Equal(t, 1, r.live())

	r.happen(accesskey.Begun)
	r.store.Forget()
	require.True(t, r.record().Intent.UnderWay, "the regeneration is of this process")
	require.False(t, r.record().Intent.Doubt)
	r.restart()
	require.True(t, r.record().Intent.Doubt)
}

// Readers of keys that were handed out before and of such that were not, and whoever looks
// at the record, go on beside Forget.
func TestReadersBesideForget(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 50 {
				if i == 0 && n%10 == 0 {
					_, _, err := r.store.Apply(t.Context(), accesskey.Event{Kind: accesskey.Begun})
					require.NoError(t, err)
					_, _, err = r.store.Apply(t.Context(), accesskey.Event{Kind: accesskey.Answered, Key: fmt.Sprint(n), TTL: map[bool]time.Duration{true: time.Hour}[n%20 == 0]})
					require.NoError(t, err)
				}
				if l, err := r.store.Lease(t.Context(), shared); err == nil {
					require.NotEmpty(t, l.Record.Key)
				} else {
					require.ErrorIs(t, err, accesskey.ErrWaitFirst)
				}
				_, _, err := r.store.Due(t.Context())
				require.NoError(t, err)
				r.store.Forget()
			}
		})
	}
	all.Wait()
	require.Equal(t, 6, r.record().Version)
}

// Storage that is slow keeps nobody for longer than their time.
func TestWaitsEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.regenerated("a")
		r.lease(shared)
		r.storage.HangWhen(func(op, key string) bool { return op == "put" && key == accesskey.StorageKey })
		slow, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		var done sync.WaitGroup
		done.Go(func() {
			_, _, err := r.store.Apply(slow, accesskey.Event{Kind: accesskey.Begun})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		synctest.Wait()
		for name, use := range uses(r.store) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.ErrorIs(t, use(ctx), context.DeadlineExceeded, name)
			require.Equal(t, time.Second, time.Since(began), name)
			cancel()
		}
		done.Wait()
		r.storage.HangWhen(nil)
		require.Equal(t, time.Hour, r.lease(shared).TTL, "the intent was not sent")
	})
}

// uses are the ways to use a store.
func uses(s *accesskey.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"lease":  func(ctx context.Context) error { _, err := s.Lease(ctx, shared); return err },
		"revoke": func(ctx context.Context) error { _, err := s.Revoke(ctx, 1, "x.0"); return err },
		"record": func(ctx context.Context) error { _, err := s.Record(ctx); return err },
		"due":    func(ctx context.Context) error { _, _, err := s.Due(ctx); return err },
		"live":   func(ctx context.Context) error { _, err := s.Live(ctx); return err },
		"prune":  s.Prune,
		"apply": func(ctx context.Context) error {
			_, _, err := s.Apply(ctx, accesskey.Event{Kind: accesskey.Begun})
			return err
		},
	}
}

// Where there is neither an intent nor a watch, nothing of them is stored, which each version
// reads as it reads the null of those before.
func TestRecordWithoutIntent(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	entry, err := r.storage.Get(t.Context(), accesskey.StorageKey)
	require.NoError(t, err)
	require.NotContains(t, string(entry.Value), "intent")
	require.NotContains(t, string(entry.Value), "watch")
	want := r.record()

	entry.Value = append([]byte(`{"intent":null,"watch":null,`), entry.Value[1:]...)
	require.NoError(t, r.storage.Put(t.Context(), entry))
	r.restart()
	require.Equal(t, want, r.record())
	r.lease(shared)
}

// A damaged record is never quoted. It blocks no revocation, and rotate-key begins anew,
// under a version that is higher than any before.
func TestUnreadableRecord(t *testing.T) {
	for stored, version := range map[string]int{
		`{"key": "a-secret`: int(time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC).Unix()),
		`{"key": ["a-secret"], "version": 7, "newest": 9}`:                 9,
		`{"key": "a-secret", "version": "12", "newest": "none"}`:           12,
		`{"key": "a-secret", "version": 7, "disclosed": "perhaps"}`:        7,
		`{"key": ["a-secret"], "version": -7, "newest": "18446744073709"}`: 18446744073709,
	} {
		r := newRig(t)
		require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: accesskey.StorageKey, Value: []byte(stored)}))
		for name, use := range uses(r.store) {
			err := use(t.Context())
			if name == "revoke" {
				require.NoError(t, err, stored)
				continue
			}
			require.ErrorIs(t, err, accesskey.ErrUnreadable, name)
			require.NotContains(t, err.Error(), "a-secret", name)
		}
		mayBeLast, err := r.store.Revoke(t.Context(), 1, "x.0")
		require.NoError(t, err)
		require.False(t, mayBeLast)

		r.storage.FailWhen(storagetest.Nth(2, "get", accesskey.StorageKey)) // to heal it
		r.fails(storagetest.ErrBroken, accesskey.Event{Kind: accesskey.Wanted})
		r.storage.FailWhen(nil)
		r.happen(accesskey.Wanted)
		r.restart()
		require.Equal(t, version, r.record().Version)
		require.NotZero(t, r.record().Watch, "an older regeneration may still be carried out")
		require.Contains(t, r.due(), accesskey.WorkWanted)
		require.Equal(t, version+1, r.regenerated("b").Version)
		r.compared("b")
		require.True(t, r.lease(shared).Short)
	}
}

// A clock that was ahead, and is right again, leaves nothing behind but longer leases.
func TestClockThatWasAhead(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 24 * time.Hour, 400 * 24 * time.Hour} {
		for _, restarts := range []bool{false, true} {
			r := newRig(t)
			right := r.now
			r.now = right.Add(ahead)
			r.regenerated("a")
			r.lease(shared)
			r.happen(accesskey.Begun, accesskey.Lost)
			r.now = right
			if restarts {
				r.restart()
			}
			require.True(t, r.record().Intent.Doubt)
			require.Equal(t, right, r.record().RegeneratedAt)
			require.Equal(t, right.Add(2*time.Minute), r.record().Watch.Until)
			require.Contains(t, r.due(), accesskey.WorkSettle)
			r.refused(accesskey.ErrCompareFirst, shared)
			r.happen(accesskey.Unnamed)
			r.refused(accesskey.ErrInDoubt, shared)
			r.now = right.Add(30 * time.Second)
			r.happen(accesskey.Unnamed)
			r.refused(accesskey.ErrRegenerateFirst, shared)
			r.compared("a")
			require.True(t, r.lease(shared).Short)
			r.now = right.Add(150*time.Second - 1)
			r.compared("a")
			require.True(t, r.lease(shared).Short, "the watch does not end early")
			r.now = right.Add(150 * time.Second)
			r.compared("a")
			require.False(t, r.lease(shared).Short)
			r.now = r.now.Add(10 * time.Minute)
			r.refused(accesskey.ErrCompareFirst, shared)
		}
	}
}

// An outcome that storage has swallowed leaves no regeneration under way for ever: it counts
// as lost, with a doubt and a watch.
func TestOutcomeThatCannotBeApplied(t *testing.T) {
	for _, kind := range []string{accesskey.Answered, accesskey.Refused, accesskey.Lost} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			r.regenerated("a")
			r.apply(accesskey.Event{Kind: accesskey.Begun})
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_, _, err := r.store.Apply(ended, accesskey.Event{Kind: kind, Key: "b"})
			require.ErrorIs(t, err, context.Canceled)
			rec := r.record()
			require.False(t, rec.Intent.UnderWay)
			require.True(t, rec.Intent.Doubt)
			require.NotZero(t, rec.Watch)
		})
	}
}

// What an operator wants stays wanted when the same tenant is reached at another endpoint,
// and is not satisfied by a key that a reader has had before the answer.
func TestWantedOutlastsATurn(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.apply(accesskey.Event{Kind: accesskey.Wanted})
	elsewhere := home
	elsewhere.GraphRoot = "https://elsewhere.test"
	r.configure(accesskey.Policy{Workspace: elsewhere})
	require.NotZero(t, r.record().WantedSince)
	r.configure(accesskey.Policy{Workspace: abroad})
	require.Zero(t, r.record().WantedSince)
}

// A failed write of the configuration leaves no policy until it has been read. A reader of
// the new workspace does not get the key of the one that was left meanwhile.
func TestNoKeyOfAWorkspaceThatWasLeft(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	r.lease(shared)
	away := accesskey.Policy{Workspace: abroad}
	r.configure(away)
	var over atomic.Bool
	var changes sync.WaitGroup
	changes.Go(func() {
		for !over.Load() {
			r.apply(accesskey.Event{Kind: accesskey.Configured})
			r.apply(accesskey.Event{Kind: accesskey.Configured, Policy: away})
		}
	})
	for range 50000 {
		if l, err := r.store.Lease(t.Context(), shared); err == nil {
			require.Empty(t, l.Record.Key)
		}
	}
	over.Store(true)
	changes.Wait()
}
