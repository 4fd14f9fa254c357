// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Simulator is one tenant's Entra ID, Microsoft Graph and sensor registration on one host,
// and those of its application's other tenants, if any.
// It is safe for concurrent use.
type Simulator struct {
	authority *authority
	signer    *signer
	handler   http.Handler
	server    *http.Server
	metadata  *http.Server
	done      chan struct{} // closed by Close: held calls end

	mu       sync.Mutex // guards everything below
	settings settings
	leaf     *tls.Certificate
	url      string
	closed   bool

	metadataURL string

	key       deploymentKey
	customers map[string]*deploymentKey // keys of the other tenants, by the tenant's id
	issued    issued
	revoked   map[string]notBefore // ids of tokens that Graph refuses although they have not expired
	asked     []notBefore          // of the challenges that no token has answered
	claims    Challenges
	pending   map[string][]bool // outcomes of the next sign-ins with a credential, by its id
	unlisted  map[string]int    // number of the next reads that miss a credential, by its id
	faults    []Fault
	released  chan struct{} // closed and replaced by Clear: held calls continue
	calls     map[Operation]Calls
	changed   chan struct{} // closed and replaced whenever a count changes
}

// App is the application that may sign in.
type App struct {
	TenantID, ClientID, ClientSecret string
}

// New returns a simulator that does not listen yet: call [Simulator.Serve] with a
// listener, or serve its [Simulator.Handler]. The tenant, the application and the key are
// random unless options set them.
func New(opts ...Option) (*Simulator, error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("making a certificate authority: %w", err)
	}
	signer, err := tokenSigner()
	if err != nil {
		return nil, fmt.Errorf("making the key that signs tokens: %w", err)
	}
	s := &Simulator{
		authority: authority,
		signer:    signer,
		done:      make(chan struct{}),
		settings:  defaultSettings(),
		customers: map[string]*deploymentKey{},
		revoked:   map[string]notBefore{},
		pending:   map[string][]bool{},
		unlisted:  map[string]int{},
		released:  make(chan struct{}),
		calls:     map[Operation]Calls{},
		changed:   make(chan struct{}),
	}
	if err := s.update(opts); err != nil {
		return nil, err
	}
	if s.key.current == "" {
		s.replaceKey(&s.key)
	}
	s.handler = s.routes()
	s.server = s.newServer()
	s.metadata = s.newMetadataServer()
	return s, nil
}

// Start runs a simulator over TLS on a loopback port until the end of a test.
func Start(t testing.TB, opts ...Option) *Simulator {
	t.Helper()
	s, err := New(opts...)
	if err != nil {
		t.Fatalf("starting the simulator: %v", err)
	}
	ln, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatalf("starting the simulator: %v", err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Errorf("stopping the simulator: %v", err)
		}
	})
	return s
}

// newServer returns a server for HTTP/1.1 only: a fault that resets the connection must
// not affect other calls. There is no write timeout, since faults can hold calls.
func (s *Simulator) newServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		Protocols:         protocols,
		// Tests cause failed handshakes on purpose.
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: s.certificate,
		},
	}
}

func (s *Simulator) newMetadataServer() *http.Server {
	return &http.Server{
		Handler:           s.metadataRoutes(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

func (s *Simulator) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaf, nil
}

// Handler returns the handler that [Simulator.Serve] serves, for use in another server.
func (s *Simulator) Handler() http.Handler { return s.handler }

// Listen binds a TCP address and sets the URL, so that it is known before
// [Simulator.Serve] takes the listener.
func (s *Simulator) Listen(ctx context.Context, address string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.setURL(ln.Addr())
	return ln, nil
}

// Serve serves over TLS, with a certificate of the simulator's own authority, until Close
// is called, and then returns nil.
func (s *Simulator) Serve(ln net.Listener) error {
	s.setURL(ln.Addr())
	err := s.server.ServeTLS(ln, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Simulator) setURL(addr net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url = "https://" + reachable(addr)
}

// reachable returns a listener's address, with 127.0.0.1 for a listener on all addresses,
// because the certificate is valid for that one.
func reachable(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	return addr.String()
}

// Close stops listening and drops every connection. Calls that a fault holds end without
// doing the rest of their work.
func (s *Simulator) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	return errors.Join(s.server.Close(), s.metadata.Close())
}

// URL returns where the simulator listens: the root of both the authority and Graph. It is
// empty before Listen, Serve or Start.
func (s *Simulator) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// CACertificate returns the PEM of the authority that a client must trust.
func (s *Simulator) CACertificate() string { return s.authority.pem }

// App returns what a client needs to sign in. Its secret is the one that [New] or
// [WithApp] set, even if it is no longer valid.
func (s *Simulator) App() App {
	t := s.current()
	return App{TenantID: t.tenantID, ClientID: t.clientID, ClientSecret: t.secret}
}

// Update changes the tenant, also while calls are running. If an option is invalid, which
// is a mistake in the test, it changes nothing and panics.
func (s *Simulator) Update(opts ...Option) {
	if err := s.update(opts); err != nil {
		panic("graphtest: " + err.Error())
	}
}

func (s *Simulator) update(opts []Option) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.settings
	for _, opt := range opts {
		if err := opt(&next); err != nil {
			return err
		}
	}
	leaf, err := s.authority.issue(next.serverNames)
	if err != nil {
		return fmt.Errorf("making the server's certificate: %w", err)
	}
	if next.key != s.settings.key {
		s.setKey(&s.key, next.key)
	}
	for _, id := range next.customers {
		if s.customers[id] == nil {
			s.customers[id] = new(deploymentKey)
			s.replaceKey(s.customers[id])
		}
	}
	s.settings, s.leaf = next, leaf
	s.issued.add(next.identityHeader)
	for _, p := range next.passwords {
		s.issued.add(p.value)
	}
	return nil
}

// current returns a copy of the settings. What the copy refers to is never modified.
func (s *Simulator) current() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}
