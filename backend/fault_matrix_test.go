// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"os"
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
// engine asks Graph for something. What is expected stands in fault_table_test.go,
// written down rather than computed, and in the documentation, rendered from there.

const (
	faultsPage = "../docs/faults.md"

	// updateFaultsPage, as an environment variable, has the page written anew.
	updateFaultsPage = "MDI_UPDATE_DOCS"

	// cellsAtOnce bounds how many simulators run at a time. Most cells wait for a
	// repetition that the Graph client makes after a second or two.
	cellsAtOnce = 48
)

// situation is one in which the engine asks Graph for something: a table of the page.
type situation struct {
	name  string
	about string // what the table is about, for the page
	// hit is the call that the fault strikes.
	hit graphtest.Operation
	// attended tells whether somebody waits for an answer.
	attended bool
	// patient tells that the engine itself gives up early enough for a test.
	patient bool
	// setUp brings a mount, whose key is leased under the role "hosts", to where
	// the situation begins.
	setUp func(*rig)
	// act does what the situation is about, as somebody who waits as long as ctx.
	act func(context.Context, *rig) (*logical.Response, error)
	// done tells whether what the situation is about has happened after all.
	done func(*rig) bool
	want map[string]cell // by the name of the fault
}

// fault is a row: what Graph does to each of the calls, or to the first.
type fault struct {
	name  string
	about string
	graphtest.Fault
}

// cell is what comes of a fault in a situation.
type cell struct {
	answer string // to the one who asked
	posts  string // regenerations asked for / carried out, while the fault was there
	key    string // that the engine has afterwards
	state  string // what the status tells of it
	next   string // what a reader under a role gets as soon as the fault has gone
	done   string // how long after that the work is done, or a reader gets a key that works
}

func TestFaultMatrix(t *testing.T) {
	var cells sync.WaitGroup
	room := make(chan struct{}, cellsAtOnce)
	for _, s := range situations {
		for _, f := range faults {
			// Not t.Parallel, which runs as many as there are processors: these
			// wait most of the time.
			cells.Go(func() {
				room <- struct{}{}
				defer func() { <-room }()
				t.Run(s.name+"/"+f.name, func(t *testing.T) {
					want, ok := s.want[f.name]
					require.True(t, ok, "nothing is expected of this cell")
					require.Equal(t, want, observe(t, s, f))
				})
			})
		}
		require.Len(t, s.want, len(faults), s.name)
	}
	cells.Wait()
}

// observe plays a cell.
func observe(t *testing.T, s situation, f fault) cell {
	r := configured(t)
	r.write("roles/hosts", map[string]any{config.FieldTTL: "48h"})
	held := r.read(hosts)
	s.setUp(r)
	version, before, began := r.status()[fieldKeyVersion], r.sim.Calls(graphtest.Regenerate), r.clock.now()

	struck := f.Fault
	struck.Operation = s.hit
	r.sim.Inject(struck)
	ctx := t.Context()
	if f.name == faultSlow && !s.patient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
	}
	var got cell
	resp, err := s.act(ctx, r)
	if s.attended {
		got.answer = describeAnswer(t, resp, err)
	}
	r.sim.Clear()
	r.idle()

	after := r.sim.Calls(graphtest.Regenerate)
	got.posts = fmt.Sprintf("%d/%d", after.Started-before.Started, after.Performed-before.Performed)
	status := r.status()
	got.key = describeKeyIn(status, version)
	got.state = describeState(t, status, began)
	alreadyDone := !s.attended && s.done(r)
	got.next, resp = r.readNext(version)
	got.done = "at once"
	if !alreadyDone {
		r.endUntold(resp)
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

// describeState tells when scheduled work is tried again, rounded down to minutes
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
	if d, there := since(fieldNextAttempt); there {
		facts = append(facts, fmt.Sprintf("retry after %d min", int(d.Minutes())))
	}
	if d, there := since(fieldThrottledUntil); there {
		facts = append(facts, "throttled for "+d.String())
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
// somebody had asked for it, until a reader gets a key.
func (r *rig) untilDone(s situation) string {
	began := r.clock.now()
	for !s.done(r) {
		step := time.Minute
		if s.attended {
			step = time.Second
		}
		r.clock.advance(step)
		if !s.attended {
			r.tick()
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
	b.WriteString("\n## The faults\n\n| fault | what Graph does |\n|---|---|\n")
	for _, f := range faults {
		fmt.Fprintf(&b, "| %s | %s |\n", f.name, f.about)
	}
	for _, s := range situations {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.name, s.about)
		columns := []string{"fault", "answer", "POSTs", "key", "status", "next read", "done"}
		if !s.attended {
			columns = append(columns[:1], columns[2:]...)
		}
		fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
		for _, f := range faults {
			o := s.want[f.name]
			values := []string{f.name, o.answer, o.posts, o.key, o.state, o.next, o.done}
			if !s.attended {
				values = append(values[:1], values[2:]...)
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(values, " | "))
		}
	}
	return b.String()
}
