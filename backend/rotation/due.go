// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// unmountBudget bounds the retirement of a key that is left behind.
const unmountBudget = 8 * time.Second

// causes of the work that is a regeneration.
var causes = map[string]string{
	accesskey.WorkSettle: accesskey.CauseRecovered,
	accesskey.WorkRotate: accesskey.CauseRotation,
	accesskey.WorkRetire: accesskey.CauseRetired,
}

// RunDue does the most urgent of what is due, unless Graph is to be left alone. One piece
// is enough: a regeneration settles them all. What fails has been reported when it returns.
func (m *Manager) RunDue(ctx context.Context) error {
	conn, err := m.configured(ctx)
	if err != nil || conn == nil {
		return err
	}
	rec, due, err := m.Due(ctx)
	m.noticeMissed(ctx, conn.Config, rec)
	if err == nil && len(due) > 0 {
		m.run(ctx, conn, due[0])
	}
	return err
}

// RetireIfDue retires the key if that is due, on a node that may write, unless Graph is to
// be left alone.
func (m *Manager) RetireIfDue(ctx context.Context) error {
	conn, err := m.configured(ctx)
	if err != nil || conn == nil {
		return err
	}
	_, due, err := m.Keys.Due(ctx, false)
	if slices.Contains(due, accesskey.WorkRetire) && m.Writable() {
		m.run(ctx, conn, accesskey.WorkRetire)
	}
	return err
}

// Due returns the record and what is due, the most urgent first. A comparison is not due
// while readers do not wait for one either.
func (m *Manager) Due(ctx context.Context) (accesskey.Record, []string, error) {
	rec, due, err := m.Keys.Due(ctx, false)
	if m.Health.SkipReason(ctx) != "" {
		due = slices.DeleteFunc(due, func(work string) bool { return work == accesskey.WorkCompare })
	}
	return rec, due, err
}

// run does a piece of unattended work.
func (m *Manager) run(ctx context.Context, conn *config.Connection, work string) {
	if !m.Health.Allowed(ctx, work == accesskey.WorkCompare, conn.Graph.Probe) {
		return
	}
	var (
		got *flight.Result[accesskey.Record]
		err error
	)
	if work == accesskey.WorkCompare {
		got, err = m.Flights.Share(ctx, Comparing, m.compare)
	} else {
		got, err = m.regenerate(ctx, attempt{cause: causes[work], onlyIf: work})
	}
	if err == nil {
		got.Release()
	}
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
	next, missed := cfg.Schedule.Next(rec.LastRegenerated(), m.Now())
	if missed.IsZero() || cfg.DisableRotation {
		return
	}
	isNew, err := m.Health.Missed(ctx, missed)
	logReport(ctx, err)
	if isNew {
		hclog.FromContext(ctx).Error("the window of a rotation has passed without it", "due_at", timestamp(missed), "next_rotation", timestamp(next))
		m.Events.SendOfKey(ctx, event.RotationMiss, rec.Version, event.DueAt, timestamp(missed))
	}
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// RetireBeforeSwitch retires a key that has been handed out, before the engine turns away
// from the workspace that it belongs to. It runs in a flight of its caller's. It returns a
// warning if it does not succeed in time: the key lives on, out of the engine's reach.
func (m *Manager) RetireBeforeSwitch(ctx context.Context) (warning string) {
	ctx, cancel := context.WithTimeout(ctx, unmountBudget)
	defer cancel()
	err := m.retireNow(ctx)
	if err == nil {
		return ""
	}
	hclog.FromContext(ctx).Error("the deployment access key lives on after its configuration", graph.LogArgs(err)...)
	m.Events.Send(ctx, event.KeyRetireFail, event.PathConfig)
	return "The deployment access key that has been handed out could not be regenerated with the configuration so far: it lives on. " +
		"Regenerate it in the Defender portal. The reason: " + err.Error()
}

// RetireOnUnmount ends the work with the key when the mount goes away: nothing is handed
// out any more, and a key that has been is regenerated.
func (m *Manager) RetireOnUnmount(ctx context.Context) {
	_, _ = m.Keys.Apply(ctx, accesskey.Event{Kind: accesskey.Closed}) // never fails
	ctx, cancel := context.WithTimeout(ctx, unmountBudget)
	defer cancel()
	if err := m.Flights.Alone(ctx, m.retireNow); err != nil {
		hclog.FromContext(ctx).Error("the mount goes away and its deployment access key lives on: regenerate it in the Defender portal", graph.LogArgs(err)...)
		m.Events.Send(ctx, event.KeyRetireFail, event.PathConfig)
	}
}

// retireNow regenerates a key that has been handed out, in a flight of its caller's.
func (m *Manager) retireNow(ctx context.Context) error {
	conn, err := m.configured(ctx)
	if err != nil || conn == nil {
		return err
	}
	rec, err := m.Keys.Record(ctx)
	if err != nil || !rec.Disclosed {
		return err
	}
	_, err = attempt{Manager: m, cause: accesskey.CauseRetired, lastChance: true}.criticalSection(ctx)
	return err
}
