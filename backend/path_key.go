// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	operationPrefix = "mdi"
	keyPath         = "key"

	// unclaimedFor is how long a key that was made for a reader who did not wait
	// for it is kept for the next one.
	unclaimedFor = 2 * time.Minute
)

const (
	keyHelpSynopsis = `Regenerate the deployment access key and return it under a lease.`

	keyHelpDescription = `
Every read regenerates the key through Microsoft Graph, which makes every key
read before useless for new installations. Reads that overlap share one
regeneration. The lease cannot be renewed. When the last lease on the current key
has ended or has been revoked, the key is regenerated once more, so that the one
that was handed out stops working.
`
)

func (b *backend) pathKey() *framework.Path {
	return &framework.Path{
		Pattern:      keyPath + "$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:                    b.keyRead,
				Summary:                     "Regenerate the deployment access key and return it under a lease.",
				Responses:                   map[int][]framework.Response{http.StatusOK: {{Description: "The key and its lease.", Fields: keyResponseFields()}}},
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "key"},
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    keyHelpSynopsis,
		HelpDescription: strings.TrimSpace(keyHelpDescription),
	}
}

// keyRead serves GET mdi/key.
func (b *backend) keyRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	l, reused, err := b.obtain(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	return b.keyResponse(l, reused), nil
}

// obtain returns a lease on a key that may be handed out to a reader who arrives
// now, regenerating the key if need be.
func (b *backend) obtain(ctx context.Context) (l *lease, reused bool, err error) {
	l, err = b.takeLease(ctx, b.unclaimed)
	if l != nil || err != nil {
		return l, true, err
	}
	for {
		version, taken, err := b.flights.share(ctx, b.regenerate(task{cause: causeRead}))
		if errors.Is(err, errNotDue) { // joined a retirement that found nothing to do
			continue
		}
		if err != nil {
			return nil, false, err
		}
		l, err := b.takeLease(ctx, func(rec *keyRecord) bool { return rec.Version >= version })
		taken()
		if l != nil || err != nil {
			return l, false, err
		}
		// The key, or the configuration, has been replaced meanwhile: start over.
	}
}

// takeLease leases the current key under the current configuration if accept agrees
// to the key; else it returns nil.
func (b *backend) takeLease(ctx context.Context, accept func(*keyRecord) bool) (*lease, error) {
	conn, err := b.connections.get(ctx, b.storage)
	if err != nil {
		return nil, err
	}
	ttl := min(conn.config.TTL, b.System().MaxLeaseTTL())
	return b.keeper.lease(ctx, b.storage, conn.config.workspace(), ttl, accept)
}

// unclaimed tells whether a key was made for a reader, recently, and given to
// nobody: the reader hung up, gave up waiting, or was killed together with the
// plugin. Without it, a reader who comes again after that would regenerate again,
// and again, while Graph is slow.
func (b *backend) unclaimed(rec *keyRecord) bool {
	return !rec.Disclosed && (rec.Cause == causeRead || rec.Cause == causeRecovered) &&
		b.now().Sub(rec.RegeneratedAt) < unclaimedFor
}
