// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

const faultsIntroduction = `# What happens when Graph fails

In short, and as the test behind this page (TestFaultMatrix) asserts it:

- **Hosts that share a key go on.** Whatever happens to the POST that replaces the
  key: while Graph's GET works, no host is without an answer, and none gets a dead
  key for more than ten seconds.
- **If GET fails as well**, hosts get the key that Vault knows, with a warning. Only
  after a POST without an answer can the engine not know which key is the tenant's. Hosts
  then get no answer for thirty seconds at most, after which a POST settles it. If Graph has
  asked the engine to wait, that is how long they get none, but no more than five minutes. If
  POST fails too, they get none for as long as both fail.
- **A reader of ` + "`mdi/key`" + `**, who wants a new key, gets none while Graph makes
  none. When Graph makes keys again, the reader has one within a minute and a second, or
  within five minutes if Graph has asked for more.
- **An operator's ` + "`mdi/rotate-key`" + `** is tried again each minute until Graph has
  answered with a new key.

There is one table for each situation in which the engine asks Microsoft Graph for
something, with one line for the faults that lead to the same result. Each begins with a key
that is leased to a host. A fault strikes every call of the kind named, unless it says
"once".

For the first two columns the fault lasts for two minutes (one in the last two
situations), with a tick of Vault each minute. Hosts ask each second. The reader asks
each second as well: from the beginning if the situation is a read of ` + "`mdi/key`" + `,
else from the middle of the fault on.

- **hosts**: for how many seconds hosts that share are without an answer (refused, or
  longer than five seconds in real time) / have a key that is not the tenant's.
- **reader**: when the reader of ` + "`mdi/key`" + ` gets a key that works, counted from
  the first read, or from the end of the fault.

For the other columns the fault lasts until the engine has given up, and then ends.

- **answer**: the status for the one who asked.
- **POSTs**: how often Graph was asked to regenerate the key, and how often it did,
  while the fault was there. An operator waits for 3 s here, instead of 19 s.
- **key**: the one that the engine then has. "Found": Graph's GET names it, and a POST
  without an answer may have made it. "In doubt": Graph has not said yet which key is
  the tenant's. (The [glossary](glossary.md) has these words.)
- **status**: what ` + "`mdi/status`" + ` says of the failure. Scheduled work is tried
  again earlier than said, within a minute, if Graph answers.
- **next read**: what a read under a role that shares the key gets as soon as the
  fault has ended. A warning says that the lease is short, or that Graph has not
  confirmed the key.
- **done**: how long it takes from there until the work has been done or, where
  a reader asked for it, until a read under a role is answered with a key.
`

// faultSlow is not like the others: it needs a caller.
const faultSlow = "slow"

// throttledFor is the Retry-After of a Graph that is busy for long.
const throttledFor = "315"

// statuses are those of refusals and failures. Those that prove that Graph has not done
// what it was asked for do so only if Graph itself has signed them.
var statuses = []struct {
	code  int
	proof bool
}{
	{307, false}, {401, true}, {403, true}, {404, true}, {408, false}, {409, false}, {429, true}, {500, false}, {502, false}, {503, true}, {504, false},
}

// proofs are what the statuses mean that prove that the work is not done.
var proofs = map[int]string{
	401: "refuses every token", 403: "misses the permission", 404: "knows no such resource",
	429: "is busy, and does not say for how long", 503: "declines",
}

// refusals are the faults of a status each: of Graph and of a proxy, without the work and
// after it. Where the status proves that there was no work, there is none after it.
func refusals() []fault {
	var found []fault
	for _, s := range statuses {
		name := strconv.Itoa(s.code)
		found = append(found,
			fault{name: name, about: proofs[s.code], Fault: graphtest.Fault{Status: s.code}},
			fault{name: "proxy's " + name, Fault: graphtest.Fault{Status: s.code, Body: graphtest.BodyHTML}},
			fault{name: "proxy's " + name + " after", Fault: graphtest.Fault{Status: s.code, Body: graphtest.BodyHTML, AfterWork: true}, changes: true})
		if !s.proof {
			found = append(found, fault{name: name + " after", Fault: graphtest.Fault{Status: s.code, AfterWork: true}, changes: true})
		}
	}
	return found
}

// set is a name for several faults, whose names are separated by commas.
type set struct{ name, about, faults string }

// sets are those that nearly always lead to the same.
var sets = []set{
	{"doubtful", "Graph itself answers so, which does not prove that the work is not done", named(doubtful, "", "")},
	{"doubtful after", "the same, with the work done", named(doubtful, "", " after")},
	{"unsigned", "a proxy answers so in Graph's place, or the connection breaks; the work is not done", named(anyStatus, "proxy's ", "") + ", reset"},
	{"unsigned after", "a proxy answers so in Graph's place, with the work done", named(anyStatus, "proxy's ", " after")},
	{"useless", "the work is done, and there is no answer with one key", "200 without a key, empty 200, half an answer, lost answer, reset after, two keys"},
}

func doubtful(proof bool) bool { return !proof }

func anyStatus(bool) bool { return true }

// named returns the names of faults of statuses.
func named(which func(proof bool) bool, before, after string) string {
	var names []string
	for _, s := range statuses {
		if which(s.proof) {
			names = append(names, before+strconv.Itoa(s.code)+after)
		}
	}
	return strings.Join(names, ", ")
}

// members returns the names of faults that a list of faults and sets stands for.
func members(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ", ") {
		if i := slices.IndexFunc(sets, func(s set) bool { return s.name == name }); i >= 0 {
			name = sets[i].faults
		}
		names = append(names, strings.Split(name, ", ")...)
	}
	return names
}

var faults = slices.Concat(refusals(), []fault{
	{name: "401 once", about: "refuses the token once", Fault: graphtest.Fault{Status: 401, Times: 1}},
	{name: "claims once", about: "has revoked the token and asks for one issued later, with a 401", Fault: graphtest.Fault{Claims: true, Times: 1}},
	{name: "429 for 1 s once", about: "is busy once, and says for how short a time", Fault: graphtest.Fault{Status: 429, RetryAfter: "1", Times: 1}},
	{name: "429 for 315 s", about: "is busy, and says for how long a time", Fault: graphtest.Fault{Status: 429, RetryAfter: throttledFor}},
	{name: "reset", about: "breaks the connection, without the work", Fault: graphtest.Fault{Reset: true}},
	{name: "reset after", about: "breaks the connection, having done the work", Fault: graphtest.Fault{Reset: true, AfterWork: true}},
	{name: "late", about: "breaks the connection, and does the work a minute later", Fault: graphtest.Fault{Reset: true, Stubborn: true, Latency: time.Hour}, changes: true, late: true},
	{name: "lost answer", about: "does the work and closes the connection", Fault: graphtest.Fault{Lost: true, AfterWork: true}},
	{name: "half an answer", about: "does the work and answers half of it", Fault: graphtest.Fault{Body: graphtest.BodyTruncated}},
	{name: "empty 200", about: "does the work and answers nothing", Fault: graphtest.Fault{Body: graphtest.BodyEmpty}},
	{name: "200 without a key", about: "does the work and answers without the key", Fault: graphtest.Fault{Body: graphtest.BodyNoKey}},
	{name: "two keys", about: "does the work and answers two keys that disagree", Fault: graphtest.Fault{Body: graphtest.BodyDisagreeing}},
	{name: "old key", about: "answers the POST with the key from before it, without the work", Fault: graphtest.Fault{Body: graphtest.BodyOldKey}, changes: true},
	{name: "old key after", about: "answers the POST with the key from before it, having done the work", Fault: graphtest.Fault{Body: graphtest.BodyOldKey, AfterWork: true}, changes: true},
	{name: "content type", about: "does the work and says that the JSON is text", Fault: graphtest.Fault{Body: graphtest.BodyWrongContentType}},
	{name: faultSlow, about: "does the work, but after whoever asked has to give up; " +
		"the test gives up early, instead of after 20 s, and lets the answer come then", Fault: graphtest.Fault{Latency: time.Hour}},
})

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

// isDone says whether a piece of work is not due any longer.
func isDone(work string) func(*rig) bool {
	return func(r *rig) bool { return !slices.Contains(r.status()[fieldDue].([]string), work) }
}

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

// hasBeenConfirmed says whether Graph has answered what an operator has asked for.
func hasBeenConfirmed(r *rig) bool { return r.status()["wanted_since"] == nil }

// answerIsLost loses the answer of the next regeneration.
func answerIsLost(r *rig) {
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Regenerate, Lost: true, AfterWork: true, Times: 1})
}

var (
	post = []graphtest.Operation{graphtest.Regenerate}
	get  = []graphtest.Operation{graphtest.Get}
)

var situations = []situation{
	{
		name: "Read", about: "A read of `mdi/key`, which regenerates. The fault strikes the POST.",
		hits: post, setUp: nothing, act: request(logical.ReadOperation, keyPath), done: keyIsServed,
		attended: true, reads: true, last: 2 * time.Minute, want: wantOfRead,
	},
	{
		name: "Rotate-key", about: "`mdi/rotate-key`. The fault strikes the POST. Done: Graph has answered with a new key.",
		hits: post, setUp: nothing, act: request(logical.UpdateOperation, rotateKeyPath), done: hasBeenConfirmed,
		attended: true, ticks: true, insists: true, last: 2 * time.Minute, want: wantOfRotateKey,
	},
	{
		name: "Scheduled rotation", about: "The periodic tick when a rotation is due. The fault strikes the POST.",
		hits: post, setUp: rotationFallsDue, act: tick, done: isDone(accesskey.WorkRotate),
		ticks: true, last: 2 * time.Minute, want: wantOfRotation,
	},
	{
		name: "Scheduled rotation, GET", about: "The same; the fault strikes the GET that precedes the POST of scheduled work.",
		hits: get, setUp: rotationFallsDue, act: tick, done: isDone(accesskey.WorkRotate),
		ticks: true, last: 2 * time.Minute, want: wantOfRotationGet,
	},
	{
		name: "Retirement", about: "The periodic tick when the last lease on the key has ended. The fault strikes the POST.",
		hits: post, setUp: lastLeaseEnds, act: tick, done: isDone(accesskey.WorkRetire),
		ticks: true, last: 2 * time.Minute, want: wantOfRetirement,
	},
	{
		name: "Retirement, GET", about: "The same; the fault strikes the GET that precedes the POST.",
		hits: get, setUp: lastLeaseEnds, act: tick, done: isDone(accesskey.WorkRetire),
		ticks: true, last: 2 * time.Minute, want: wantOfRetirementGet,
	},
	{
		name: "Drift check of a read", about: "A read under a role when the key is to be compared with the tenant's first. The fault strikes the GET, for whose answer a read waits for 5 s at most. Done: the key has been compared.",
		hits: get, setUp: comparisonFallsDue, act: request(logical.ReadOperation, hosts), done: keyIsCompared,
		attended: true, last: 2 * time.Minute, want: wantOfComparison,
	},
	{
		name: "Drift check of a tick", about: "The periodic tick when the key is to be compared. The fault strikes the GET. Done: the key has been compared.",
		hits: get, setUp: comparisonFallsDue, act: tick, done: hasBeenCompared,
		ticks: true, last: 2 * time.Minute, want: wantOfTickComparison,
	},
	{
		name: "Lost answer, then GET", about: "A read of `mdi/key` whose answer is lost, once, although Graph has made a key. The fault strikes the GET that would settle it.",
		hits: get, setUp: answerIsLost, act: request(logical.ReadOperation, keyPath), done: keyIsServed,
		attended: true, reads: true, without: 30 * time.Second, last: time.Minute, want: wantOfLostThenGet,
	},
	{
		name: "Read, POST and GET", about: "A read of `mdi/key`. The fault strikes the POST and each GET.",
		hits: append(post, get...), setUp: nothing, act: request(logical.ReadOperation, keyPath), done: keyIsServed,
		attended: true, reads: true, without: time.Hour, last: time.Minute, want: wantOfBoth,
	},
}
