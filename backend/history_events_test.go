// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// occurrence is something that can happen.
type occurrence string

const (
	reading     occurrence = "read"
	group       occurrence = "readers who overlap"
	race        occurrence = "a reader while the last lease ends"
	hanging     occurrence = "a regeneration hangs"
	revocation  occurrence = "revocation"
	second      occurrence = "second revocation"
	passing     occurrence = "time passes"
	rotating    occurrence = "rotate-key"
	ticking     occurrence = "tick"
	look        occurrence = "look for a key to retire"
	crash       occurrence = "kill"
	jump        occurrence = "kill, and another clock"
	configuring occurrence = "configuration write"
	deletion    occurrence = "configuration deleted beside readers"
	turning     occurrence = "tenant changed beside readers"
	damage      occurrence = "undecodable entry"
	calm        occurrence = "everybody leaves"
	portal      occurrence = "regeneration in the portal"
	arrival     occurrence = "what was held goes on"
	outage      occurrence = "outage"
	recovery    occurrence = "Graph is back"
	leaving     occurrence = "abandoned read" // while readers wait together
)

// often lists what can happen, the more often the likelier.
var often = []occurrence{
	reading, reading, reading, reading, reading, reading, reading, reading, group, group, group, race, race,
	passing, passing, passing, passing, passing, passing, passing, revocation, revocation, revocation, second, second,
	ticking, ticking, ticking, look, rotating, crash, crash, jump, jump, jump, configuring, configuring, configuring, configuring, deletion, turning, damage, damage,
	portal, portal, hanging, hanging, arrival, outage, outage, outage, outage, recovery, calm,
}

// posting are those that are likely to have the key regenerated.
var posting = []occurrence{reading, reading, reading, reading, group, rotating, hanging, look}

// comparing are those that are likely to have the key compared.
var comparing = []occurrence{reading, reading, group, ticking, revocation, deletion, turning}

// besideHanging can happen while a regeneration hangs. Anything else lets it go on first.
var besideHanging = []occurrence{reading, group, revocation, second, portal, crash, jump, arrival}

// happening is a step: one thing that happens, and what goes wrong meanwhile.
type happening struct {
	What      occurrence
	Paths     []string   // of the readers
	Pick      int        // which lease, setting, duration or outage
	Late      bool       // what a revocation leads to does not happen yet; leases that end are lost
	Leave     int        // after how many microseconds readers leave; 0: they stay
	Meanwhile occurrence // while readers wait together
	Disk      *diskFault
	Slow      bool // storage is
	Trouble   trouble
}

func (s happening) String() string {
	text := string(s.What)
	switch s.What {
	case reading, race, hanging:
		text += " " + s.Paths[0]
	case group, deletion, turning:
		text += fmt.Sprint(" ", s.Paths, " ", s.Meanwhile)
	case passing:
		text += fmt.Sprint(": ", s.pause())
	case jump:
		text += fmt.Sprint(": ", s.leap())
	case outage:
		text += fmt.Sprint(": ", s.outage().name)
	}
	if s.Leave > 0 {
		text += fmt.Sprintf(", left after %d µs", s.Leave)
	}
	if s.Trouble.String() != "" {
		text += ", " + s.Trouble.String()
	}
	if s.Slow {
		text += ", slow storage"
	}
	if s.Disk != nil {
		text += fmt.Sprintf(", %+v", *s.Disk)
	}
	return text
}

func (s happening) pause() time.Duration {
	pauses := []time.Duration{
		time.Second, 3 * time.Second, 9 * time.Second, 11 * time.Second, 31 * time.Second, time.Minute, 100 * time.Second,
		125 * time.Second, 10 * time.Minute, 12 * time.Minute, time.Hour, 2 * time.Hour,
	}
	return pauses[s.Pick%len(pauses)]
}

// leap is by how much the next node's clock differs.
func (s happening) leap() time.Duration {
	leaps := []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 400 * 24 * time.Hour, -time.Minute}
	return leaps[s.Pick%len(leaps)]
}

// numbers are what a step picks from.
var numbers = func() (all []int) {
	for n := range 120 {
		all = append(all, n)
	}
	return all
}()

// pick draws an element, each as likely as any other, unlike rapid's own choice. Histories
// are reduced to the first ones.
func pick[T any](t *rapid.T, from []T) T {
	n := 0
	for range 12 {
		n *= 2
		if rapid.Bool().Draw(t, "bit") {
			n++
		}
	}
	return from[n*len(from)>>12]
}

func drawPath(t *rapid.T) string {
	return pick(t, []string{"key/any", "key/any", "key/new", "key/hour", keyPath})
}

func drawStep(t *rapid.T) happening {
	bad := []string{"", "", "", "", "storage", "storage", "POST", "POST", "POST", "GET", "both", "both", "stale", "stale"}
	wrong := pick(t, bad)
	whats := often
	switch wrong {
	case "POST", "both":
		whats = posting
	case "stale":
		whats = comparing
	}
	s := happening{
		What:  pick(t, whats),
		Paths: rapid.SliceOfN(rapid.Custom(drawPath), 1, 4).Draw(t, "paths"),
		Pick:  pick(t, numbers),
		Late:  rapid.Bool().Draw(t, "late"),
	}
	if s.What == reading && (wrong == "POST" || wrong == "both") && s.Pick%6 > 0 {
		s.Paths[0] = []string{keyPath, "key/new"}[s.Pick%2]
	}
	s.drawManner(t)
	switch wrong {
	case "storage":
		s.Slow = pick(t, numbers)%3 == 0
		s.Disk = drawDiskFault(t)
	case "POST":
		s.Trouble.post = pick(t, postTroubles)
	case "GET":
		s.Trouble.get = pick(t, getTroubles)
	case "both":
		s.Trouble.post = pick(t, postTroubles)
		s.Trouble.get = pick(t, getTroubles)
	}
	s.Trouble.stale = wrong == "stale"
	return s
}

// drawManner draws how readers read.
func (s *happening) drawManner(t *rapid.T) {
	switch s.What {
	case reading, group:
		if pick(t, numbers)%6 == 0 {
			s.Leave = 1 + 25*pick(t, numbers)
		}
		if s.What == group {
			s.Meanwhile = pick(t, []occurrence{"", rotating, crash, leaving, rotating, revocation, crash, portal, crash, rotating, rotating, rotating, crash})
		}
	case hanging:
		s.Paths[0] = []string{keyPath, "key/new"}[s.Pick%2]
	}
}

func drawDiskFault(t *rapid.T) *diskFault {
	return &diskFault{
		Op:    pick(t, []string{"put", "put", "put", "put", "put", "delete", "get", "list"}),
		N:     pick(t, []int{1, 1, 1, 2, 2, 3}),
		Done:  rapid.Bool().Draw(t, "done"),
		Crash: pick(t, numbers)%5 < 2,
	}
}

// trouble is what goes wrong once on the way to Graph and back.
type trouble struct {
	post, get disturbance
	stale     bool // the next reading of the key tells the one before
}

// disturbance is a kind of fault.
type disturbance struct {
	name string
	graphtest.Fault
}

func (tr trouble) String() string {
	text := []string{tr.post.name, tr.get.name}
	if tr.stale {
		text = append(text, "stale GET")
	}
	return strings.Join(slices.DeleteFunc(text, func(s string) bool { return s == "" }), ", ")
}

// The names of disturbances are those that are counted.
const (
	lostBefore      = "POST lost before the work"
	lostAfter       = "POST lost after the work"
	oldKey          = "POST answered with an old key"
	signedDoubt     = "POST answered with a status that proves nothing"
	unsignedRefusal = "POST refused without a signature"
	signedRefusal   = "POST refused and signed"
	throttling      = "POST throttled"
	lateLanding     = "POST carried out late"
	deniedGET       = "GET without a key"
)

// Graph is not reset, lost or answered 5xx where it would be asked again, since that
// would make the engine wait for a second.
var (
	postTroubles = posts(map[string][]graphtest.Fault{
		lostBefore:      {{Reset: true}, {Lost: true}},
		lostAfter:       {{AfterWork: true, Lost: true}, {AfterWork: true, Reset: true}, {AfterWork: true, Body: graphtest.BodyHTML}},
		oldKey:          {{AfterWork: true, Body: graphtest.BodyOldKey}, {Body: graphtest.BodyOldKey}},
		signedDoubt:     {{Status: 500, AfterWork: true}, {Status: 502}, {Status: 504, AfterWork: true}, {Status: 408, AfterWork: true}, {Status: 409}},
		unsignedRefusal: unsigned(307, 403, 408, 429, 502, 503),
		signedRefusal:   {{Status: 400}, {Status: 403}, {Status: 404}},
		throttling:      {{Status: 429, RetryAfter: "315"}, {Status: 503, RetryAfter: "60"}, {Status: 503, RetryAfter: "86400"}},
		lateLanding:     {{Reset: true, Stubborn: true, Latency: time.Hour}},
	})
	getTroubles = []disturbance{
		noKey(graphtest.Fault{Status: 403}), noKey(graphtest.Fault{Status: 403, Body: graphtest.BodyHTML}), noKey(graphtest.Fault{Status: 404}),
		noKey(graphtest.Fault{Body: graphtest.BodyEmpty}), noKey(graphtest.Fault{Status: 429, RetryAfter: "41"}),
	}
)

// posts lists disturbances of one regeneration, each kind equally often.
func posts(kinds map[string][]graphtest.Fault) (all []disturbance) {
	const each = 30 // can be divided by the number of any kind's faults
	for _, name := range []string{lostAfter, lostBefore, oldKey, oldKey, signedDoubt, unsignedRefusal, unsignedRefusal, signedRefusal, throttling, lateLanding} {
		for i := range each {
			f := kinds[name][i%len(kinds[name])]
			f.Operation, f.Times = graphtest.Regenerate, 1
			all = append(all, disturbance{name, f})
		}
	}
	return all
}

func unsigned(statuses ...int) (all []graphtest.Fault) {
	for i, status := range statuses {
		all = append(all, graphtest.Fault{Status: status, Body: graphtest.BodyHTML, AfterWork: i%2 == 1})
	}
	return all
}

func noKey(f graphtest.Fault) disturbance {
	f.Operation, f.Times = graphtest.Get, 1
	if f.Status == http.StatusNotFound {
		f.Times = 2 // at both versions of the API
	}
	return disturbance{deniedGET, f}
}

// outageOf is a fault that stays.
type outageOf struct {
	name  string
	fault graphtest.Fault
}

// The kinds of outages.
const (
	postOutage  = "outage of the POST"
	getOutage   = "outage of the GET"
	totalOutage = "outage of Graph"
)

func (s happening) outage() outageOf {
	switch s.Pick % 6 {
	case 0, 3:
		return outageOf{totalOutage, []graphtest.Fault{{Status: 403, Body: graphtest.BodyHTML}, {Status: 503, RetryAfter: "6"}}[s.Pick/6%2]}
	case 1, 2:
		f := getTroubles[s.Pick/6%len(getTroubles)].Fault
		f.Times = 0
		return outageOf{getOutage, f}
	default:
		f := postTroubles[s.Pick*7%len(postTroubles)].Fault
		switch {
		case f.Stubborn:
			f = graphtest.Fault{Operation: graphtest.Regenerate, Lost: true}
		case f.Body == graphtest.BodyOldKey:
			f.AfterWork = false // else the second answer would name a key that nobody knows
		}
		f.Times = 0
		return outageOf{postOutage, f}
	}
}

// tally counts what has happened in all histories.
type tally struct {
	mu    sync.Mutex
	steps int
	seen  map[string]int
}

func (c *tally) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[what]++
}

func (c *tally) played() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps++
}

// listed are the events that every run must have seen.
var listed = []string{
	"key/any", "key/hour", "key/new", keyPath, string(group), string(race), string(leaving), string(revocation), string(second),
	leaseEnded, leaseLost, string(ticking), string(look), string(rotating), rotatingBeside, paused, configured2,
	string(turning), string(deletion), string(crash), cutOff, string(portal), staleGET, string(hanging), besideHang,
	postOutage, getOutage, totalOutage, lostBefore, lostAfter, oldKey, signedDoubt, unsignedRefusal, signedRefusal, throttling,
	lateLanding, deniedGET, writeFailed, writeLied, crashWrite, slowStorage, string(damage), clockAhead, clockBack,
	string(calm), unmounted,
}

// Names of events that are no step of their own.
const (
	leaseEnded     = "lease ended by time"
	leaseLost      = "lease lost by core"
	rotatingBeside = "rotate-key beside a regeneration"
	paused         = "pause"
	configured2    = "other configuration write"
	cutOff         = "kill between intent and answer"
	staleGET       = "stale GET"
	besideHang     = "read beside a regeneration that hangs"
	writeFailed    = "write failed"
	writeLied      = "write failed and carried out"
	crashWrite     = "kill at a write"
	slowStorage    = "slow storage"
	clockAhead     = "clock ahead"
	clockBack      = "clock back"
	unmounted      = "unmount"
)

// report returns the counts, and the events that were seen less often than one step in so
// many.
func (c *tally) report(oneIn int) (text string, missing []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d steps", c.steps)
	for _, what := range listed {
		fmt.Fprintf(&b, "\n%7d %s", c.seen[what], what)
		if c.seen[what] < c.steps/oneIn {
			missing = append(missing, what)
		}
	}
	return b.String(), missing
}
