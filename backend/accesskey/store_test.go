// SPDX-License-Identifier: MPL-2.0

package accesskey_test

import (
	"context"
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
)

// rig is a store on a storage that fails on demand, configured for a workspace, and its
// clock. The shortest test:
//
//	r := newRig(t)
//	r.regenerated("a")
//	l, err := r.store.Lease(t.Context(), shared)
//	require.NoError(t, err)
//	require.Equal(t, "a", l.Record.Key)
type rig struct {
	t       *testing.T
	storage *storagetest.Storage
	store   *accesskey.Store
	now     time.Time
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
	r.apply(accesskey.Event{Kind: accesskey.Configured, Policy: p})
}

func (r *rig) apply(e accesskey.Event) accesskey.Record {
	r.t.Helper()
	rec, err := r.store.Apply(r.t.Context(), e)
	require.NoError(r.t, err)
	return rec
}

func (r *rig) regenerated(key string) accesskey.Record {
	r.t.Helper()
	r.apply(accesskey.Event{Kind: accesskey.Begun})
	return r.apply(accesskey.Event{Kind: accesskey.Answered, Key: key, Cause: accesskey.CauseRead})
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

func (r *rig) due(awaited bool) []string {
	r.t.Helper()
	_, due, err := r.store.Due(r.t.Context(), awaited)
	require.NoError(r.t, err)
	return due
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
	r.refused(accesskey.ErrRegenerateFirst, accesskey.Terms{TTL: time.Hour})
	r.now = r.now.Add(10 * time.Minute)
	r.refused(accesskey.ErrCompareFirst, shared)
	require.Equal(t, r.now, r.apply(accesskey.Event{Kind: accesskey.Compared, Key: "a"}).ComparedAt)
	r.lease(shared)
	r.apply(accesskey.Event{Kind: accesskey.Begun})
	r.refused(accesskey.ErrRegenerateFirst, shared)
	r.apply(accesskey.Event{Kind: accesskey.Refused})
	r.lease(shared)

	r.apply(accesskey.Event{Kind: accesskey.Closed})
	r.refused(accesskey.ErrClosed, shared)
	r.restart()
	r.apply(accesskey.Event{Kind: accesskey.Closed})
	r.refused(accesskey.ErrClosed, shared)
	r.apply(accesskey.Event{Kind: accesskey.Reopened})
	r.lease(shared)
	r.configure(accesskey.Policy{})
	r.refused(accesskey.ErrUnconfigured, shared)
}

// A key is served for the workspace that it came from and no other.
func TestLeaseIsOfTheConfiguredWorkspace(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	held := r.lease(shared)
	r.configure(accesskey.Policy{Workspace: abroad, Retire: true})
	r.refused(accesskey.ErrRegenerateFirst, shared)
	require.Equal(t, accesskey.Record{Version: 1, Workspace: abroad, Salt: held.Record.Salt}, r.record())
	r.configure(accesskey.Policy{})
	require.Equal(t, held.Record, r.record(), "without a configuration it is that of the workspace before")
	require.Empty(t, r.due(false))
	r.configure(accesskey.Policy{Workspace: abroad})
	require.Equal(t, 2, r.regenerated("b").Version)
	r.configure(accesskey.Policy{Workspace: home})
	require.Empty(t, r.record().Key)
	require.NoError(t, r.revoke(held.Record.Version, held.ID))
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

func (r *rig) revoke(version int, id string) error {
	_, err := r.store.Revoke(r.t.Context(), version, id)
	return err
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
	require.ErrorIs(t, r.revoke(2, held.ID), storagetest.ErrBroken)
	require.Equal(t, 1, r.live())
	r.configure(accesskey.Policy{})
	for range 2 {
		require.NoError(t, r.revoke(2, held.ID))
	}
	require.Zero(t, r.live())
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

func TestApplyStoresWhatAnEventMakesOfTheRecord(t *testing.T) {
	r := newRig(t)
	begun := r.apply(accesskey.Event{Kind: accesskey.Begun, Baseline: "p"})
	require.NotEmpty(t, begun.Intent.Baseline)
	require.Equal(t, 45*time.Second, begun.Intent.Deadline.Sub(begun.Intent.StartedAt))
	r.now = r.now.Add(-time.Hour)
	require.Equal(t, r.now, r.apply(accesskey.Event{Kind: accesskey.Lost}).Intent.StartedAt)
	r.restart()
	rec, err := r.store.Apply(t.Context(), accesskey.Event{Kind: accesskey.Compared, Key: "p"})
	require.ErrorIs(t, err, accesskey.ErrUndecided)
	require.NotNil(t, rec.Intent)
	require.Equal(t, accesskey.CauseRecovered, r.apply(accesskey.Event{Kind: accesskey.Compared, Key: "a"}).Cause)
	require.Len(t, r.record().Superseded, 1)
	r.restart()
	require.Equal(t, "a", r.record().Key)
	require.Equal(t, accesskey.CauseExternal, r.apply(accesskey.Event{Kind: accesskey.Compared, Key: "b"}).Cause)
	require.Equal(t, 2, r.record().Version)
	_, err = r.store.Apply(t.Context(), accesskey.Event{Kind: accesskey.Compared})
	require.ErrorIs(t, err, accesskey.ErrUndecided)
}

// Whatever a failed write has left in storage, the store goes on with that.
func TestApplyThatCannotBeStored(t *testing.T) {
	for _, kind := range []string{accesskey.Begun, accesskey.Answered, accesskey.Refused, accesskey.Compared} {
		r := newRig(t)
		r.regenerated("a")
		if kind != accesskey.Begun {
			r.apply(accesskey.Event{Kind: accesskey.Begun})
		}
		before := r.record()
		r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey))
		rec, err := r.store.Apply(t.Context(), accesskey.Event{Kind: kind, Key: "b"})
		require.ErrorIs(t, err, storagetest.ErrBroken, kind)
		require.Equal(t, before, rec, kind)
		require.Equal(t, before, r.record(), kind)
	}
	r := newRig(t)
	r.storage.FailWhen(func(op, _ string) bool { return op == "put" })
	r.apply(accesskey.Event{Kind: accesskey.Lost}) // changes nothing, so it writes nothing
	r.apply(accesskey.Event{Kind: accesskey.Refused})
}

func TestAttemptBeginsOnlyWhileItsReasonHolds(t *testing.T) {
	r := newRig(t)
	r.regenerated("a")
	held := r.lease(shared)
	begin := func(work string) error {
		_, err := r.store.Apply(t.Context(), accesskey.Event{Kind: accesskey.Begun, OnlyIf: work})
		return err
	}
	require.ErrorIs(t, begin(accesskey.WorkRetire), accesskey.ErrNotDue)
	require.Nil(t, r.record().Intent)
	require.NoError(t, r.revoke(1, held.ID))
	r.store.Forget()
	r.storage.FailWhen(storagetest.Nth(1, "list", lease.Prefix))
	require.ErrorIs(t, begin(accesskey.WorkRetire), storagetest.ErrBroken)
	require.NoError(t, begin(accesskey.WorkRetire))
	require.NotNil(t, r.record().Intent)
}

func TestDueLooksAtTheLeases(t *testing.T) {
	r := newRig(t)
	require.Empty(t, r.due(true))
	r.regenerated("a")
	held := r.lease(shared)
	require.Empty(t, r.due(false))
	r.now = r.now.Add(10 * time.Minute)
	require.Equal(t, []string{accesskey.WorkCompare}, r.due(false))
	require.NoError(t, r.revoke(1, held.ID))
	require.Equal(t, []string{accesskey.WorkRetire}, r.due(false))
	require.Equal(t, []string{accesskey.WorkCompare}, r.due(true), "a reader who waits counts as a lease")
	r.store.Forget()
	r.storage.FailWhen(storagetest.Nth(1, "list", lease.Prefix))
	_, _, err := r.store.Due(t.Context(), false)
	require.ErrorIs(t, err, storagetest.ErrBroken)
}

// A key that readers wait for is stored as disclosed. If none of them ends up with a
// lease, it counts as undisclosed, unless another process may have given it one.
func TestDisclosureInAdvance(t *testing.T) {
	answered := func(t *testing.T) *rig {
		r := newRig(t)
		r.apply(accesskey.Event{Kind: accesskey.Begun})
		rec := r.apply(accesskey.Event{Kind: accesskey.Answered, Key: "a", Cause: accesskey.CauseRead, Awaited: true})
		require.False(t, rec.Disclosed)
		require.Equal(t, rec, r.record())
		require.Empty(t, r.due(false))
		return r
	}
	t.Run("a lease follows", func(t *testing.T) {
		r := answered(t)
		r.storage.FailWhen(storagetest.Nth(1, "put", accesskey.StorageKey)) // which is not written again
		require.True(t, r.lease(accesskey.Terms{TTL: time.Hour, Fresh: 1}).Record.Disclosed)
		require.True(t, r.record().Disclosed)
		require.Empty(t, r.due(false))
	})
	t.Run("no lease follows", func(t *testing.T) {
		r := answered(t)
		r.storage.FailWhen(storagetest.Nth(1, "put", lease.Prefix))
		r.refused(storagetest.ErrBroken, shared)
		require.False(t, r.record().Disclosed)
		r.now = r.now.Add(10 * time.Minute)
		r.apply(accesskey.Event{Kind: accesskey.Compared, Key: "a"})
		require.Empty(t, r.due(false))
		require.True(t, r.lease(shared).Record.Disclosed)
		r.restart()
		require.True(t, r.record().Disclosed)
	})
	for name, other := range map[string]func(*rig){
		"another process": (*rig).restart,
		"another node":    func(r *rig) { r.store.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			r := answered(t)
			other(r)
			require.Equal(t, []string{accesskey.WorkRetire}, r.due(false))
		})
	}
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
}

// A damaged record is never replaced by one that knows nothing, and never quoted.
func TestUnreadableRecord(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: accesskey.StorageKey, Value: []byte(`{"key": "a-secret`)}))
	for name, use := range map[string]func(context.Context) error{
		"lease": func(ctx context.Context) error { _, err := r.store.Lease(ctx, shared); return err },
		"revoke": func(ctx context.Context) error {
			_, err := r.store.Revoke(ctx, 1, "x.0")
			return err
		},
		"due":   func(ctx context.Context) error { _, _, err := r.store.Due(ctx, false); return err },
		"live":  func(ctx context.Context) error { _, err := r.store.Live(ctx); return err },
		"prune": r.store.Prune,
		"apply": func(ctx context.Context) error {
			_, err := r.store.Apply(ctx, accesskey.Event{Kind: accesskey.Begun})
			return err
		},
	} {
		err := use(t.Context())
		require.ErrorIs(t, err, accesskey.ErrUnreadable, name)
		require.NotContains(t, err.Error(), "a-secret", name)
	}
}
