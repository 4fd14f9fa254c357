// SPDX-License-Identifier: MPL-2.0

// Package event sends what happens in the engine to Vault's event bus, and records it as
// observations, which a server may keep in a ledger of its own.
//
// Not every server takes them. That is no reason for a request to fail or to wait: events
// are sent one after the other in the background, and the log and mdi/status say the
// same. Reads of the key are not among them, because core observes each lease itself.
package event

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// The types of events. An event comes under the path that a subscriber must be allowed
// to read. The metadata of each has that path and, if it is about the key, key_version;
// what else it has is said here.
const (
	KeyRotate     = "mdi/key-rotate"      // there is a new key; cause
	KeyRotateFail = "mdi/key-rotate-fail" // a regeneration failed; cause, code, request_id
	KeyRetire     = "mdi/key-retire"      // a key that had been handed out no longer works
	KeyRetireFail = "mdi/key-retire-fail" // a key that was handed out lives on without the engine
	KeyDrift      = "mdi/key-drift"       // the key was regenerated outside the engine
	RotationMiss  = "mdi/rotation-missed" // the window of a rotation has passed; due_at

	KeyCompareFail = "mdi/key-compare-fail" // the tenant's key can no longer be read; code, request_id

	RootRotate     = "mdi/root-rotate" // the app's own credential has been replaced
	RootRotateFail = "mdi/root-rotate-fail"

	ConfigWrite  = "mdi/config-write"
	ConfigDelete = "mdi/config-delete"
	RoleWrite    = "mdi/role-write"
	RoleDelete   = "mdi/role-delete"
)

// formerNames are types that have been renamed. They are sent under both names until the
// next minor version, so that no subscription falls silent.
var formerNames = map[string]string{KeyRetireFail: "mdi/key-lives-on"}

// Paths of the engine under which events come.
const (
	PathConfig     = "config"
	PathRoles      = "roles/"
	PathStatus     = "status"
	PathRotateRoot = "rotate-root"
)

const (
	// budget bounds the sending of one event, and the recording of one observation.
	budget = time.Second

	// mostWaiting is how many events may wait. A server that takes none in time loses
	// those beyond.
	mostWaiting = 1000
)

// sink is what Vault offers to a plugin.
type sink interface {
	RecordObservation(ctx context.Context, observationType string, data map[string]any) error
	SendEvent(ctx context.Context, eventType logical.EventType, event *logical.EventData) error
}

// Sender sends events in the order in which they happen. Each waits for the one before,
// which takes no goroutine.
type Sender struct {
	sink    sink
	waiting atomic.Int64

	mu   sync.Mutex
	last context.Context // ends when the last event so far has been sent
}

// New returns a sender to a backend.
func New(to sink) *Sender {
	none, end := context.WithCancel(context.Background())
	end()
	return &Sender{sink: to, last: none}
}

// Send sends an event about a path, with metadata as pairs of names and values. It does
// not wait, and what fails is logged at level trace.
func (s *Sender) Send(ctx context.Context, event, path string, metadata ...string) {
	ctx = context.WithoutCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{event, formerNames[event]} {
		if name == "" || s.waiting.Load() >= mostWaiting {
			continue
		}
		s.waiting.Add(1)
		sent, end := context.WithCancel(context.Background())
		context.AfterFunc(s.last, func() {
			defer end()
			s.waiting.Add(-1)
			s.sendNow(ctx, name, path, metadata)
		})
		s.last = sent
	}
}

// SendOfKey sends an event about a version of the key.
func (s *Sender) SendOfKey(ctx context.Context, event string, version int, metadata ...string) {
	s.Send(ctx, event, PathStatus, append([]string{"key_version", strconv.Itoa(version)}, metadata...)...)
}

// Flush waits until all events so far have been sent, but not for long. The process may
// end with the mount.
func (s *Sender) Flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*budget)
	defer cancel()
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	select {
	case <-last.Done():
	case <-ctx.Done():
	}
}

func (s *Sender) sendNow(ctx context.Context, event, path string, metadata []string) {
	metadata = append([]string{logical.EventMetadataPath, path}, metadata...)
	observed := map[string]any{}
	for pair := range slices.Chunk(metadata, 2) {
		observed[pair[0]] = pair[1]
	}
	recording, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	if err := s.sink.RecordObservation(recording, event, observed); err != nil {
		hclog.FromContext(ctx).Trace("observation not recorded", "type", event, "error", err)
	}
	metadata = append(metadata, logical.EventMetadataModified, "true")
	sending, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	if err := logical.SendEvent(sending, s.sink, event, metadata...); err != nil {
		hclog.FromContext(ctx).Trace("event not sent", "type", event, "error", err)
	}
}
