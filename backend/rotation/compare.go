// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
)

// compareBudget bounds a comparison, which readers wait for. If it fails, they get the
// key with a warning, and do not wait for another one for a while: an outage of Graph must
// not slow down every read.
const compareBudget = 4 * time.Second

// compare compares the record's key with the tenant's, once for all who want to know. A
// comparison that fails is no error: the store of the key has been told.
func (m *Manager) compare(ctx context.Context) error {
	release, err := m.Comparisons.Share(ctx, comparing, func(ctx context.Context) error {
		number := m.Health.Connection()
		conn, err := m.Configs.Current(ctx)
		if err == nil {
			m.logUncompared(ctx, m.ask(ctx, conn, number, m.Health.May(ctx, health.Comparison)))
		}
		return err
	})
	release()
	return err
}

// ask asks Graph for the tenant's key, unless it may not, and tells the store of the key
// the answer. The error is that of not being allowed to, Graph's, or storage's. A failure
// of a connection that has been replaced meanwhile, by its number, says nothing.
func (m *Manager) ask(ctx context.Context, conn *config.Connection, number int64, may error) error {
	asking, cancel := context.WithTimeout(ctx, compareBudget)
	defer cancel()
	asked := accesskey.Event{Kind: accesskey.Compared, Posts: m.Keys.Posts(), Workspace: conn.Config.Policy().Workspace}
	requestID, err := "", may
	if err == nil {
		asked.Key, requestID, err = conn.Graph.DeploymentAccessKey(asking)
	}
	if err == nil {
		return m.heed(ctx, asked, requestID)
	}
	if number == m.Health.Connection() {
		asked.Kind = accesskey.Unnamed
		rec, _, _ := m.Keys.Apply(ctx, asked) // stores nothing
		if may == nil {
			m.reportUncompared(ctx, rec, number, err)
		}
	}
	return err
}

// reportUncompared reports a comparison that failed, and sends the first of a row as an event.
func (m *Manager) reportUncompared(ctx context.Context, rec accesskey.Record, number int64, failure error) {
	if m.Health.Uncompared(ctx, number, failure) {
		m.Events.SendOfKey(ctx, event.KeyCompareFail, rec.Version, ofGraph(failure)...)
	}
}

// ofGraph returns Graph's part in a failure, as metadata of an event.
func ofGraph(failure error) []string {
	if remote, ok := errors.AsType[*graph.Error](failure); ok {
		return []string{"code", remote.Code, "request_id", remote.RequestID}
	}
	return nil
}

// logUncompared logs why a comparison failed, unless Graph was not even asked.
func (m *Manager) logUncompared(ctx context.Context, err error) {
	if err != nil && !errors.Is(err, health.ErrThrottled) {
		hclog.FromContext(ctx).Warn("the deployment access key could not be compared with the tenant's", graph.LogArgs(err)...)
	}
}

// heed draws the consequence of Graph's word. An unknown key is adopted and reported, and
// not fought.
func (m *Manager) heed(ctx context.Context, word accesskey.Event, requestID string) error {
	rec, finding, err := m.Keys.Apply(ctx, word)
	if errors.Is(err, accesskey.ErrOvertaken) {
		return nil // whoever needs the key asks again
	}
	result := health.DriftNone
	switch args := []any{"key_version", rec.Version, "graph_request_id", requestID}; finding {
	case "":
		return err // storage failed before anything was compared
	case accesskey.Unchanged:
		if rec.Cause == accesskey.CauseExternal {
			result = health.DriftExternal // until the engine has made a key of its own
		}
	case accesskey.Stale:
		result = health.DriftStale
	case accesskey.CauseExternal:
		result = health.DriftExternal
		hclog.FromContext(ctx).Warn("the deployment access key has been regenerated outside the engine", args...)
		m.Events.SendOfKey(ctx, event.KeyDrift, rec.Version)
	case accesskey.CauseRecovered:
		hclog.FromContext(ctx).Warn("Graph names an unknown deployment access key after a regeneration without an answer: it is the engine's own, or was made elsewhere", args...)
	case accesskey.Returned:
		hclog.FromContext(ctx).Warn("Graph names a deployment access key again that it had replaced by another one", args...)
	}
	m.Health.Compared(ctx, result)
	return err
}
