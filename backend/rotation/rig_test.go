// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// rig is a manager of the key of a simulated tenant, all that it works with, and a clock.
// The shortest test:
//
//	r := configured(t, nil)
//	answer := r.obtain(alone)
//	require.True(t, r.works(answer))
//	require.Equal(t, 1, r.posts())
type rig struct {
	t       *testing.T
	sim     *graphtest.Simulator
	storage *storagetest.Storage
	keys    *accesskey.Store
	configs *config.Store
	health  *health.Tracker
	events  *event.Sender
	bus     *bus
	flights *flight.Group
	compare *flight.Group
	manager *rotation.Manager
	log     *lockedLog
	ctx     context.Context // with the log

	maxTTL, flightTime time.Duration // 0: unlimited
	tainted            bool

	mu  sync.Mutex
	now time.Time
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, sim: graphtest.Start(t), storage: storagetest.New(), log: &lockedLog{}, bus: &bus{}, now: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)}
	r.ctx = hclog.WithContext(t.Context(), hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: r.log}))
	r.restart()
	t.Cleanup(func() {
		for _, secret := range r.sim.Issued() {
			if strings.Contains(r.log.String(), secret) {
				t.Error("there is a secret in the log")
			}
		}
	})
	return r
}

// configured returns a rig that is configured for its tenant, with more fields.
func configured(t *testing.T, fields map[string]any) *rig {
	t.Helper()
	r := newRig(t)
	app := r.sim.App()
	r.configure(map[string]any{
		config.FieldTenantID: app.TenantID, config.FieldClientID: app.ClientID, credential.FieldSecret: app.ClientSecret,
		config.FieldGraphEndpoint: r.sim.URL(), config.FieldAuthorityHost: r.sim.URL(), config.FieldCACertificate: r.sim.CACertificate(),
	})
	r.configure(fields)
	return r
}

// restart begins anew with what is stored.
func (r *rig) restart() {
	r.keys = accesskey.New(r.storage, r.time)
	r.configs = config.New(r.storage, r.keys, "v0", func() logical.SystemView { return logical.TestSystemView() }, r.time)
	r.health = health.New(r.storage, r.time)
	r.events = event.New(r.bus)
	detach := func(base, _ context.Context) context.Context {
		if r.flightTime > 0 {
			var cancel context.CancelFunc
			base, cancel = context.WithTimeout(base, r.flightTime)
			r.t.Cleanup(cancel)
		}
		return base
	}
	r.flights, r.compare = flight.New(r.ctx, detach), flight.New(r.ctx, detach)
	r.manager = &rotation.Manager{
		Keys: r.keys, Configs: r.configs, Health: r.health, Events: r.events, Now: r.time, Sleep: r.sleep,
		Flights: r.flights, Comparisons: r.compare,
		MaxTTL: func() time.Duration { return r.maxTTL }, Tainted: func() bool { return r.tainted },
		Writable: func() bool { return true },
	}
}

func (r *rig) time() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// sleep lets the time pass that a test would have to wait.
func (r *rig) sleep(ctx context.Context, d time.Duration) error {
	r.advance(d)
	return ctx.Err()
}

func (r *rig) configure(fields map[string]any) {
	r.t.Helper()
	write := map[string]any{config.FieldVerifyConnection: false}
	for name, value := range fields {
		write[name] = value
	}
	d := &framework.FieldData{Raw: write, Schema: field.Schema(new(config.Config).Fields())}
	conn, err := r.configs.Try(r.ctx, d)
	require.NoError(r.t, err)
	require.NoError(r.t, r.configs.Save(r.ctx, conn))
}

// saved saves a configuration that stays the same.
func saved() error { return nil }

// terms are those of a role; nil takes those of the configuration.
type terms func(accesskey.Terms) accesskey.Terms

var (
	// alone is a reader without a role, for whom the key is regenerated.
	alone terms
	// shared is a reader whose role shares a key of any age.
	shared terms = func(t accesskey.Terms) accesskey.Terms { t.MaxAge = accesskey.AnyAge; return t }
)

func (r *rig) obtain(role terms) *rotation.Answer {
	r.t.Helper()
	answer, err := r.manager.Obtain(r.ctx, role)
	require.NoError(r.t, err)
	return answer
}

// fails obtains a key in vain.
func (r *rig) fails(role terms) error {
	r.t.Helper()
	answer, err := r.manager.Obtain(r.ctx, role)
	require.Error(r.t, err)
	require.Nil(r.t, answer)
	return err
}

// unsettled obtains a key in vain, because a regeneration is in doubt.
func (r *rig) unsettled(role terms) string {
	r.t.Helper()
	return r.isUnsettled(r.fails(role))
}

func (r *rig) isUnsettled(err error) string {
	r.t.Helper()
	var doubt *rotation.UnsettledError
	require.ErrorAs(r.t, err, &doubt)
	return err.Error()
}

func (r *rig) rotate() error {
	_, err := r.manager.Rotate(r.ctx)
	return err
}

// rotateOnce makes one attempt, as a tick does, and returns its error.
func (r *rig) rotateOnce() error {
	r.t.Helper()
	_, _, err := r.keys.Apply(r.ctx, accesskey.Event{Kind: accesskey.Wanted})
	require.NoError(r.t, err)
	before := r.record().Version
	r.runDue()
	if rec := r.record(); rec.WantedSince.IsZero() && rec.Version > before {
		return nil
	}
	return errors.New(r.report().LastError)
}

func (r *rig) runDue() {
	r.t.Helper()
	require.NoError(r.t, r.manager.RunDue(r.ctx))
}

func (r *rig) revoke(a *rotation.Answer) {
	r.t.Helper()
	_, err := r.keys.Revoke(r.ctx, a.Lease.Record.Version, a.Lease.ID)
	require.NoError(r.t, err)
}

func (r *rig) record() accesskey.Record {
	r.t.Helper()
	rec, err := r.keys.Record(r.ctx)
	require.NoError(r.t, err)
	return rec
}

func (r *rig) report() health.Report {
	r.t.Helper()
	report, err := r.health.Report(r.ctx)
	require.NoError(r.t, err)
	return report
}

func keyIn(a *rotation.Answer) string { return a.Lease.Record.Key }

// works reports whether a sensor can be installed with the key of an answer.
func (r *rig) works(a *rotation.Answer) bool { return r.sim.CanRegister(keyIn(a)) }

func (r *rig) posts() int { return r.sim.Calls(graphtest.Regenerate).Performed }

func (r *rig) gets() int { return r.sim.Calls(graphtest.Get).Started }

// started waits until so many calls of an operation have arrived.
func (r *rig) started(op graphtest.Operation, calls int) {
	r.t.Helper()
	require.NoError(r.t, r.sim.Wait(r.ctx, op, func(c graphtest.Calls) bool { return c.Started >= calls }))
}

// waiting waits until so many readers wait for the work that is under way.
func (r *rig) waiting(readers int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		return r.flights.Waiters(accesskey.CauseRead)+r.compare.Waiters(accesskey.WorkCompare) == readers
	}, 5*time.Second, time.Millisecond)
}

// sent returns the events so far.
func (r *rig) sent() []string {
	r.events.Flush(r.ctx)
	return r.bus.all()
}

// bus takes events.
type bus struct {
	mu    sync.Mutex
	types []string
}

func (b *bus) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.types...)
}

func (b *bus) SendEvent(_ context.Context, eventType logical.EventType, _ *logical.EventData) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.types = append(b.types, string(eventType))
	return nil
}

func (*bus) RecordObservation(context.Context, string, map[string]any) error {
	return errors.New("not implemented")
}

// lockedLog can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// turnAway leaves the workspace, with a configuration that stays the same.
func (r *rig) turnAway() string {
	r.t.Helper()
	warning, err := r.manager.TurnAway(r.ctx, func() error { return nil })
	require.NoError(r.t, err)
	return warning
}
