// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// farewellBudget bounds the retirement of a key that is left behind.
const farewellBudget = 8 * time.Second

// job is a piece of work with Graph. The purpose of a regeneration's flight is the cause of
// the key that it makes.
type job struct {
	work string // without which it does not begin; "" always does
	kind health.Kind
	flight.Order
}

var (
	comparing = flight.Order{Purpose: accesskey.WorkCompare, Rank: flight.Readers}

	reading    = job{"", health.Reading, flight.Order{Purpose: accesskey.CauseRead, Rank: flight.Readers, JoinAny: true}}
	retirement = job{accesskey.WorkRetire, health.Retirement, flight.Order{Purpose: accesskey.CauseRetired, Rank: flight.Retirement}}
	farewell   = job{accesskey.WorkRetire, health.Retirement, flight.Order{Purpose: accesskey.CauseRetired, Rank: flight.Farewell}}
	breakGlass = job{accesskey.WorkWanted, health.Rotation, flight.Order{Purpose: accesskey.CauseManual, Rank: flight.BreakGlass, Keep: true}}

	// upkeep is what the engine does automatically, in this order. Unlike that of the status it
	// has regenerations first: each settles a doubt as well.
	upkeep = []job{
		breakGlass,
		retirement,
		{accesskey.WorkRotate, health.Rotation, flight.Order{Purpose: accesskey.CauseRotation, Rank: flight.Schedule}},
		{accesskey.WorkSettle, health.Comparison, comparing},
		{accesskey.WorkCompare, health.Comparison, comparing},
	}
)

// RunDue does the most urgent of what is due and may be tried now, on a mount that is not
// going away: one that has been moved goes on. What fails has been reported when it returns.
func (m *Manager) RunDue(ctx context.Context) error {
	m.tell(ctx, accesskey.Reopened)
	number := m.Health.Connection()
	idle, rec, err := m.runDue(ctx, upkeep...)
	if idle == nil || rec.Key != "" || rec.Intent.Doubt || rec.Watch.On() {
		return err
	}
	return m.lookIn(ctx, idle, number, rec)
}

// RetireIfDue retires the key if that is due, on a node that may write, unless Graph is to
// be left alone.
func (m *Manager) RetireIfDue(ctx context.Context) error {
	_, _, err := m.runDue(ctx, retirement)
	return err
}

// runDue does the first of the jobs that is due and may be tried. If there is none, it
// returns the connection that could have done it, and the record.
func (m *Manager) runDue(ctx context.Context, jobs ...job) (idle *config.Connection, rec accesskey.Record, err error) {
	conn, err := m.configured(ctx)
	if err != nil || conn == nil || !m.Writable() {
		return nil, rec, err
	}
	rec, due, err := m.Keys.Due(ctx)
	if err != nil {
		return nil, rec, err
	}
	m.noticeMissed(ctx, conn.Config, rec)
	for _, j := range jobs {
		compares := j.kind == health.Comparison
		atOnce := j == breakGlass || compares && rec.Watch.On() // on watch, and in doubt, at each tick
		switch {
		case !slices.Contains(due, j.work), !atOnce && !m.Health.Allowed(ctx, j.kind, conn.Graph.Probe):
			continue
		case compares:
			_ = m.compare(ctx) // reported
		default:
			release, _ := m.regenerate(ctx, attempt{Manager: m, job: j}) // the error is reported
			release()
		}
		return nil, rec, nil
	}
	return conn, rec, nil
}

// lookIn signs in about once a day while there is no key to compare, so that a withdrawn
// consent or an expired credential shows before the first incident. It asks for no key:
// one that Graph named would have to be watched.
func (m *Manager) lookIn(ctx context.Context, conn *config.Connection, number int64, rec accesskey.Record) error {
	report, err := m.Health.Report(ctx)
	failed := report.DriftResult == health.DriftUnknown
	spread := rand.N(2 * time.Hour) //nolint:gosec // so that mounts that one script has configured do not ask together
	if since := m.Now().Sub(m.lookedAt); err != nil || !failed && since >= 0 && since < 23*time.Hour+spread || !m.Health.Allowed(ctx, health.Comparison, nil) {
		return err
	}
	m.lookedAt = m.Now()
	ctx, cancel := context.WithTimeout(ctx, compareBudget)
	defer cancel()
	if failure := conn.Granted(ctx); failure != nil {
		m.logUncompared(ctx, failure)
		m.reportUncompared(context.WithoutCancel(ctx), rec, number, failure)
	} else if failed {
		m.Health.Compared(ctx, "") // else nothing is stored: all is well
	}
	return nil
}

// configured returns the connection that is configured, nil if there is none.
func (m *Manager) configured(ctx context.Context) (*config.Connection, error) {
	conn, err := m.Configs.Current(ctx)
	if errors.Is(err, config.ErrUnconfigured) {
		return nil, nil
	}
	return conn, err
}

// noticeMissed reports, once, a rotation whose window has passed.
func (m *Manager) noticeMissed(ctx context.Context, cfg *config.Config, rec accesskey.Record) {
	next, missed := cfg.Schedule.Next(rec.RegeneratedAt, m.Now())
	if missed.IsZero() || cfg.DisableRotation || !m.Health.Missed(ctx, missed) {
		return
	}
	hclog.FromContext(ctx).Error("the window of a rotation has passed without it", "due_at", timestamp(missed), "next_rotation", timestamp(next))
	m.Events.SendOfKey(ctx, event.RotationMiss, rec.Version, "due_at", timestamp(missed))
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// TurnAway leaves the workspace of the configuration, in a flight of its caller's: it stops
// disclosure, retires a key that has been handed out, and then calls leave, which replaces
// or removes the configuration. It returns a warning if the key could not be retired in
// time: it lives on, out of the engine's reach. The error is that of leave.
func (m *Manager) TurnAway(ctx context.Context, leave func() error) (warning string, err error) {
	bounded, cancel := context.WithTimeout(ctx, farewellBudget)
	defer cancel()
	m.tell(bounded, accesskey.Turning)
	defer m.tell(ctx, accesskey.Turned)
	if err := m.retireNow(bounded); err != nil {
		hclog.FromContext(ctx).Error("the deployment access key lives on after its configuration", graph.LogArgs(err)...)
		m.Events.Send(ctx, event.KeyRetireFail, event.PathConfig)
		warning = "The deployment access key that has been handed out could not be regenerated with the configuration so far: it lives on. " +
			"Regenerate it in the Defender portal. The reason: " + err.Error()
	}
	return warning, leave()
}

// RetireOnUnmount ends the work with the key when the mount goes away: nothing is handed
// out, and a key that has been is regenerated.
func (m *Manager) RetireOnUnmount(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, farewellBudget)
	defer cancel()
	m.tell(bounded, accesskey.Closed)
	if err := m.Flights.Alone(bounded, flight.Farewell, m.retireNow); err != nil {
		hclog.FromContext(ctx).Error("the deployment access key could not be regenerated before its mount is disabled or moved, or its namespace sealed, and lives on: regenerate it in the Defender portal, unless the mount starts again, as after a move or an unseal", graph.LogArgs(err)...)
		m.Events.Send(ctx, event.KeyRetireFail, event.PathConfig)
	}
}

// tell tells the store of the key to open or close the door.
func (m *Manager) tell(ctx context.Context, kind string) {
	_, _, _ = m.Keys.Apply(ctx, accesskey.Event{Kind: kind}) // never fails
}

// retireNow regenerates a key that has been handed out, in a flight of its caller's. It
// takes more than one regeneration if a key is found at Graph meanwhile.
func (m *Manager) retireNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewellBudget)
	defer cancel()
	if conn, err := m.configured(ctx); err != nil || conn == nil {
		return err
	}
	for {
		_, due, err := m.Keys.Due(ctx)
		if err != nil || !slices.Contains(due, accesskey.WorkRetire) {
			return err
		}
		if err := (attempt{Manager: m, job: farewell}).criticalSection(ctx); err != nil && !errors.Is(err, accesskey.ErrNotDue) {
			return err
		}
	}
}
