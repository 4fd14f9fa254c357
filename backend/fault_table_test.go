// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

const faultsIntroduction = `# What happens when Graph fails

One table for each situation in which the engine asks Microsoft Graph for
something, one line for each way in which Graph can fail. Every line is a test on
the simulator (TestFaultMatrix), and this page is rendered from what the test
expects.

Each begins with a key that is leased to a host. A fault strikes every call of the
kind named until the engine has given up, unless it says "once"; then it has gone.

- **answer**: the status for the one who asked.
- **POSTs**: how often Graph was asked to regenerate the key, and how often it did,
  while the fault was there.
- **key**: the one that the engine then has. "Found": made by a POST whose answer
  was lost, and read with a GET. "In doubt": nobody can tell whether the POST was
  carried out, or is still on its way; no key is handed out until that is settled.
- **status**: what ` + "`mdi/status`" + ` tells of the failure. Retries of scheduled work
  come earlier than said, within a minute, if Graph has been unreachable and is back.
- **next read**: what a read under a role that shares the key gets as soon as the
  fault has gone.
- **done**: how long it takes from there until the work has been done or, where
  somebody asked for it, until such a read is answered with a key.
`

// faultSlow is not like the others: it needs a caller.
const faultSlow = "slow beyond the budget"

var faults = []fault{
	{"401, once", "refuses the token once", graphtest.Fault{Status: 401, Times: 1}},
	{"401", "refuses every token", graphtest.Fault{Status: 401}},
	{"401 with claims", "has revoked the token and asks for one issued later", graphtest.Fault{Claims: true, Times: 1}},
	{"403", "misses the permission", graphtest.Fault{Status: 403}},
	{"404", "knows no such resource", graphtest.Fault{Status: 404}},
	{"409", "reports a conflict", graphtest.Fault{Status: 409}},
	{"429 for 1 s, once", "is busy, and says for how short a time", graphtest.Fault{Status: 429, RetryAfter: "1", Times: 1}},
	{"429 for 315 s", "is busy, and says for how long a time", graphtest.Fault{Status: 429, RetryAfter: "315"}},
	{"429 without a time", "is busy, and does not say for how long", graphtest.Fault{Status: 429}},
	{"500", "fails, without the work", graphtest.Fault{Status: 500}},
	{"502 with a page", "is not reached by a proxy, which answers with HTML, without the work", graphtest.Fault{Status: 502, Body: graphtest.BodyHTML}},
	{"503", "declines", graphtest.Fault{Status: 503}},
	{"504", "is given up by a gateway, without the work", graphtest.Fault{Status: 504}},
	{"504 after the work", "is given up by a gateway, having done the work", graphtest.Fault{Status: 504, AfterWork: true}},
	{"reset before the work", "breaks the connection, without the work", graphtest.Fault{Reset: true}},
	{"reset after the work", "breaks the connection, having done the work", graphtest.Fault{Reset: true, AfterWork: true}},
	{"lost answer", "closes the connection, having done the work", graphtest.Fault{Lost: true, AfterWork: true}},
	{"truncated JSON", "does the work and answers half of it", graphtest.Fault{Body: graphtest.BodyTruncated}},
	{"empty 200", "does the work and answers nothing", graphtest.Fault{Body: graphtest.BodyEmpty}},
	{"wrong content type", "does the work and says that the JSON is text", graphtest.Fault{Body: graphtest.BodyWrongContentType}},
	{"two keys", "does the work and answers two keys that disagree", graphtest.Fault{Body: graphtest.BodyDisagreeing}},
	{faultSlow, "does the work, but after whoever asked has to give up; " +
		"the test gives up early, instead of after 20 s, and lets the answer come then", graphtest.Fault{Latency: time.Hour}},
}

func nothing(*rig) {}

func request(op logical.Operation, path string) func(context.Context, *rig) (*logical.Response, error) {
	return func(ctx context.Context, r *rig) (*logical.Response, error) {
		return r.request(ctx, op, path, nil)
	}
}

func tick(ctx context.Context, r *rig) (*logical.Response, error) {
	return r.engine.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, Storage: r.storage})
}

func keyIsServed(r *rig) bool {
	resp, err := r.request(r.t.Context(), logical.ReadOperation, hosts, nil)
	return err == nil && r.works(resp)
}

func nothingIsDue(r *rig) bool { return len(r.status()[fieldDue].([]string)) == 0 }

func rotationFallsDue(r *rig) {
	r.write(configPath, map[string]any{schedule.FieldPeriod: "24h"})
	r.clock.advance(24 * time.Hour)
}

func lastLeaseEnds(r *rig) { r.clock.advance(48*time.Hour + lease.Grace) }

func comparisonFallsDue(r *rig) { r.clock.advance(config.DefaultDriftCheckInterval) }

func keyIsCompared(r *rig) bool {
	_, err := r.request(r.t.Context(), logical.ReadOperation, hosts, nil)
	return err == nil && r.status()[fieldDriftResult] == health.DriftNone
}

func hasBeenCompared(r *rig) bool { return r.status()[fieldDriftResult] == health.DriftNone }

var situations = []situation{
	{
		name: "Read", about: "A read of `mdi/key`, which regenerates. The fault strikes the POST.",
		hit: graphtest.Regenerate, attended: true, setUp: nothing, act: request(logical.ReadOperation, keyPath), done: keyIsServed, want: wantOfRead,
	},
	{
		name: "Rotate-key", about: "`mdi/rotate-key`. The fault strikes the POST.",
		hit: graphtest.Regenerate, attended: true, setUp: nothing, act: request(logical.UpdateOperation, rotateKeyPath), done: keyIsServed, want: wantOfRotateKey,
	},
	{
		name: "Scheduled rotation", about: "The periodic tick when a rotation is due. The fault strikes the POST.",
		hit: graphtest.Regenerate, setUp: rotationFallsDue, act: tick, done: nothingIsDue, want: wantOfRotation,
	},
	{
		name: "Scheduled rotation, GET", about: "The same; the fault strikes the GET that precedes the POST of work that nobody waits for. A 404 may mean that the tenant has no key yet.",
		hit: graphtest.Get, setUp: rotationFallsDue, act: tick, done: nothingIsDue, want: wantOfRotationGet,
	},
	{
		name: "Retirement", about: "The periodic tick when the last lease on the key has ended. The fault strikes the POST.",
		hit: graphtest.Regenerate, setUp: lastLeaseEnds, act: tick, done: nothingIsDue, want: wantOfRetirement,
	},
	{
		name: "Retirement, GET", about: "The same; the fault strikes the GET that precedes the POST, with a 404 as above.",
		hit: graphtest.Get, setUp: lastLeaseEnds, act: tick, done: nothingIsDue, want: wantOfRetirementGet,
	},
	{
		name: "Drift check of a read", about: "A read under a role when the key is to be compared with the tenant's first. The fault strikes the GET, for whose answer a read waits for 5 s at most. Done: the key has been compared.",
		hit: graphtest.Get, attended: true, patient: true, setUp: comparisonFallsDue, act: request(logical.ReadOperation, hosts), done: keyIsCompared, want: wantOfComparison,
	},
	{
		name: "Drift check of a tick", about: "The periodic tick when the key is to be compared. The fault strikes the GET. Done: the key has been compared.",
		hit: graphtest.Get, setUp: comparisonFallsDue, act: tick, done: hasBeenCompared, want: wantOfTickComparison,
	},
}
