// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	pathpkg "path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// tenant is a simulated tenant whose calls are noted where they arrive.
type tenant struct {
	sim    *graphtest.Simulator
	server *httptest.Server
	notes  *notes
	conn   *config.Connection
}

func newTenant(t *testing.T, n *notes) *tenant {
	sim, err := graphtest.New()
	if err != nil {
		t.Fatal(err)
	}
	tn := &tenant{sim: sim, notes: n}
	tn.server = httptest.NewUnstartedServer(tn)
	tn.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	tn.server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}} // the cheapest
	tn.server.StartTLS()
	t.Cleanup(func() {
		_ = sim.Close() // lets go what is held
		tn.server.CloseClientConnections()
		tn.server.Close()
	})
	return tn
}

func (tn *tenant) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tn.server.Certificate().Raw}))
}

// notes is what has arrived at Graph and what it has answered, in order. It is all that
// the model knows of the work of the engine.
type notes struct {
	mu     sync.Mutex
	now    func() time.Time // the true time
	clock  func() time.Time // by the node's clock
	step   int
	living int // the process
	killed int // the step in which the one before it was
	order  int
	posts  []*regeneration
	words  []word
	refuse []denial // GETs that named no key
	held   int      // calls that Graph has not finished
}

// regeneration is one that has arrived.
type regeneration struct {
	*tenant

	order, step, process int
	at                   time.Time
	open                 bool   // Graph has not finished it, and may carry it out later
	key                  string // that Graph has answered
	settled              int    // when it was answered, or refused by Graph itself; 0: not
	ended                int    // when Graph has done with it; 0: not yet
	hasty                bool   // it came less than a second after the one before
}

// unproven reports whether nobody can know what came of it.
func (p *regeneration) unproven() bool { return p.settled == 0 }

// word is a key that Graph has named.
type word struct {
	*tenant

	order, step int
	asked       int // when the question arrived, in the order of things
	at          time.Time
	key         string
	posted      bool // as the answer to a regeneration
	stale       bool // it was not the tenant's any longer
	adopts      bool // it is one that nothing before has named, or that was displaced
	overtaken   bool // a regeneration was under way in the step, so the engine may have dropped it
}

// denial is a GET that named no key.
type denial struct {
	*tenant

	step  int
	at    time.Time
	clock time.Time     // the same by the node's clock
	wait  time.Duration // until Graph is to be asked again
}

// begin forgets everything before a history.
func (n *notes) begin(now, clock func() time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now, n.clock, n.step, n.living, n.order = now, clock, 0, 0, 0
	n.posts, n.words, n.refuse = nil, nil, nil
}

// next begins a step and returns its number.
func (n *notes) next() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.step++
	return n.step
}

// mark returns a place in the order of things.
func (n *notes) mark() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order++
	return n.order
}

func (n *notes) restarted() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.living++
	n.killed = n.step
}

// of returns copies of what is known of a tenant.
func (n *notes) of(tn *tenant) (posts []regeneration, words []word, denials []denial) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.posts {
		if p.tenant == tn {
			posts = append(posts, *p)
		}
	}
	for _, w := range n.words {
		if w.tenant == tn {
			words = append(words, w)
		}
	}
	for _, d := range n.refuse {
		if d.tenant == tn {
			denials = append(denials, d)
		}
	}
	return posts, words, denials
}

// pending returns the number of calls that Graph has not finished.
func (n *notes) pending() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held
}

// ServeHTTP notes the calls for the key.
func (tn *tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := pathpkg.Base(r.URL.Path)
	regenerates := kind == "regenerateDeploymentAccessKey"
	if r.Header.Get("Authorization") == "" || !regenerates && kind != "getDeploymentAccessKey" { // else it is a probe
		tn.sim.Handler().ServeHTTP(w, r)
		return
	}
	c := &capture{ResponseWriter: w, tenant: tn, process: tn.notes.process(), asked: tn.notes.mark()}
	c.hint = !strings.HasPrefix(r.URL.Path, "/"+graph.Beta+"/")
	if regenerates {
		c.post = tn.notes.arrived(tn)
	}
	tn.notes.holds(1)
	defer c.end()
	tn.sim.Handler().ServeHTTP(c, r)
}

// process returns the number of the process that runs.
func (n *notes) process() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.living
}

func (n *notes) holds(more int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held += more
}

func (n *notes) arrived(tn *tenant) *regeneration {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order++
	p := &regeneration{tenant: tn, order: n.order, step: n.step, process: n.living, at: n.now(), open: true}
	if i := len(n.posts) - 1; i >= 0 {
		// One that arrives in the step of a kill may be of either process.
		p.hasty = n.posts[i].process == p.process && n.posts[i].step != n.killed && n.step != n.killed && p.at.Sub(n.posts[i].at) < time.Second
	}
	n.posts = append(n.posts, p)
	n.overtake(tn)
	return p
}

// overtake marks what the step has heard of a tenant's key so far. The caller holds the lock.
func (n *notes) overtake(tn *tenant) {
	for i := range n.words {
		w := &n.words[i]
		w.overtaken = w.overtaken || w.tenant == tn && w.step == n.step && !w.posted
	}
}

// capture notes an answer before it leaves.
type capture struct {
	http.ResponseWriter
	*tenant

	process int
	asked   int           // when it arrived, in the order of things
	post    *regeneration // nil for a GET
	hint    bool          // it only asks whether the other version of the API has the call
	status  int
	noted   bool
}

func (c *capture) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *capture) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *capture) Write(body []byte) (int, error) {
	if !c.noted {
		c.noted = true
		c.notes.answers(c, body)
	}
	return c.ResponseWriter.Write(body)
}

func (c *capture) end() {
	n := c.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held--
	if c.post != nil {
		n.order++
		c.post.open, c.post.ended = false, n.order
		n.overtake(c.tenant)
	} else if !c.noted && c.process == n.living {
		n.denied(c)
	}
}

var keyPattern = regexp.MustCompile(`AccessKey"\s*:\s*"([^"]+)"`)

// answers notes what an answer says.
func (n *notes) answers(c *capture, body []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.process != n.living {
		return // nobody reads it
	}
	n.order++
	key := ""
	if match := keyPattern.FindSubmatch(body); match != nil && (c.status == 0 || c.status == http.StatusOK) {
		key = string(match[1])
	}
	switch {
	case c.post == nil && (key == "" || c.hint):
		n.denied(c)
	case c.post == nil:
		n.named(word{tenant: c.tenant, key: key, asked: c.asked})
	case key != "" && !n.knew(c.tenant, key, c.post.order):
		c.post.key, c.post.settled = key, n.order
		n.named(word{tenant: c.tenant, key: key, posted: true, asked: c.post.order})
	case key == "" && c.signed() && refusal4xx(c.status):
		c.post.settled = n.order
	}
}

// signed reports whether Graph itself has answered.
func (c *capture) signed() bool { return c.Header().Get("request-id") != "" }

// refusal4xx reports whether a status, if Graph itself has sent it, proves that nothing
// was done.
func refusal4xx(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusConflict ||
		status == http.StatusServiceUnavailable
}

// knew reports whether Graph had named a key before.
func (n *notes) knew(tn *tenant, key string, before int) bool {
	return slices.ContainsFunc(n.words, func(w word) bool { return w.tenant == tn && w.key == key && w.order < before })
}

func (n *notes) denied(c *capture) {
	d := denial{tenant: c.tenant, step: n.step, at: n.now(), clock: n.clock()}
	seconds, _ := strconv.Atoi(c.Header().Get("Retry-After"))
	d.wait = min(time.Duration(seconds)*time.Second, 5*time.Minute)
	n.refuse = append(n.refuse, d)
}

// named notes Graph's word, and whether the engine certainly has to adopt the key.
func (n *notes) named(w word) {
	w.order, w.step, w.at = n.order, n.step, n.now()
	w.stale = !w.sim.CanRegister(w.key)
	w.overtaken = !w.posted && slices.ContainsFunc(n.posts, func(p *regeneration) bool {
		return p.tenant == w.tenant && (p.step == w.step || p.ended > w.asked)
	})
	var believed []string // the key that the engine goes by is one of these
	for _, other := range n.words {
		if other.tenant != w.tenant || !other.posted && !other.adopts {
			continue
		}
		if !other.overtaken {
			believed = nil
		}
		believed = append(believed, other.key)
	}
	w.adopts = !w.posted && !slices.Contains(believed, w.key) && !n.superseded(w.tenant, w.key)
	n.words = append(n.words, w)
}

// superseded reports whether a key was known when a regeneration left that was answered.
func (n *notes) superseded(tn *tenant, key string) bool {
	return slices.ContainsFunc(n.posts, func(p *regeneration) bool {
		return p.tenant == tn && p.key != "" && p.key != key && n.knew(tn, key, p.order)
	})
}

// lastOf returns the last element that is so.
func lastOf[T any](all []T, which func(T) bool) (last T, found bool) {
	for _, one := range slices.Backward(all) {
		if which(one) {
			return one, true
		}
	}
	return last, false
}
