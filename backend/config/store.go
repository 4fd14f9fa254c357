// SPDX-License-Identifier: MPL-2.0

package config

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/store"
)

// verifyBudget bounds the sign-in and the call by which a configuration is verified.
const verifyBudget = 9 * time.Second

// ErrUnconfigured is returned by everything that needs a configuration.
var ErrUnconfigured = accesskey.ErrUnconfigured

// ErrChanged is returned to the writer of a configuration whose fields no longer make of
// it what was verified.
var ErrChanged = errors.New("the configuration has been changed by other work meanwhile: nothing has been stored, repeat the request")

// VerificationError is a configuration that was refused because it does not work.
type VerificationError struct {
	err    error
	unsent string // a warning that may name the cause, or ""
}

// Error names the fields that decide where a request goes that nothing answered.
func (e *VerificationError) Error() string {
	text := graph.Explain(e.err)
	if remote, ok := errors.AsType[*graph.Error](e.err); ok && remote.FoundNobody() {
		name := FieldGraphEndpoint
		if remote.Op == graph.OpSignIn {
			name = FieldAuthorityHost
		}
		text += ": check " + name + ", " + FieldEnvironment + " and the proxy of the plugin's environment"
	}
	if e.unsent != "" {
		text += "; " + strings.TrimSuffix(e.unsent, ".")
	}
	return text + "; nothing has been stored: to store it nevertheless, set " + FieldVerifyConnection + "=false"
}

func (e *VerificationError) Unwrap() error { return e.err }

// Connection is a configuration and the Graph client that was made of it. It is not
// changed once made: work that began before a configuration write goes on with the old one.
type Connection struct {
	Config *Config
	Graph  *graph.Client
	// Verified says that a sign-in and a call of Graph have just shown that it works.
	Verified bool
	// Warning is what its verification found that is no reason to refuse it.
	Warning string
}

// Store keeps the configuration and the current connection, so that one client, with its
// token, serves for the life of a configuration. It tells the key store which workspace
// is configured.
type Store struct {
	storage logical.Storage
	keys    *accesskey.Store
	agent   string // user agent
	system  func() logical.SystemView
	now     func() time.Time

	mu      store.Lock
	current *Connection
}

// New returns the store of a mount. The version is the engine's, for Microsoft's logs.
func New(storage logical.Storage, keys *accesskey.Store, version string, system func() logical.SystemView, now func() time.Time) *Store {
	return &Store{storage: storage, keys: keys, agent: "vault-plugin-secrets-mdi/" + strings.TrimPrefix(version, "v"), system: system, now: now, mu: store.NewLock()}
}

// Stored returns the stored configuration, nil if there is none.
func (s *Store) Stored(ctx context.Context) (*Config, error) {
	unlock, err := s.mu.Write(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.load(ctx)
}

// load reads the configuration. The caller holds the lock.
func (s *Store) load(ctx context.Context) (*Config, error) {
	cfg := &Config{GraphAPIVersion: graph.Beta} // of one stored without it, whose default was beta
	found, err := store.Load(ctx, s.storage, StorageKey, cfg, ErrUnreadable)
	if err != nil {
		return nil, err
	}
	if cfg.Root = cfg.Root.With(cfg.Credential); !found {
		cfg = nil
	}
	s.announce(ctx, cfg)
	return cfg, nil
}

// announce tells the key store what is configured.
func (s *Store) announce(ctx context.Context, cfg *Config) {
	_, _, _ = s.keys.Apply(ctx, accesskey.Event{Kind: accesskey.Configured, Policy: cfg.Policy()}) // never fails
}

// Current returns the current connection, or ErrUnconfigured.
func (s *Store) Current(ctx context.Context) (*Connection, error) {
	unlock, err := s.mu.Write(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.current != nil {
		return s.current, nil
	}
	cfg, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, ErrUnconfigured
	}
	s.current, err = s.Connect(cfg)
	return s.current, err
}

// Connect makes a connection of cfg, which is not the current one yet. It sends nothing.
// What the plugin's environment no longer allows is refused here too: a configuration may
// have been stored when it did.
func (s *Store) Connect(cfg *Config) (*Connection, error) {
	if err := cfg.checkHosts(); err != nil {
		return nil, err
	}
	client, err := graph.New(graph.Config{
		TenantID:       cfg.TenantID,
		ClientID:       cfg.ClientID,
		Credential:     cfg.Credential.ForGraph(s.system),
		Cloud:          cfg.cloud(),
		GraphEndpoint:  cfg.GraphEndpoint,
		AuthorityHost:  cfg.AuthorityHost,
		APIVersion:     cfg.GraphAPIVersion,
		CACertificates: cfg.CACertificate,
		UserAgent:      s.agent,
	})
	if err != nil {
		return nil, err
	}
	return &Connection{Config: cfg, Graph: client}, nil
}

// Try returns a connection for what the fields of d make of the stored configuration,
// having verified it where that is wanted: what cannot work is refused within
// verifyBudget, whatever other work is under way.
func (s *Store) Try(ctx context.Context, d *framework.FieldData) (*Connection, error) {
	old, err := s.Stored(ctx)
	if err != nil {
		return nil, err
	}
	next, err := old.update(d, s.now())
	if err != nil {
		return nil, err
	}
	conn, err := s.Connect(next)
	if err == nil && verifies(d, old, next) {
		err = verify(ctx, conn, next.Credential.Unsent(d))
		conn.Verified = err == nil
	}
	return conn, err
}

// Resolve returns the stored configuration, which may be nil, and a connection for what
// the fields of d make of it by now; tried is what they made of it before. A client that
// is in use stays, with its token. The error is ErrChanged if the result is not what was
// verified, and should have been.
func (s *Store) Resolve(ctx context.Context, d *framework.FieldData, tried *Connection) (old *Config, conn *Connection, err error) {
	if old, err = s.Stored(ctx); err != nil {
		return nil, nil, err
	}
	next, err := old.update(d, s.now())
	if err != nil {
		return nil, nil, err
	}
	if verifies(d, old, next) && !tried.Config.SameConnection(next) {
		return nil, nil, ErrChanged
	}
	if old.SameConnection(next) {
		if current, err := s.Current(ctx); err == nil {
			return old, &Connection{Config: next, Graph: current.Graph}, nil
		}
	}
	if tried.Config.SameConnection(next) {
		return old, &Connection{Config: next, Graph: tried.Graph}, nil
	}
	conn, err = s.Connect(next)
	return old, conn, err
}

// verifies reports whether a write of d, which makes next of old, is to be verified: unless
// it says otherwise, it is if it changes the connection, carries a credential (a stored one
// may have expired meanwhile), or asks for that.
func verifies(d *framework.FieldData, old, next *Config) bool {
	wanted, _ := field.Value(d, FieldVerifyConnection)
	return wanted.(bool) && (d.Raw[FieldVerifyConnection] != nil || next.Credential.SuppliedBy(d) || !old.SameConnection(next))
}

// verify signs in and asks Graph for the key, which shows that tenant, client, credential,
// endpoints and permission fit together. It needs the very permission that regenerating
// does, and changes nothing. unsent is a warning for a sign-in that fails.
func verify(ctx context.Context, conn *Connection, unsent string) error {
	ctx, cancel := context.WithTimeout(ctx, verifyBudget)
	defer cancel()
	if err := conn.Granted(ctx); err != nil {
		return &VerificationError{err, unsent}
	}
	_, _, err := conn.Graph.DeploymentAccessKey(ctx)
	if said, ok := errors.AsType[*graph.Error](err); ok && said.NamesNoKey() {
		conn.Warning = "Graph names no deployment access key: the tenant has none yet, and the first read of a key makes one. If it should have one, check " + FieldTenantID + "."
	} else if err != nil {
		return &VerificationError{err: err}
	}
	return nil
}

// Granted signs in, unless there is a token, and returns why the app cannot have a key: a
// [*graph.Error], or a [*field.Error] if its token lacks the permission.
func (conn *Connection) Granted(ctx context.Context) error {
	if err := conn.Graph.SignIn(ctx); err != nil {
		return err
	}
	if roles, ok := conn.Graph.Roles(ctx); ok && !slices.Contains(roles, graph.Permission) {
		signsInAs := FieldClientID
		if conn.Config.ClientID == "" { // the machine's own identity
			signsInAs = credential.FieldType
		}
		return &field.Error{Field: signsInAs, Problem: "the token does not carry the application permission " +
			graph.Permission + " of Microsoft Graph: " + conn.Graph.GrantHint(graph.Permission)}
	}
	return nil
}

// Save stores the configuration of conn, which becomes the current connection; nil deletes
// what is stored.
func (s *Store) Save(ctx context.Context, conn *Connection) error {
	unlock, err := s.mu.Write(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// Dropped first: a failed write may have been carried out nevertheless, and then
	// what holds is what storage says at the next request.
	s.current = nil
	var cfg *Config // after a failure: until it has been read
	if conn == nil {
		err = s.storage.Delete(ctx, StorageKey)
	} else if err = store.Save(ctx, s.storage, StorageKey, conn.Config); err == nil {
		s.current, cfg = conn, conn.Config
	}
	s.announce(ctx, cfg)
	return err
}

// Forget drops the current connection; the next use reads what is stored.
func (s *Store) Forget() {
	unlock, _ := s.mu.Write(context.Background()) // never fails: who holds it has a budget
	defer unlock()
	s.current = nil
}
