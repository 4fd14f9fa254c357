// SPDX-License-Identifier: MPL-2.0

package event_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/event"
)

// server is what a sender sends to.
type server struct {
	err      error
	hangs    chan struct{} // until it is closed, nothing is answered; nil: at once
	types    []string
	metadata []map[string]any
	observed []map[string]any
}

func (s *server) RecordObservation(ctx context.Context, _ string, data map[string]any) error {
	s.observed = append(s.observed, data)
	return s.answer(ctx)
}

func (s *server) SendEvent(ctx context.Context, eventType logical.EventType, event *logical.EventData) error {
	s.types = append(s.types, string(eventType))
	s.metadata = append(s.metadata, event.Metadata.AsMap())
	return s.answer(ctx)
}

func (s *server) answer(ctx context.Context) error {
	if s.hangs == nil {
		return s.err
	}
	select {
	case <-s.hangs:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestEventsAreSentInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		sender := event.New(s)
		ended, end := context.WithCancel(t.Context())
		end() // a request that has ended
		sender.Send(ended, event.ConfigWrite, event.PathConfig)
		sender.SendOfKey(ended, event.KeyRotate, 7, "cause", "read")
		sender.Send(ended, event.RoleDelete, event.PathRoles+"hosts")
		sender.Flush(t.Context())
		require.Equal(t, []string{event.ConfigWrite, event.KeyRotate, event.RoleDelete}, s.types)
		require.Equal(t, []map[string]any{
			{"path": "config", "modified": "true"},
			{"path": "status", "modified": "true", "key_version": "7", "cause": "read"},
			{"path": "roles/hosts", "modified": "true"},
		}, s.metadata)
		require.Equal(t, []map[string]any{
			{"path": "config"}, {"path": "status", "key_version": "7", "cause": "read"}, {"path": "roles/hosts"},
		}, s.observed)
	})
}

// A subscription to the name of version 0.1 does not fall silent.
func TestRenamedEventIsSentUnderBothNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		sender := event.New(s)
		sender.Send(t.Context(), event.KeyRetireFail, event.PathConfig)
		sender.Flush(t.Context())
		require.Equal(t, []string{"mdi/key-retire-fail", "mdi/key-lives-on"}, s.types)
		require.Equal(t, s.metadata[0], s.metadata[1])
	})
}

func TestServerThatTakesNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx := hclog.WithContext(t.Context(), hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &log}))
		sender := event.New(&server{err: errors.New("unimplemented")})
		sender.Send(ctx, event.ConfigWrite, event.PathConfig)
		sender.Flush(ctx)
		require.Contains(t, log.String(), "[TRACE] observation not recorded")
		require.Contains(t, log.String(), "[TRACE] event not sent")
		require.NotContains(t, log.String(), "[WARN]")
	})
}

// Each event gets a second for its observation and one for itself. Requests wait for none,
// and events beyond a thousand are dropped.
func TestServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{hangs: make(chan struct{})}
		sender := event.New(s)
		start := time.Now()
		for range 1010 {
			sender.Send(t.Context(), event.RoleWrite, event.PathRoles)
		}
		require.Zero(t, time.Since(start))
		sender.Flush(t.Context())
		require.Equal(t, 2*time.Second, time.Since(start), "Flush does not wait for long")
		time.Sleep(9*time.Second + time.Second/2)
		synctest.Wait()
		require.Len(t, s.types, 6)
		close(s.hangs)
		synctest.Wait()
		require.InDelta(t, 1000, len(s.types), 1, "one was being sent while the others waited")

		sender.Send(t.Context(), event.ConfigWrite, event.PathConfig) // there is room again
		sender.Flush(t.Context())
		require.Equal(t, event.ConfigWrite, s.types[len(s.types)-1])
	})
}
