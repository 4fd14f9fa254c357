// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// findEndBudget bounds the look-up of when a secret ends. It is short, since a write is
// worth more than what it finds, and fits into handlerBudget beside what else a write does.
const findEndBudget = 1500 * time.Millisecond

// findEnd looks up when a client secret ends that somebody has configured, so that it is
// rotated before that. It does so when the period begins to count, and warns if it cannot
// tell. The connection is not in use yet.
func findEnd(ctx context.Context, old *config, conn *connection, d *framework.FieldData, resp *logical.Response) {
	next := conn.config
	begins := old == nil || !old.sameApp(next) || old.Credential != next.Credential || old.Root.Period != next.Root.Period
	if !begins || next.Root.Period == 0 || next.Credential.Type != credentialClientSecret || !next.Root.EndsAt.IsZero() {
		return
	}
	if online, _ := givenValue(d, fieldVerifyConnection); online.(bool) {
		next.Root.EndsAt = endOfSecret(ctx, conn)
	}
	if next.Root.EndsAt.IsZero() {
		resp.AddWarning("When the " + fieldClientSecret + " ends is not known to the engine, and " + fieldRootRotationPeriod +
			" counts from now: if it ends before " + timestamp(next.Root.next()) + ", rotate it earlier (" + rotateRootPath + ").")
	}
}

// endOfSecret returns when the secret of a connection ends, or zero if the app may not
// look at its registration, or more than one of its secrets begins like this one.
func endOfSecret(ctx context.Context, conn *connection) time.Time {
	ctx, cancel := context.WithTimeout(ctx, findEndBudget)
	defer cancel()
	found, _, err := conn.graph.Passwords(ctx)
	found = slices.DeleteFunc(found, func(p graph.PasswordCredential) bool {
		return p.Hint == "" || !strings.HasPrefix(conn.config.Credential.Secret, p.Hint) || p.End.Before(entrasNow())
	})
	if err != nil || len(found) != 1 {
		return time.Time{}
	}
	return found[0].End
}
