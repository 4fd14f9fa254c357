// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// How long GET is polled after a POST, and after one whose answer nobody waited for: there
// the watch has to be exceeded for the assumption to be refuted.
const (
	pollFor          = 2 * time.Minute
	pollAfterHangUp  = 3 * time.Minute
	often, seldom    = 2 * time.Second, 5 * time.Second
	oftenFor         = 30 * time.Second
	longestThrottled = 5 * time.Minute
)

// facts are what a run has found out.
type facts struct {
	environment string
	began       time.Time
	took        time.Duration
	calls       int

	rolesReadable bool // the engine could look into the token
	permitted     bool // and found the permission there
	unpackaged    bool // and did not find that for the package

	first     map[string]answer // of GET at each version, before all else
	tenant    map[string]*versionFacts
	hungUp    *series // after the POST whose answer nobody waited for; nil: it did not leave
	refusals  []answer
	forbidden []answer // refusals for lack of a permission, which are in refusals as well
	unknown   []answer // of GET of an unknown function, whatever came
	otherApp  error    // of the other app's sign-in
	throttled []answer
	last      []answer // of GET at each version, when all is over

	slowestGET             time.Duration
	namedGETs, missingGETs int // GETs that named a key, and those without an answer
}

// versionFacts are what one version of the API has answered.
type versionFacts struct {
	before, post answer
	replaced     bool    // the POST named a key that was never named before
	read         answer  // of GET, after all
	after        *series // nil: there was no new key to look for
	engine       error   // of the engine's own client for a GET, after all
}

// series is what GET has named, over a while, after a key was replaced.
type series struct {
	reads, failed int
	lasted        time.Duration
	lastOld       time.Duration // when an earlier key was last named; -1: never
	firstNew      time.Duration // when a new key was first named; -1: never
	lastNamed     time.Duration // when any key was last named; -1: never
	back          int           // how often an earlier key was named after the new one
	others        int           // names of a key that is neither
}

// measure does everything that touches the tenant.
func measure(ctx context.Context, p *prober, t terminal) (*facts, error) {
	f := &facts{environment: p.options.environment, began: p.clock.now(), first: map[string]answer{}, tenant: map[string]*versionFacts{}}
	defer func() { f.took, f.calls = p.clock.now().Sub(f.began), p.calls }()
	t.say("signing in")
	if err := p.prepare(ctx, f); err != nil {
		return f, err
	}
	for _, version := range versions {
		f.first[version] = f.noted(p.send(ctx, p.get(version)))
		f.tenant[version] = &versionFacts{before: f.first[version]}
	}
	p.refusals(ctx, f)
	for _, version := range versions {
		t.say("%s: regenerating, then reading the key for %v", version, pollFor)
		if err := p.regenerate(ctx, f, version); err != nil {
			return f, err
		}
	}
	t.say("%s: regenerating without waiting for the answer, then reading the key for %v", versions[0], pollAfterHangUp)
	if err := p.hangUp(ctx, f); err != nil {
		return f, err
	}
	for _, version := range versions {
		f.last = append(f.last, f.noted(p.send(ctx, p.get(version))))
	}
	return f, ctx.Err()
}

// prepare signs in as the engine does, and for the requests of this program.
func (p *prober) prepare(ctx context.Context, f *facts) (err error) {
	engine := p.engine[versions[0]]
	if err := engine.SignIn(ctx); err != nil {
		return fmt.Errorf("nothing has been regenerated: %s", graph.Explain(err))
	}
	roles, readable := engine.Roles(ctx)
	f.rolesReadable, f.permitted = readable, slices.Contains(roles, graph.Permission)
	f.unpackaged = readable && !slices.Contains(roles, graph.PackagePermission)
	p.token, err = p.signIn(ctx, p.options.clientID, p.options.secret)
	return err
}

// noted keeps throttles, which are rare, and how GETs went.
func (f *facts) noted(a answer) answer {
	if a.what == keyRead {
		f.slowestGET = max(f.slowestGET, a.took)
		if a.named() {
			f.namedGETs++
		}
		if a.status == 0 {
			f.missingGETs++
		}
	}
	if a.status == http.StatusTooManyRequests {
		f.throttled = append(f.throttled, a)
	}
	return a
}

// refusals collects refusals that change nothing.
func (p *prober) refusals(ctx context.Context, f *facts) {
	refused := func(r request, forbidden bool) answer {
		a := f.noted(p.send(ctx, r))
		// A 404 tells of a permission only where the app that has it finds a key.
		hides := r.path == graph.OpGet && f.first[r.version].named()
		f.refuse(a, forbidden && (a.status != http.StatusNotFound || hides))
		return a
	}
	for _, version := range versions {
		refused(request{"GET without a token", version, http.MethodGet, graph.OpGet, ""}, false)
		refused(request{"POST without a token", version, http.MethodPost, graph.OpRegenerate, ""}, false)
		f.unknown = append(f.unknown, refused(request{"GET of an unknown function", version, http.MethodGet, "noSuchFunction", p.token}, false))
		refused(request{"POST of what is a GET", version, http.MethodPost, graph.OpGet, p.token}, false)
		refused(request{"GET of the package", version, http.MethodGet, graph.OpPackage, p.token}, f.unpackaged)
		first := f.first[version]
		f.refuse(first, f.rolesReadable && !f.permitted && first.status != http.StatusNotFound)
	}
	if p.options.otherClientID == "" {
		return
	}
	var token string
	if token, f.otherApp = p.signIn(ctx, p.options.otherClientID, p.options.otherSecret); f.otherApp != nil {
		return
	}
	for _, version := range versions {
		refused(request{"GET by the app without permission", version, http.MethodGet, graph.OpGet, token}, true)
	}
}

// refuse keeps an answer if it is a refusal; forbidden: for lack of a permission, unless the
// moment decided it.
func (f *facts) refuse(a answer, forbidden bool) {
	if a.status < 300 { // no answer, or a success
		return
	}
	f.refusals = append(f.refusals, a)
	if forbidden && !a.transient() {
		f.forbidden = append(f.forbidden, a)
	}
}

// regenerate replaces the key, and looks for how long GET names the one before.
func (p *prober) regenerate(ctx context.Context, f *facts, version string) (err error) {
	v := f.tenant[version]
	v.before = f.noted(p.send(ctx, p.get(version)))
	old := maps.Clone(p.seen)
	v.post = f.noted(p.send(ctx, p.post(version)))
	f.refuse(v.post, false)
	if v.replaced = v.post.named() && !old[v.post.key]; v.replaced {
		isNew := func(key digest) bool { return key == v.post.key }
		if v.after, err = p.poll(ctx, f, version, old, isNew, pollFor); err != nil {
			return err
		}
	}
	v.read = f.noted(p.send(ctx, p.get(version)))
	_, _, v.engine = p.engine[version].DeploymentAccessKey(ctx) // carries neither a key nor text of Graph's
	return ctx.Err()
}

// hangUp regenerates without waiting for the answer. Whatever key appears then is its.
func (p *prober) hangUp(ctx context.Context, f *facts) (err error) {
	version := versions[0]
	before := f.noted(p.send(ctx, p.get(version)))
	old := maps.Clone(p.seen)
	if !before.named() || !p.abandon(ctx, p.post(version)) {
		return ctx.Err()
	}
	var first digest
	isNew := func(key digest) bool {
		if first == (digest{}) {
			first = key
		}
		return key == first
	}
	f.hungUp, err = p.poll(ctx, f, version, old, isNew, pollAfterHangUp)
	return err
}

// poll reads the key for a while, often at first.
func (p *prober) poll(ctx context.Context, f *facts, version string, old map[digest]bool, isNew func(digest) bool, length time.Duration) (*series, error) {
	s := &series{lastOld: -1, firstNew: -1, lastNamed: -1}
	start := p.clock.now()
	for since := time.Duration(0); since <= length; since = p.clock.now().Sub(start) {
		a := f.noted(p.send(ctx, p.get(version)))
		s.add(a, since, old, isNew)
		pause := often
		if since >= oftenFor {
			pause = seldom
		}
		if a.status == http.StatusTooManyRequests {
			pause = throttle(a)
		}
		if err := p.clock.sleep(ctx, pause); err != nil {
			return s, err
		}
	}
	return s, nil
}

// throttle returns how long to wait after a 429.
func throttle(a answer) time.Duration {
	if seconds, err := strconv.Atoi(a.retryAfter); err == nil {
		return min(max(time.Duration(seconds)*time.Second, seldom), longestThrottled)
	}
	return longestThrottled / 5
}

// add counts what a GET has named, so long after the key was replaced. The time of a name
// is when its GET was sent: Graph cannot have known more then.
func (s *series) add(a answer, since time.Duration, old map[digest]bool, isNew func(digest) bool) {
	s.reads++
	s.lasted = since
	if !a.named() {
		s.failed++
		return
	}
	s.lastNamed = since
	switch {
	case old[a.key]:
		s.lastOld = since
		if s.firstNew >= 0 {
			s.back++
		}
	case !isNew(a.key):
		s.others++
	case s.firstNew < 0:
		s.firstNew = since
	}
}
