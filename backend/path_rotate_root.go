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

// reportBudget is what remembering the outcome of a piece of work may take.
const reportBudget = 5 * time.Second

// rotateRoot serves POST mdi/rotate-root.
func (b *backend) rotateRoot(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	err := b.workOnRoot(ctx, b.rotateRootNow)
	resp := &logical.Response{}
	if warning := goingOn(err); warning != "" {
		// No error: clients repeat a 503, and a repetition would be another rotation.
		resp.AddWarning(warning)
		return resp, nil
	}
	if err != nil {
		return nil, refusal(err)
	}
	return resp, nil
}

// goingOn returns what to say of a rotation that goes on by itself, or "".
func goingOn(err error) string {
	if unknown, ok := errors.AsType[*rootUnknownError](err); ok {
		return "The credential has not been replaced yet: " + unknown.Error() + "."
	}
	if errors.Is(err, errUnderWay) || errors.Is(err, errRootUnproven) {
		return "The new credential has not worked everywhere yet. The old one is still in use, and the rotation goes on by itself; the status tells how it ends."
	}
	return ""
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

// reportRoot remembers how work on the credential went, also of work whose time is up.
func (b *backend) reportRoot(ctx context.Context, failure error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	conn, err := b.connections.get(ctx, b.storage)
	_, unknown := errors.AsType[*rootUnknownError](failure) // which is no failure of anything
	if err != nil || (failure == nil && conn.config.Root.Failures == 0) || errors.Is(failure, errRootKind) || unknown {
		return
	}
	if failure != nil {
		b.log(ctx).Warn("the app's own credential could not be rotated", logFailure(failure)...)
		b.tell(ctx, eventRootRotateFail, rotateRootPath)
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
	b.logReport(ctx, err)
}

// keepRoot does what is due with the app's own credential.
func (b *backend) keepRoot(ctx context.Context) error {
	conn, err := b.configured(ctx)
	if err != nil || conn == nil {
		return err
	}
	if conn.config.Root.due(b.now()) {
		_ = b.workOnRoot(ctx, b.tendRoot) // what fails has been told
	}
	return nil
}

// tendRoot does what is due when its turn has come, which may be less than what was due
// before. It begins a rotation only if the schedule or somebody has asked for one: what an
// interrupted one has left is settled, so that nobody's credential is replaced unasked.
func (b *backend) tendRoot(ctx context.Context) error {
	conn, err := b.connections.get(ctx, b.storage)
	if err != nil {
		return err
	}
	root, now := conn.config.Root, b.now()
	var rotation error
	switch {
	case !root.due(now):
		return nil
	case root.Pending != nil && !root.hopeless(now), root.rotationDue(now), root.Wanted:
		rotation = b.rotateRootNow(ctx)
	case root.hopeless(now):
		_, rotation = b.changeRoot(ctx, conn, func(r *rootState) { r.giveUp(now) })
	case root.Intent != "":
		_, rotation = b.settleRoot(ctx, conn)
	}
	// Whatever became of that: what has been replaced is not kept by it.
	if conn, err = b.connections.get(ctx, b.storage); err != nil {
		return errors.Join(rotation, err)
	}
	return errors.Join(rotation, b.removeRetired(ctx, conn))
}
