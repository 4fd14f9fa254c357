// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// occurrence is something that can happen.
type occurrence string

const (
	reading     occurrence = "read"
	group       occurrence = "readers who overlap"
	race        occurrence = "a reader while the last lease ends"
	revocation  occurrence = "revocation"
	second      occurrence = "second revocation"
	passing     occurrence = "time passes"
	rotating    occurrence = "rotate-key"
	ticking     occurrence = "tick"
	look        occurrence = "look for a key to retire"
	crash       occurrence = "crash"
	configuring occurrence = "configuration write"
	recreation  occurrence = "configuration deleted and written"
	hangingUp   occurrence = "hang up" // of readers who wait together

	// Behind the engine's back.
	portal   occurrence = "regeneration in the portal"
	arrival  occurrence = "a late request arrives"
	outage   occurrence = "outage of Graph"
	recovery occurrence = "Graph is back"
)

// often lists what can happen, the more often the likelier.
var often = []occurrence{
	passing, passing, passing, reading, reading, reading, reading, group, group, race, revocation, revocation, revocation,
	second, rotating, ticking, ticking, look, crash, configuring, recreation, portal, arrival, outage, recovery,
}

// happening is a step: one thing that happens, and what goes wrong meanwhile.
type happening struct {
	What      occurrence
	Paths     []string   // of the readers
	Pick      int        // which lease, setting, duration or outage
	Late      bool       // what a revocation leads to does not happen yet; leases that end are lost
	Meanwhile occurrence // while readers wait together
	Disk      *diskFault
	Trouble   trouble
}

func (s happening) String() string {
	text := string(s.What)
	switch s.What {
	case reading:
		text += " " + s.Paths[0]
	case group:
		text += fmt.Sprint(" ", s.Paths, " ", s.Meanwhile)
	case passing:
		text += fmt.Sprint(": ", s.pause())
	}
	if s.Trouble.name != "" {
		text += ", " + s.Trouble.name
	}
	if s.Disk != nil {
		text += fmt.Sprintf(", %+v", *s.Disk)
	}
	return text
}

func (s happening) pause() time.Duration {
	pauses := []time.Duration{
		time.Second, 20 * time.Second, flight.Budget, time.Minute, accesskey.ShortTTL, 10 * time.Minute,
		12 * time.Minute, time.Hour, 2 * time.Hour,
	}
	return pauses[s.Pick%len(pauses)]
}

func drawStep(t *rapid.T) happening {
	s := happening{
		What:  rapid.SampledFrom(often).Draw(t, "what"),
		Paths: rapid.SliceOfN(rapid.SampledFrom([]string{"key/any", "key/hour", "key/new", keyPath}), 1, 4).Draw(t, "paths"),
		Pick:  rapid.IntRange(0, 19).Draw(t, "pick"),
		Late:  rapid.Bool().Draw(t, "late"),
	}
	if s.What == group {
		s.Meanwhile = rapid.SampledFrom([]occurrence{"", "", crash, hangingUp, revocation}).Draw(t, "meanwhile")
	}
	switch rapid.SampledFrom([]string{"", "", "", "storage", "Graph"}).Draw(t, "wrong") {
	case "storage":
		s.Disk = &diskFault{
			Op:    rapid.SampledFrom([]string{"put", "put", "put", "delete", "get", "list"}).Draw(t, "op"),
			N:     rapid.IntRange(1, 4).Draw(t, "n"),
			Done:  rapid.Bool().Draw(t, "done"),
			Crash: rapid.Bool().Draw(t, "crash"),
		}
	case "Graph":
		s.Trouble = rapid.SampledFrom(append(troubles, lagging, lagging, lagging)).Draw(t, "trouble")
	}
	return s
}

// trouble is what goes wrong once on the way to Graph and back.
type trouble struct {
	name      string
	faults    []graphtest.Fault
	ambiguous bool // a regeneration that it strikes may have been carried out or not
	late      bool // one that it strikes is carried out later
	stale     bool // the next reading of the key tells the one before
}

// Graph is not reset, lost or answered 5xx where it would be asked again, since that
// would make the engine wait for a second.
var (
	denied   = graphtest.Fault{Operation: graphtest.Get, Status: 403, Times: 1}
	troubles = []trouble{
		{name: "request lost", ambiguous: true, faults: struck(graphtest.Fault{Reset: true})},
		{name: "request timed out", ambiguous: true, faults: struck(graphtest.Fault{Status: 504})},
		{name: "answer lost", ambiguous: true, faults: struck(graphtest.Fault{AfterWork: true, Lost: true})},
		{name: "answer is 500", ambiguous: true, faults: struck(graphtest.Fault{AfterWork: true, Status: 500})},
		{name: "answer unreadable", ambiguous: true, faults: struck(graphtest.Fault{AfterWork: true, Body: graphtest.BodyHTML})},
		{name: "request lost, GET refused", ambiguous: true, faults: struck(graphtest.Fault{Lost: true}, denied)},
		{name: "answer lost, GET refused", ambiguous: true, faults: struck(graphtest.Fault{AfterWork: true, Reset: true}, denied)},
		{name: "answer lost, Graph lags", ambiguous: true, stale: true, faults: struck(graphtest.Fault{AfterWork: true, Lost: true})},
		{name: "request late", ambiguous: true, late: true, faults: struck(onItsWay)},
		{name: "request late, GET refused", ambiguous: true, late: true, faults: struck(onItsWay, denied)},
		{name: "request refused", faults: struck(graphtest.Fault{Status: 403})},
		{name: "request throttled", faults: struck(graphtest.Fault{Status: 429, RetryAfter: "315"})},
		{name: "Graph overloaded", faults: struck(graphtest.Fault{Status: 503, RetryAfter: "60"})},
		{name: "GET refused", faults: []graphtest.Fault{denied}},
		{name: "GET throttled", faults: []graphtest.Fault{{Operation: graphtest.Get, Status: 429, RetryAfter: "41", Times: 1}}},
		lagging,
	}
	lagging  = trouble{name: "Graph lags", stale: true}
	onItsWay = graphtest.Fault{Reset: true, Stubborn: true, Latency: time.Hour}
	outages  = []graphtest.Fault{
		{Operation: graphtest.Get, Status: 403},
		{Operation: graphtest.Get, Status: 503, RetryAfter: "60"},
		{Operation: graphtest.Regenerate, Status: 403},
		{Status: 503, RetryAfter: "60"},
	}
)

// struck makes f the fault of one regeneration.
func struck(f graphtest.Fault, others ...graphtest.Fault) []graphtest.Fault {
	f.Operation, f.Times = graphtest.Regenerate, 1
	return append([]graphtest.Fault{f}, others...)
}

// failsPost tells whether a regeneration that it strikes does not get its answer.
func (tr trouble) failsPost() bool {
	return slices.ContainsFunc(tr.faults, func(f graphtest.Fault) bool {
		return f.Operation == graphtest.Regenerate && (f.Status != 0 || f.Reset || f.Lost || f.Body != "")
	})
}

// gated returns the trouble with a regeneration that waits until the simulator is
// told to go on, whatever becomes of the process that asked for it.
func (tr trouble) gated() (t trouble, stubborn bool) {
	t = tr
	t.late, t.stale, t.faults = false, false, nil
	gate := struck(graphtest.Fault{Stubborn: true})[0]
	for _, f := range tr.faults {
		if f.Operation == graphtest.Regenerate {
			gate, gate.Stubborn = f, false
		} else {
			t.faults = append(t.faults, f)
		}
	}
	gate.Latency = time.Hour
	t.faults = append(t.faults, gate)
	return t, gate.Stubborn
}
