// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strconv"
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

// eventBudget is what telling the world may cost.
const eventBudget = time.Second

// tell sends an event about a path, and records it as an observation. Not every server
// takes them, and that is no reason to fail or to complain: the log and the status say
// the same. Who has read the key is not among them: core observes each lease itself.
func (b *backend) tell(ctx context.Context, event, path string, metadata ...string) {
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

// briefly gives eventBudget to something that must not go down with the request.
func briefly(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventBudget)
	defer cancel()
	return do(ctx)
}

// tellOfKey sends an event about the key.
func (b *backend) tellOfKey(ctx context.Context, event string, version int, metadata ...string) {
	b.tell(ctx, event, statusPath, append([]string{metadataKeyVersion, strconv.Itoa(version)}, metadata...)...)
}
