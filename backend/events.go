// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The types of the events that the engine sends on Vault's event bus, and records as
// observations, which a server may keep in a ledger of its own. Events come under the
// paths that a subscriber must be allowed to see. A path and, where it is about the
// key, key_version are in the metadata of each; further metadata stand at the type.
const (
	eventKeyRotate     = "mdi/key-rotate"      // there is a new key; cause
	eventKeyRotateFail = "mdi/key-rotate-fail" // there is none although one was asked for; cause, code, request_id
	eventKeyRetire     = "mdi/key-retire"      // a key that was handed out has been made useless
	eventKeyDrift      = "mdi/key-drift"       // somebody else has regenerated the key
	eventKeyLivesOn    = "mdi/key-lives-on"    // a key is left behind that could not be made useless
	eventRotationMiss  = "mdi/rotation-missed" // the window of a rotation has passed; due_at
	eventConfigWrite   = "mdi/config-write"
	eventConfigDelete  = "mdi/config-delete"
	eventRoleWrite     = "mdi/role-write"
	eventRootRotate    = "mdi/root-rotate" // the app's own credential has been replaced

	eventRootRotateFail = "mdi/root-rotate-fail"
	eventRoleDelete     = "mdi/role-delete"
)

// Names of metadata.
const (
	metadataKeyVersion = "key_version"
	metadataCause      = "cause"
	metadataCode       = "code"
	metadataRequestID  = "request_id"
	metadataDueAt      = "due_at"
)

const (
	// eventBudget is what each way of telling the world may cost.
	eventBudget = time.Second

	// eventsWaiting is how many may wait to be told. A server that takes none in time
	// loses those beyond.
	eventsWaiting = 1000
)

// tell sends an event about a path, and records it as an observation. Not every server
// takes them, and that is no reason to fail or to complain: the log and the status say
// the same. Nobody waits for it either. Who has read the key is not among them: core
// observes each lease itself.
func (b *backend) tell(ctx context.Context, event, path string, metadata ...string) {
	b.herald.do(eventsWaiting, func() { b.tellNow(context.WithoutCancel(ctx), event, path, metadata) })
}

func (b *backend) tellNow(ctx context.Context, event, path string, metadata []string) {
	metadata = append([]string{logical.EventMetadataPath, path}, metadata...)
	observed := map[string]any{}
	for pair := range slices.Chunk(metadata, 2) {
		observed[pair[0]] = pair[1]
	}
	if err := briefly(ctx, func(ctx context.Context) error { return b.RecordObservation(ctx, event, observed) }); err != nil {
		b.log(ctx).Trace("observation not recorded", "type", event, "error", err)
	}
	metadata = append(metadata, logical.EventMetadataModified, "true")
	if err := briefly(ctx, func(ctx context.Context) error { return logical.SendEvent(ctx, b.Backend, event, metadata...) }); err != nil {
		b.log(ctx).Trace("event not sent", "type", event, "error", err)
	}
}

// tellTheLast waits for what there is to tell, since the process may end with the mount.
func (b *backend) tellTheLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*eventBudget)
	defer cancel()
	b.herald.wait(ctx)
}

// briefly gives eventBudget to one way of telling.
func briefly(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, eventBudget)
	defer cancel()
	return do(ctx)
}

// herald does one thing after the other, in a goroutine that ends when there is nothing
// left to do.
type herald struct {
	mu    sync.Mutex
	tasks []func()
	busy  bool
}

// do has a task done when its turn comes, unless most are waiting already.
func (h *herald) do(most int, task func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tasks) >= most {
		return
	}
	h.tasks = append(h.tasks, task)
	if !h.busy {
		h.busy = true
		go h.run()
	}
}

func (h *herald) run() {
	for {
		h.mu.Lock()
		if len(h.tasks) == 0 {
			h.busy = false
			h.mu.Unlock()
			return
		}
		task := h.tasks[0]
		h.tasks = h.tasks[1:]
		h.mu.Unlock()
		task()
	}
}

// wait returns when all that was to be done so far has been, or when ctx ends.
func (h *herald) wait(ctx context.Context) {
	done := make(chan struct{})
	h.do(math.MaxInt, func() { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// tellOfKey sends an event about the key.
func (b *backend) tellOfKey(ctx context.Context, event string, version int, metadata ...string) {
	b.tell(ctx, event, statusPath, append([]string{metadataKeyVersion, strconv.Itoa(version)}, metadata...)...)
}
