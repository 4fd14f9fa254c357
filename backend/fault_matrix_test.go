// SPDX-License-Identifier: MPL-2.0

// Many connections are made, and this makes each cheaper.
//go:debug tlsmlkem=0

package backend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// The fault matrix: each way in which Graph can fail, in each situation in which the
// engine asks Graph for something. What is expected stands in fault_want_test.go, written
// down rather than computed, and in the documentation, rendered from there.

const (
	faultsPage = "../docs/faults.md"

	// updateFaultsPage, as an environment variable, has the page written anew.
	updateFaultsPage = "MDI_UPDATE_DOCS"

	// cellsAtOnce bounds how many cells are played at a time. Most wait for a repetition
	// that the Graph client makes after a second or two.
	cellsAtOnce = 64

	// patience is how long those wait who ask the engine for something. The engine would
	// let them wait for 19 s, with as many POSTs.
	patience = 3 * time.Second
)

// situation is one in which the engine asks Graph for something: a table of the page.
type situation struct {
	name  string
	about string // what the table is about, for the page
	// hits are the calls that the fault strikes.
	hits []graphtest.Operation
	// setUp brings a mount, whose key is leased under the role "hosts", to where
	// the situation begins.
	setUp func(*rig)
	// act does what the situation is about, as one who waits as long as ctx.
	act func(context.Context, *rig) (*logical.Response, error)
	// attended says that act has an answer, ticks that the engine goes on with each tick,
	// reads that act is a reader's who wants a new key, and insists that who has asked
	// asks again.
	attended, ticks, reads, insists bool
	// done says whether what the situation is about has happened after all.
	done func(*rig) bool
	// without is how long hosts that share are without an answer at most, and last how
	// long the fault lasts for them.
	without, last time.Duration
	want          []outcome
}

// fault is a row: what Graph does to each of the calls, or to the first.
type fault struct {
	name  string
	about string
	graphtest.Fault
	// changes says that the fault is one of calls that change something, and late that
	// the work is done when the fault ends.
	changes, late bool
}

// outcome is what is expected of several faults, or sets of them: see members.
type outcome struct {
	faults string
	cell
}

// cell is what comes of a fault in a situation.
type cell struct {
	answer string // to the one who asked
	posts  string // regenerations asked for / carried out, while the fault was there
	key    string // that the engine has afterwards
	state  string // what the status says of it
	next   string // what a reader under a role gets as soon as the fault has gone
	done   string // how long after that the work is done, or a reader gets a key that works
	hosts  string // seconds that they are without an answer / with a dead key, while the fault is there
	reader string // how long a reader of mdi/key is without a key that works
}

// TestFaultMatrix plays each fault in each situation. With the race detector, which makes it
// ten times slower, a fifth of the cells is played, and with -short a thirtieth.
func TestFaultMatrix(t *testing.T) {
	besideOthers(t)
	var cells sync.WaitGroup
	room := make(chan struct{}, cellsAtOnce)
	seen, oneIn := 0, 1
	switch {
	case testing.Short():
		oneIn = 31 // prime to the number of situations: each gets its turn
	case withRaceDetector():
		oneIn = 5
	}
	// The faults that have the Graph client wait for long come first.
	for _, f := range faults {
		for _, s := range situations {
			if seen++; !s.suffers(f) || seen%oneIn != 0 {
				continue
			}
			want := s.expected(t)[f.name]
			room <- struct{}{}
			// Not t.Parallel, which runs as many as there are processors: these
			// wait most of the time.
			cells.Go(func() {
				defer func() { <-room }()
				t.Run(s.name+"/"+f.name, func(t *testing.T) {
					got := play(t, s, f)
					// A GET has four seconds, repetitions included: on a busy machine
					// that can be too little.
					for again := 0; again < 2 && got != want; again++ {
						got = play(t, s, f)
					}
					require.Equal(t, want, got)
				})
			})
		}
	}
	cells.Wait()
}

func withRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// suffers says whether a fault can strike in a situation, and differs there from others.
func (s situation) suffers(f fault) bool { return !f.changes || !s.hit(graphtest.Get) }

func (s situation) hit(op graphtest.Operation) bool { return slices.Contains(s.hits, op) }

// hangs says whether the POST gets no answer before the fault ends.
func (s situation) hangs(f fault) bool { return f.name == faultSlow && s.hit(graphtest.Regenerate) }

// expected returns what is expected by the names of the faults, each of which is there once.
func (s situation) expected(t *testing.T) map[string]cell {
	cells := map[string]cell{}
	for _, g := range s.want {
		for _, name := range members(g.faults) {
			require.NotContains(t, cells, name, s.name)
			cells[name] = g.cell
		}
	}
	for _, f := range faults {
		_, there := cells[f.name]
		require.Equal(t, s.suffers(f), there, "%s: %s", s.name, f.name)
	}
	return cells
}

// begin brings a mount to where a situation begins, with the key that a host holds.
func (s situation) begin(t *testing.T) (r *rig, held *logical.Response) {
	r = configured(t)
	r.engine.rotation.Sleep = r.clock.sleepOf
	r.write("roles/hosts", map[string]any{config.FieldTTL: "48h"})
	held = r.read(hosts)
	r.clock.advance(time.Minute)
	s.setUp(r)
	return r, held
}

func (r *rig) strike(s situation, f fault) {
	for _, hit := range s.hits {
		struck := f.Fault
		struck.Operation = hit
		r.sim.Inject(struck)
	}
}

// patiently has those who ask leave after their patience, as the clock of the test has it,
// or soon if nothing else ends what they wait for.
func (r *rig) patiently(hangs bool) (context.Context, context.CancelFunc) {
	ctx := context.WithValue(r.t.Context(), untilKey{}, r.clock.now().Add(patience))
	if !hangs {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, 300*time.Millisecond)
}

// untilKey is for the time at which a request ends.
type untilKey struct{}

// sleepOf lets the time pass that the engine waits in a request, which may end meanwhile.
func (c *clock) sleepOf(ctx context.Context, d time.Duration) error {
	if until, ok := ctx.Value(untilKey{}).(time.Time); ok && !c.now().Add(d).Before(until) {
		c.advance(max(0, until.Sub(c.now())))
		return context.DeadlineExceeded
	}
	return c.sleep(ctx, d)
}

// play returns what comes of a fault in a situation.
func play(t *testing.T, s situation, f fault) cell {
	c := observe(t, s, f)
	c.hosts, c.reader = endure(t, s, f)
	return c
}

// observe plays a cell: the fault strikes once, and goes.
func observe(t *testing.T, s situation, f fault) cell {
	r, held := s.begin(t)
	version, before, began := r.status()[fieldKeyVersion], r.sim.Calls(graphtest.Regenerate), r.clock.now()

	r.strike(s, f)
	ctx, leave := r.patiently(s.hangs(f))
	defer leave()
	var got cell
	resp, err := s.act(ctx, r)
	if s.attended {
		got.answer = describeAnswer(t, resp, err)
	}
	r.carryOut(f)
	r.idle()
	if f.late {
		r.clock.advance(contradicted)
	}

	after := r.sim.Calls(graphtest.Regenerate)
	got.posts = fmt.Sprintf("%d/%d", after.Started-before.Started, after.Performed-before.Performed)
	status := r.status()
	got.key = describeKeyIn(status, version)
	got.state = describeState(t, status, began)
	alreadyDone := s.ticks && s.done(r)
	got.next, resp = r.readNext(version)
	got.done = "at once"
	if !alreadyDone {
		if !s.attended {
			r.endUntold(resp)
		}
		got.done = r.untilDone(s)
	}
	r.noKeyIsLost(held, resp)
	return got
}

// endUntold ends the lease of a reader without the retirement being told: it must not
// keep alive a key that is to be retired.
func (r *rig) endUntold(resp *logical.Response) {
	if resp == nil {
		return
	}
	version, id, ok := leaseOf(resp.Secret)
	require.True(r.t, ok)
	_, err := r.engine.keys.Revoke(r.t.Context(), version, id)
	require.NoError(r.t, err)
}

func describeAnswer(t *testing.T, resp *logical.Response, err error) string {
	if err == nil {
		if len(resp.Warnings) > 0 {
			return "200, a warning"
		}
		return "200"
	}
	var coded logical.HTTPCodedError
	require.True(t, errors.As(err, &coded), "core would answer 500 to %q", err)
	return fmt.Sprint(coded.Code())
}

func describeKeyIn(status map[string]any, version any) string {
	switch {
	case status[fieldIntentPending] == true:
		return "in doubt"
	case status[fieldKeyVersion] == version:
		return "the old one"
	case status[fieldCause] == accesskey.CauseRecovered:
		return "a new one, found"
	default:
		return "a new one"
	}
}

// describeState says when scheduled work is tried again, rounded down to minutes
// since the wait is random by a fifth, and what else is remembered of the failure.
func describeState(t *testing.T, status map[string]any, began time.Time) string {
	since := func(field string) (time.Duration, bool) {
		text, there := status[field].(string)
		if !there {
			return 0, false
		}
		at, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		return at.Sub(began), true
	}
	var facts []string
	if failures := status[fieldConsecutiveFailures].(int); failures > 0 {
		facts = append(facts, "failed")
	}
	if status["on_watch"] == true {
		facts = append(facts, "on watch")
	}
	if _, wanted := since("wanted_since"); wanted {
		facts = append(facts, "wanted")
	}
	if d, there := since(fieldNextAttempt); there {
		facts = append(facts, fmt.Sprintf("retry after %d min", int(d.Minutes())))
	}
	if d, there := since(fieldThrottledUntil); there {
		facts = append(facts, fmt.Sprintf("throttled for %d min", int(d.Minutes())))
	}
	if result, there := status[fieldDriftResult]; there && status[fieldDriftCheckedAt] == timestamp(began) {
		facts = append(facts, fmt.Sprintf("comparison: %s", result))
	}
	return strings.Join(facts, ", ")
}

// readNext reads under a role at once. What it gets must work.
func (r *rig) readNext(version any) (string, *logical.Response) {
	posts := r.posts()
	resp, err := r.request(r.t.Context(), logical.ReadOperation, hosts, nil)
	if err != nil {
		return describeAnswer(r.t, nil, err), nil
	}
	require.True(r.t, r.works(resp))
	text := "the new key"
	switch {
	case r.posts() > posts:
		text = "a newer key"
	case resp.Data[fieldKeyVersion] == version:
		text = "the old key"
	}
	if len(resp.Warnings) > 0 {
		text += ", a warning"
	}
	return text, resp
}

// untilDone lets time pass until the work of the situation has been done, or, if
// one had asked for it, until a reader gets a key.
func (r *rig) untilDone(s situation) string {
	began := r.clock.now()
	for !s.done(r) {
		if s.ticks {
			r.clock.advance(time.Minute)
			r.tick()
		} else {
			r.clock.advance(time.Second)
		}
		require.Less(r.t, r.clock.now().Sub(began), time.Hour)
	}
	took := r.clock.now().Sub(began)
	switch {
	case took == 0:
		return "at once"
	case took%time.Minute == 0:
		return fmt.Sprintf("%d min", int(took.Minutes()))
	default:
		return fmt.Sprintf("%d s", int(took.Seconds()))
	}
}

// noKeyIsLost ends a cell: whatever happened, a read works in the end, and no key
// survives its leases.
func (r *rig) noKeyIsLost(answers ...*logical.Response) {
	r.clock.advance(10 * time.Minute)
	last := r.key()
	require.True(r.t, r.works(last))
	for _, resp := range append(answers, last) {
		if resp != nil {
			r.revoke(resp)
		}
	}
	r.idle()
	r.tick()
	require.False(r.t, r.works(last))
	require.Empty(r.t, r.status()[fieldDue])
	require.Equal(r.t, 0, r.status()[fieldConsecutiveFailures])
}

func TestFaultMatrixIsDocumented(t *testing.T) {
	page := renderFaults()
	if os.Getenv(updateFaultsPage) != "" {
		require.NoError(t, os.WriteFile(faultsPage, []byte(page), 0o600))
	}
	found, err := os.ReadFile(faultsPage)
	require.NoError(t, err)
	require.Equal(t, string(found), page, "%s=1 go test -run TestFaultMatrixIsDocumented ./backend writes it anew", updateFaultsPage)
}

// renderFaults is the page of the documentation.
func renderFaults() string {
	var b strings.Builder
	b.WriteString(faultsIntroduction)
	b.WriteString("\n## The faults\n\n| faults | which are | what happens |\n|---|---|---|\n")
	for _, s := range sets {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.name, s.faults, s.about)
	}
	b.WriteString("\nA status without \"proxy's\" is Graph's own answer, signed with its ids.\n\n| fault | what Graph does |\n|---|---|\n")
	for _, f := range faults {
		if f.about != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", f.name, f.about)
		}
	}
	for _, s := range situations {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.name, s.about)
		writeRow(&b, s, "fault", cell{"answer", "POSTs", "key", "status", "next read", "done", "hosts", "reader"})
		writeRow(&b, s, "---", cell{"---", "---", "---", "---", "---", "---", "---", "---"})
		for _, g := range s.want {
			writeRow(&b, s, g.faults, g.cell)
		}
	}
	return b.String()
}

func writeRow(b *strings.Builder, s situation, name string, c cell) {
	values := []string{name, c.hosts, c.reader, c.answer, c.posts, c.key, c.state, c.next, c.done}
	if !s.attended {
		values = append(values[:3], values[4:]...)
	}
	fmt.Fprintf(b, "| %s |\n", strings.Join(values, " | "))
}
