// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	rotateRootPath = "rotate-root"

	rotateRootHelpSynopsis = `Replace the app's own client secret or certificate.`

	rotateRootHelpDescription = `
The engine adds a credential to the app registration, signs in with it several times,
and uses it from then on; nobody ever sees it. The one before is removed after a grace
period, if the engine made it; credentials that were made by others are never touched,
so remove the one that you configured at first.

A client secret needs the permission Application.ReadWrite.OwnedBy, and the app as an
owner of itself. A certificate needs no permission, if application_object_id is
configured.
`
)

func (b *backend) pathRotateRoot() *framework.Path {
	return &framework.Path{
		Pattern:      rotateRootPath + "$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.rotateRoot,
				Summary:                     "Replace the app's own client secret or certificate.",
				Responses:                   emptyResponses("The credential has been replaced."),
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "rotate", OperationSuffix: "root-credential"},
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    rotateRootHelpSynopsis,
		HelpDescription: strings.TrimSpace(rotateRootHelpDescription),
	}
}

// rotateRoot serves POST mdi/rotate-root.
func (b *backend) rotateRoot(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	err := b.workOnRoot(ctx, b.rotateRootNow)
	if errors.Is(err, errUnderWay) {
		err = errRootUnproven // and a repetition would be another rotation
	}
	if err != nil {
		return nil, refusal(err)
	}
	return &logical.Response{}, nil
}

// workOnRoot does work on the app's own credential, one piece at a time and apart from
// the request, as flights do for the key. What fails stands in the status.
func (b *backend) workOnRoot(ctx context.Context, work func(context.Context) error) error {
	_, err := b.rootWork.alone(ctx, func(ctx context.Context) (*logical.Response, error) {
		err := work(ctx)
		b.reportRoot(ctx, err)
		return nil, err
	})
	return err
}

// reportRoot remembers how work on the credential went.
func (b *backend) reportRoot(ctx context.Context, failure error) {
	conn, err := b.connections.get(ctx, b.storage)
	if err != nil || (failure == nil && conn.config.Root.Failures == 0) || errors.Is(failure, errRootKind) {
		return
	}
	if failure != nil {
		b.Logger().Warn("the app's own credential could not be rotated", "error", failure)
	}
	now := b.now()
	_, err = b.changeRoot(ctx, conn, func(r *rootState) {
		if failure == nil {
			r.Failures, r.NextAttempt = 0, time.Time{}
			return
		}
		r.LastError, r.LastErrorAt = explain(failure), now
		r.NextAttempt = now.Add(retryAfter(r.Failures))
		r.Failures++
	})
	b.logReport(err)
}

// keepRoot does what is due with the app's own credential.
func (b *backend) keepRoot(ctx context.Context) error {
	conn, err := b.connections.get(ctx, b.storage)
	if errors.Is(err, errUnconfigured) {
		return nil
	}
	if err != nil {
		return err
	}
	root := conn.config.Root
	if !root.due(b.now()) {
		return nil
	}
	// What fails has been told.
	_ = b.workOnRoot(ctx, func(ctx context.Context) error {
		if root.unsettled() || root.rotationDue(b.now()) {
			return b.rotateRootNow(ctx)
		}
		return b.removeRetired(ctx, conn)
	})
	return nil
}
