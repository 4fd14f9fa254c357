// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// listen restarts the engine with an event bus.
func (r *rig) listen(bus logical.EventSender) {
	r.t.Helper()
	r.restart()
	require.NoError(r.t, r.engine.Setup(r.t.Context(), &logical.BackendConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: r.log}), System: r.system, StorageView: r.storage, EventsSender: bus,
	}))
}

// ledgerOfObservations remembers what was observed.
type ledgerOfObservations struct {
	mu   sync.Mutex
	seen map[string]map[string]any
	err  error
}

func (l *ledgerOfObservations) RecordObservationFromPlugin(_ context.Context, what string, data map[string]any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[what] = data
	return l.err
}

func TestObservations(t *testing.T) {
	for _, failure := range []error{nil, errors.New("not implemented")} {
		r := newRig(t)
		observed := &ledgerOfObservations{seen: map[string]map[string]any{}, err: failure}
		require.NoError(t, r.engine.Setup(t.Context(), &logical.BackendConfig{
			Logger: hclog.New(&hclog.LoggerOptions{Output: r.log}), System: r.system, StorageView: r.storage, ObservationRecorder: observed,
		}))
		r.write(configPath, r.config(nil))
		r.key()
		r.idle()
		require.Equal(t, map[string]any{"path": "config"}, observed.seen["mdi/config-write"])
		require.Equal(t, map[string]any{"path": "status", "key_version": "1", "cause": "read"}, observed.seen["mdi/key-rotate"])
		require.Len(t, observed.seen, 2)
		r.noSecretLogged()
	}
}

type bus struct {
	mu       sync.Mutex
	types    []string
	metadata []map[string]any
}

func (b *bus) SendEvent(_ context.Context, eventType logical.EventType, event *logical.EventData) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.types = append(b.types, string(eventType))
	b.metadata = append(b.metadata, event.Metadata.AsMap())
	return nil
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	heard := &bus{}
	r.listen(heard)
	r.write(configPath, r.config(nil))
	r.write("roles/hosts", nil)
	r.read(hosts)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Times: 1, Status: 403})
	r.fails(400, logical.UpdateOperation, rotateKeyPath, nil)
	r.write(rotateKeyPath, nil)
	held := r.read(hosts)
	r.sim.RegenerateInPortal()
	r.revoke(held)
	r.idle()
	r.tick()
	r.delete("roles/hosts")
	r.delete(configPath)
	r.idle()
	require.Equal(t, []string{
		"mdi/config-write", "mdi/role-write", "mdi/key-rotate", "mdi/key-rotate-fail", "mdi/key-rotate", "mdi/key-retire",
		"mdi/key-drift", "mdi/role-delete",
		"mdi/key-rotate", "mdi/config-delete", // on watch, the key before may still be the tenant's
	}, heard.types)
	require.Equal(t, map[string]any{"path": "config", "modified": "true"}, heard.metadata[0])
	require.Equal(t, map[string]any{"path": "status", "modified": "true", "key_version": "1", "cause": "read"}, heard.metadata[2])
	require.Equal(t, "Forbidden", heard.metadata[3]["code"])
	require.NotEmpty(t, heard.metadata[3]["request_id"])
	for _, m := range heard.metadata {
		for _, value := range m {
			r.noSecretIn("an event", value.(string))
		}
	}
}

type deafServer struct{}

func (deafServer) SendEvent(context.Context, logical.EventType, *logical.EventData) error {
	return errors.New("rpc error: code = Unimplemented")
}

func TestServerWithoutAnEventBusIsNoObstacle(t *testing.T) {
	r := newRig(t)
	r.listen(deafServer{})
	r.write(configPath, r.config(nil))
	require.True(t, r.works(r.key()))
	r.idle()
	require.NotContains(t, r.log.String(), "[ERROR]")
	require.NotContains(t, r.log.String(), "[WARN]")
}

// hangingServer answers no event until it is told to.
type hangingServer struct{ answer chan struct{} }

func (s hangingServer) SendEvent(ctx context.Context, _ logical.EventType, _ *logical.EventData) error {
	select {
	case <-s.answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestServerThatTakesNoEventKeepsNobodyWaiting(t *testing.T) {
	r := newRig(t)
	server := hangingServer{answer: make(chan struct{})}
	r.listen(server)
	start := time.Now()
	r.write(configPath, r.config(nil))
	for range 5 {
		require.True(t, r.works(r.key()))
	}
	require.Less(t, time.Since(start), time.Second)
	close(server.answer)
	r.idle()
}
