// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// fakeClock advances when the program sleeps, so that a run takes a second.
type fakeClock struct {
	mu  sync.Mutex
	at  time.Time
	due map[time.Time]func()

	arrived func() // waits for the POST whose client is about to hang up
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	c.at = c.at.Add(d)
	var now []func()
	for at, do := range c.due {
		if !c.at.Before(at) {
			delete(c.due, at)
			now = append(now, do)
		}
	}
	c.mu.Unlock()
	for _, do := range now {
		do()
	}
}

func (c *fakeClock) after(d time.Duration, do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due[c.at.Add(d)] = do
}

func (c *fakeClock) sleep(ctx context.Context, d time.Duration) error {
	if d == linger {
		c.arrived()
	}
	c.advance(d)
	return ctx.Err()
}

// world is a simulated tenant behind a Graph that can be told to break an assumption.
type world struct {
	t     *testing.T
	sim   *graphtest.Simulator
	clock *fakeClock
	dir   string
	graph *httptest.Server

	mu       sync.Mutex
	keys     []string // that POSTs have replaced
	replaced time.Time
	posts    int // with a token
	gets     int // with a token
	taken    int // POSTs that have arrived and whose work is planned

	// instead answers a call instead of the simulator; before and after it acts on it.
	instead func(w *world, c call) (status int, body string, answered bool)
	after   func(w *world, c call, answer *httptest.ResponseRecorder)
	// holds delays the work of a POST whose client has gone.
	holds func(w *world, c call) time.Duration
	flags []string
	roles []string
}

// call is a request to Graph.
type call struct {
	version, name string
	authorized    bool
	post          int // its number among the POSTs that regenerate, from 1
	get           int // likewise
	request       *http.Request
}

func (c call) regenerates() bool { return c.post > 0 }
func (c call) reads() bool       { return c.get > 0 }

func newWorld(t *testing.T) *world {
	w := &world{t: t, sim: graphtest.Start(t), dir: t.TempDir(), clock: &fakeClock{at: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), due: map[time.Time]func(){}}}
	// It is the third: each version has had one before.
	w.clock.arrived = func() {
		for count := 0; count < 3; time.Sleep(time.Millisecond) {
			w.mu.Lock()
			count = w.taken
			w.mu.Unlock()
			if t.Context().Err() != nil {
				return
			}
		}
	}
	w.graph = httptest.NewTLSServer(w)
	t.Cleanup(w.graph.Close)
	return w
}

func (w *world) classify(r *http.Request) call {
	w.mu.Lock()
	defer w.mu.Unlock()
	parts := strings.Split(r.URL.Path, "/")
	c := call{version: parts[1], name: parts[len(parts)-1], authorized: r.Header.Get("Authorization") != "", request: r}
	switch {
	case c.authorized && r.Method == http.MethodPost && c.name == graph.OpRegenerate:
		w.posts++
		c.post = w.posts
	case c.authorized && r.Method == http.MethodGet && c.name == graph.OpGet:
		w.gets++
		c.get = w.gets
	}
	return c
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c := w.classify(r.Clone(context.WithoutCancel(r.Context()))) // Graph goes on without its client
	if w.holds != nil && c.regenerates() {
		if d := w.holds(w, c); d > 0 {
			w.clock.after(d, func() { w.perform(c) })
			w.take()
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
	}
	answer := w.perform(c)
	if c.regenerates() {
		w.take()
	}
	maps.Copy(rw.Header(), answer.Header())
	rw.Header().Del("Content-Length")
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes())
}

func (w *world) take() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken++
}

// perform has the simulator do the work, unless it is broken, and remembers the key before.
func (w *world) perform(c call) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	if w.instead != nil {
		if status, body, answered := w.instead(w, c); answered {
			sign(answer.Header(), c.request)
			answer.WriteHeader(status)
			_, _ = answer.WriteString(body)
			return answer
		}
	}
	if c.name == "noSuchFunction" { // as Graph answers to a path that it does not have
		sign(answer.Header(), c.request)
		answer.WriteHeader(http.StatusBadRequest)
		_, _ = answer.WriteString(`{"error": {"code": "BadRequest", "message": "hunter2"}}`)
	}
	before := w.sim.Key()
	if answer.Body.Len() == 0 {
		w.sim.Handler().ServeHTTP(answer, c.request)
	}
	w.mu.Lock()
	if key := w.sim.Key(); key != before {
		w.keys, w.replaced = append(w.keys, before), w.clock.now()
	}
	w.mu.Unlock()
	if w.after != nil {
		w.after(w, c, answer)
	}
	return answer
}

// previous is the key that the last POST has replaced, and since when it is.
func (w *world) previous() (key string, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.keys) == 0 {
		return "", 0
	}
	return w.keys[len(w.keys)-1], w.clock.now().Sub(w.replaced)
}

func sign(h http.Header, r *http.Request) {
	h.Set("request-id", "6b1f2f1c-0000-4000-8000-000000000000")
	h.Set("client-request-id", r.Header.Get("client-request-id"))
}

// replaceIn changes the body of an answer.
func replaceIn(answer *httptest.ResponseRecorder, old, with string) {
	answer.Body = bytes.NewBuffer(bytes.ReplaceAll(answer.Body.Bytes(), []byte(old), []byte(with)))
}

// result is what a run has found and printed.
type result struct {
	verdicts map[string]verdict
	measured map[string]string
	report   string
	err      error
}

// check runs the program as a person does, who names the tenant.
func (w *world) check() result {
	w.t.Helper()
	return w.checkUntil(w.t.Context())
}

func (w *world) checkUntil(ctx context.Context) result {
	w.t.Helper()
	if w.roles != nil {
		w.sim.Update(graphtest.WithRoles(w.roles...))
	}
	app := w.sim.App()
	certificates := w.sim.CACertificate() + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.graph.Certificate().Raw}))
	arguments := append([]string{
		"-tenant-id", app.TenantID, "-client-id", app.ClientID, "-secret-file", w.file("secret", app.ClientSecret+"\n"),
		"-graph-endpoint", w.graph.URL, "-authority-host", w.sim.URL(), "-ca-certificate-file", w.file("ca", "\uFEFF"+certificates+"# Raíz\n"),
	}, w.flags...)
	var out, notes bytes.Buffer
	err := run(ctx, arguments, terminal{strings.NewReader(app.TenantID + "\n"), &out, &notes}, w.clock)
	w.keepsSecrets(out.String() + notes.String())
	r := result{verdicts: map[string]verdict{}, measured: map[string]string{}, report: out.String(), err: err}
	for _, a := range assumptions() {
		for line := range strings.Lines(r.report) {
			if cells := strings.Split(line, " | "); strings.TrimPrefix(cells[0], "| ") == a.text {
				r.verdicts[a.id], r.measured[a.id] = verdict(cells[1]), strings.TrimSuffix(cells[2], " |\n")
			}
		}
	}
	return r
}

func (w *world) file(name, contents string) string {
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.WriteFile(path, []byte(contents), 0o600))
	return path
}

// keepsSecrets fails if a text contains a secret of the tenant, or a long part of one.
func (w *world) keepsSecrets(text string) {
	w.t.Helper()
	for _, secret := range w.sim.Issued() {
		require.NotContains(w.t, text, secret[:min(len(secret), 24)])
	}
}

func body(fields map[string]any) string {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(text)
}
