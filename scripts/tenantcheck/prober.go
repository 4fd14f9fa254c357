// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	sensors     = "/security/identities/sensors/"
	maxBody     = 1 << 20
	maxKeyBytes = 4096 // as the engine
	patience    = 50 * time.Second
)

// versions are those of the API, the engine's default first.
var versions = []string{graph.V1, graph.Beta}

// prober sends requests as the engine does, and keeps of the answers what is no secret.
type prober struct {
	options *options
	clock   clock
	http    *http.Client
	engine  map[string]*graph.Client // by version: what the engine itself makes of the answers
	token   string
	calls   int
	seen    map[digest]bool // every key that Graph has named
}

func newProber(o *options, c clock) (*prober, error) {
	p := &prober{options: o, clock: c, engine: map[string]*graph.Client{}, seen: map[digest]bool{}}
	for _, version := range versions {
		client, err := graph.New(graph.Config{
			TenantID: o.tenantID, ClientID: o.clientID, Credential: graph.ClientSecret(o.secret), Cloud: o.cloud, APIVersion: version,
			GraphEndpoint: o.graphEndpoint, AuthorityHost: o.authorityHost, CACertificates: o.caContents, UserAgent: "mdi-tenant-check",
		})
		if err != nil {
			return nil, err
		}
		p.engine[version] = client
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	certificates, err := graph.ParseCertificates(o.caContents) // as the engine reads them
	if err != nil {
		return nil, err
	}
	for _, certificate := range certificates {
		roots.AddCert(certificate)
	}
	p.http = &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // one connection for each request, as the engine has it
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
		},
	}
	return p, nil
}

// signIn returns a token. Errors quote nothing that was received.
func (p *prober) signIn(ctx context.Context, clientID, secret string) (string, error) {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret}, "scope": {p.options.audience + "/.default"},
	}
	address := p.options.authority + "/" + url.PathEscape(p.options.tenantID) + "/oauth2/v2.0/token"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", errors.New("the sign-in's address is not valid")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := p.http.Do(req)
	if err != nil {
		return "", errors.New("the sign-in got no answer")
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		Codes       []int  `json:"error_codes"`
	}
	body, _ := content(resp)
	if json.Unmarshal(body, &answer) != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("the sign-in failed (HTTP %d, codes %v)", resp.StatusCode, answer.Codes)
	}
	return answer.AccessToken, nil
}

// content reads a body to its end.
func content(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return body, errors.Join(err, resp.Body.Close())
}

// answer is what is known of one exchange with Graph: no key, no token, no text of Graph's.
type answer struct {
	what       string // such as keyRead
	version    string
	status     int // 0: no answer
	code       string
	isJSON     bool
	requestID  string // GUID, other or none
	echoed     bool   // our client-request-id came back
	retryAfter string
	took       time.Duration
	key        digest
	fields     string // the names of the body's fields
	known      bool   // the key is where the engine looks for it, and is one that it takes
	keyForm    string
}

// digest is remembered in the place of a key. The zero digest is no key.
type digest [sha256.Size]byte

// signed reports whether only Graph can have sent this, as the engine decides it.
func (a answer) signed() bool { return a.requestID == "GUID" && (a.code != "" || a.echoed) }

func (a answer) named() bool { return a.status == http.StatusOK && a.key != digest{} }

// transient reports whether the moment decided the answer, and not what was asked: it tells
// nothing of an assumption.
func (a answer) transient() bool {
	return a.status == 0 || a.status == http.StatusTooManyRequests || a.status >= http.StatusInternalServerError
}

func (a answer) String() string {
	if a.status == 0 {
		return a.what + ", " + a.version + ": no answer"
	}
	text := fmt.Sprintf("%s, %s: HTTP %d", a.what, a.version, a.status)
	if a.code != "" {
		text += " " + a.code
	}
	return text
}

// request is one to Graph.
type request struct {
	what, version, method, path, token string
}

const keyRead = "GET of the key"

func (p *prober) get(version string) request {
	return request{keyRead, version, http.MethodGet, graph.OpGet, p.token}
}

func (p *prober) post(version string) request {
	return request{"POST", version, http.MethodPost, graph.OpRegenerate, p.token}
}

func (p *prober) build(ctx context.Context, r request) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, p.options.graphRoot+"/"+r.version+sensors+r.path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cache-Control", "no-cache, no-store")
	req.Header.Set("User-Agent", "mdi-tenant-check")
	req.Header.Set("client-request-id", uuid.NewString())
	p.calls++
	return req, nil
}

// send sends a request once.
func (p *prober) send(ctx context.Context, r request) answer {
	a := answer{what: r.what, version: r.version}
	req, err := p.build(ctx, r)
	if err != nil {
		return a
	}
	start := p.clock.now()
	resp, err := p.http.Do(req)
	var body []byte
	if err == nil {
		body, err = content(resp)
	}
	a.took = p.clock.now().Sub(start) // without an answer too: the time of one that came too late
	if err != nil {
		return a
	}
	a.status, a.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	if _, err := strconv.Atoi(a.retryAfter); a.retryAfter != "" && err != nil {
		if _, err := http.ParseTime(a.retryAfter); err != nil {
			a.retryAfter = "malformed"
		}
	}
	a.requestID = kindOfID(resp.Header.Get("request-id"))
	a.echoed = resp.Header.Get("client-request-id") == req.Header.Get("client-request-id")
	a.read(body)
	if a.named() {
		p.seen[a.key] = true
	}
	return a
}

// linger is for how long the client stays on the line whose answer nobody waits for. One
// that closes the connection at once can take the request back, since the reset overtakes it.
const linger = 50 * time.Millisecond

// abandon sends a request and hangs up soon after it is written, as an engine that is killed
// does. It reports whether the request has left.
func (p *prober) abandon(ctx context.Context, r request) bool {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	sent := make(chan bool, 1)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		sent <- info.Err == nil
		go func() {
			_ = p.clock.sleep(ctx, linger)
			hangUp()
		}()
	}})
	req, err := p.build(ctx, r)
	if err != nil {
		return false
	}
	if resp, err := p.http.Do(req); err == nil {
		_ = resp.Body.Close() // unread: its key is to be found by GET
	}
	select {
	case written := <-sent:
		return written
	default:
		return false
	}
}

func kindOfID(id string) string {
	switch {
	case id == "":
		return "none"
	case len(id) == len(uuid.Nil.String()) && uuid.Validate(id) == nil:
		return "GUID"
	default:
		return "other"
	}
}

// plausible matches codes and names of fields. A key does not match: it is longer.
var plausible = regexp.MustCompile(`^[A-Za-z@][A-Za-z0-9@._-]{0,63}$`)

func shown(name string) string {
	if plausible.MatchString(name) {
		return name
	}
	return "(not shown)"
}

// read takes from a body what is no secret.
func (a *answer) read(body []byte) {
	var fields map[string]any
	if json.Unmarshal(body, &fields) != nil {
		return
	}
	a.isJSON = true
	if problem, ok := fields["error"].(map[string]any); ok {
		if code, ok := problem["code"].(string); ok && plausible.MatchString(code) {
			a.code = code
		}
		return
	}
	var names, keys []string
	known := true // where the engine looks
	look := func(prefix string, object map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(object)) {
			text, isText := object[name].(string)
			names = append(names, prefix+shown(name))
			if isText && strings.HasSuffix(strings.ToLower(name), "accesskey") && text != "" {
				keys = append(keys, text)
				known = known && (name == "deploymentAccessKey" || name == "sensorDeploymentAccessKey")
			}
		}
	}
	look("", fields)
	if value, ok := fields["value"].(map[string]any); ok {
		look("value.", value)
	}
	a.fields = strings.Join(names, ", ")
	if keys = slices.Compact(keys); len(keys) == 1 {
		a.key, a.keyForm = sha256.Sum256([]byte(keys[0])), keyForm(keys[0])
		a.known = known && len(keys[0]) <= maxKeyBytes && !strings.ContainsFunc(keys[0], unicode.IsControl)
	}
}

var base64Pattern = regexp.MustCompile(`^[A-Za-z0-9+/]+={0,2}$`)

func keyForm(key string) string {
	alphabet := "other text"
	if base64Pattern.MatchString(key) {
		alphabet = "base64"
	}
	return fmt.Sprintf("%d characters, %s", len(key), alphabet)
}
