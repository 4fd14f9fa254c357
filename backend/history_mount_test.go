// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/role"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// world is two simulated tenants in which many histories take place, one after the other.
// It has signed in to both already: a sign-in takes longer than most histories.
type world struct {
	notes      *notes
	home, away *tenant
	log        *syncBuffer
	logger     hclog.Logger
}

func newWorld(t *testing.T) *world {
	w := &world{notes: &notes{now: time.Now}, log: &syncBuffer{}}
	w.logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: w.log})
	w.home, w.away = newTenant(t, w.notes), newTenant(t, w.notes)
	for _, tn := range []*tenant{w.home, w.away} {
		conn, err := newBackend(nil, time.Now, nil).configs.Connect(tn.config())
		require.NoError(t, err)
		require.NoError(t, conn.Graph.SignIn(t.Context()))
		tn.conn = conn
	}
	return w
}

// config is that of a mount for the tenant.
func (tn *tenant) config() *config.Config {
	app := tn.sim.App()
	return &config.Config{
		TenantID:           app.TenantID,
		ClientID:           app.ClientID,
		Credential:         credential.Credential{Type: credential.ClientSecret, Secret: app.ClientSecret},
		Environment:        "AzurePublicCloud",
		GraphEndpoint:      tn.server.URL,
		AuthorityHost:      tn.server.URL,
		CACertificate:      tn.ca(),
		GraphAPIVersion:    "beta",
		TTL:                config.DefaultTTL,
		DriftCheckInterval: config.DefaultDriftCheckInterval,
		RegenerateOnRevoke: true,
	}
}

// mount is an engine in a world, with the roles that histories use.
type mount struct {
	*tenant // that is configured

	t      *rapid.T
	world  *world
	clock  *clock
	ahead  time.Duration   // the clock is, of the true time
	kept   logical.Storage // what survives crashes
	disk   *disk           // how the running process reaches it
	system *logical.StaticSystemView
	engine *backend
	woken  func() bool // see held
}

// rolesOfHistories maps the paths from which histories read to how old a key they
// share may be. That of the plain path is the configuration's.
var rolesOfHistories = map[string]time.Duration{
	"key/any":  accesskey.AnyAge,
	"key/hour": time.Hour,
	"key/new":  0,
}

func (w *world) mount(t *rapid.T) *mount {
	m := &mount{
		tenant: w.home,
		t:      t,
		world:  w,
		clock:  &clock{at: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)},
		kept:   &logical.InmemStorage{},
		system: logical.TestSystemView(),
	}
	w.log.reset()
	w.notes.begin(m.now, m.clock.now)
	putConfig(t, m.kept, m.conn.Config)
	for path, age := range rolesOfHistories {
		terms := &role.Role{TTL: 10 * time.Minute}
		if age != accesskey.AnyAge {
			terms.MaxKeyAge = &age
		}
		entry, err := logical.StorageEntryJSON(role.Prefix+strings.TrimPrefix(path, "key/"), terms)
		require.NoError(t, err)
		require.NoError(t, m.kept.Put(t.Context(), entry))
	}
	m.restart()
	return m
}

// now returns the true time, which the clock of a node can be ahead of, or behind.
func (m *mount) now() time.Time { return m.clock.now().Add(-m.ahead) }

// restart starts the engine anew, as after a crash: what it was doing is cut off
// and nothing that it does from now on reaches the storage.
func (m *mount) restart() {
	if m.engine != nil {
		m.disk.crash()
		m.engine.Cleanup(m.t.Context())
	}
	m.notes.restarted()
	m.disk = &disk{kept: m.kept}
	m.engine = newBackend(m.disk, m.clock.now, m.clock.sleep)
	require.NoError(m.t, m.engine.Setup(m.t.Context(), &logical.BackendConfig{
		Logger: m.world.logger, System: m.system, StorageView: m.disk,
	}))
	// The history decides when the goroutine that retires keys gets to run.
	m.woken = held(&m.engine.wakeRetirement)
	m.warm()
}

// held keeps a function from having any effect but that woken returns whether it has been
// called since woken was.
func held(wake *func()) (woken func() bool) {
	var called atomic.Bool
	*wake = func() { called.Store(true) }
	return func() bool { return called.Swap(false) }
}

// warm saves the engine a sign-in by giving it the world's client, which an equal
// configuration would lead to anyway.
func (m *mount) warm() {
	if cfg := m.storedConfig(); cfg != nil {
		defer m.disk.bypass()()
		require.NoError(m.t, m.engine.configs.Save(m.t.Context(), &config.Connection{Config: cfg, Graph: m.conn.Graph}))
	}
}

func (m *mount) storedConfig() *config.Config {
	cfg, err := config.New(m.kept, accesskey.New(m.kept, m.clock.now), Version, nil, m.clock.now).Stored(m.t.Context())
	require.NoError(m.t, err)
	return cfg
}

// putConfig stores a configuration without an engine.
func putConfig(t require.TestingT, s logical.Storage, cfg *config.Config) {
	entry, err := logical.StorageEntryJSON(config.StorageKey, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Put(context.Background(), entry))
}

func (m *mount) request(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	resp, err := m.engine.HandleRequest(ctx, &logical.Request{Operation: op, Path: path, Data: data, Storage: m.disk, MountPoint: "mdi/"})
	if err == nil && resp != nil && resp.IsError() {
		return nil, resp.Error()
	}
	return resp, err
}

func (m *mount) tick() {
	_, err := m.request(m.t.Context(), logical.RollbackOperation, "", nil)
	require.NoError(m.t, err)
}

// revokes ends a lease as core does.
func (m *mount) revokes(secret *logical.Secret) error {
	_, err := m.engine.HandleRequest(m.t.Context(), &logical.Request{
		Operation: logical.RevokeOperation, Path: keyPath, Storage: m.disk, Secret: secret,
	})
	return err
}

// look lets the goroutine that retires keys run if it has been told to.
func (m *mount) look() (told bool) {
	if told = m.woken(); told {
		m.engine.retireIfDue(m.t.Context())
	}
	return told
}

// land waits until no work with Graph is under way.
func (m *mount) land() {
	for _, f := range []*flight.Group{m.engine.flights, m.engine.rotation.Comparisons} {
		require.NoError(m.t, f.Alone(m.t.Context(), flight.Schedule, func(context.Context) error { return nil }))
	}
}

// takers returns how many wait for the regeneration that is under way.
func (m *mount) takers() int { return m.engine.flights.Waiters(accesskey.CauseRead) }

// asStored returns what core gets back from its storage of a lease.
func asStored(t *rapid.T, secret *logical.Secret) *logical.Secret {
	stored, err := json.Marshal(secret)
	require.NoError(t, err)
	restored := &logical.Secret{}
	require.NoError(t, json.Unmarshal(stored, restored))
	return restored
}

func (b *syncBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

// diskFault strikes at the n-th operation of a kind, counted from 1.
type diskFault struct {
	Op     string // "put", "delete", "get" or "list"
	N      int
	Done   bool // the operation has been carried out nevertheless
	Crash  bool // the process ends there
	struck bool
}

// disk is the storage as one process sees it.
type disk struct {
	kept logical.Storage

	mu    sync.Mutex
	fault *diskFault
	slow  time.Duration // each operation takes so long
	dead  bool
}

func (d *disk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

func (d *disk) crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// arm replaces the fault, by none if it is nil, and how slow the disk is.
func (d *disk) arm(f *diskFault, slow time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.slow = f, slow
}

// bypass lets everything pass until the function that it returns is called.
func (d *disk) bypass() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fault, dead := d.fault, d.dead
	d.fault, d.dead = nil, false
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fault, d.dead = fault, dead
	}
}

// hasStruck reports whether the fault has struck, or the process is dead.
func (d *disk) hasStruck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead || d.fault != nil && d.fault.struck
}

// wait takes as long as the disk is slow.
func (d *disk) wait(ctx context.Context) error {
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	if slow == 0 {
		return nil
	}
	return graph.Sleep(ctx, slow)
}

// do carries an operation out under the lock, since what is done after a crash
// must not reach the storage.
func (d *disk) do(ctx context.Context, op string, carryOut func() error) error {
	if err := d.wait(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return storagetest.ErrBroken
	}
	f := d.fault
	if f == nil || f.Op != op || f.struck {
		return carryOut()
	}
	if f.N--; f.N > 0 {
		return carryOut()
	}
	f.struck, d.dead = true, f.Crash
	if f.Done {
		_ = carryOut()
	}
	return storagetest.ErrBroken
}

func (d *disk) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	err = d.do(ctx, "get", func() error { entry, err = d.kept.Get(ctx, key); return err })
	return entry, err
}

func (d *disk) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return d.do(ctx, "put", func() error { return d.kept.Put(ctx, entry) })
}

func (d *disk) Delete(ctx context.Context, key string) error {
	return d.do(ctx, "delete", func() error { return d.kept.Delete(ctx, key) })
}

func (d *disk) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = d.do(ctx, "list", func() error { keys, err = d.kept.List(ctx, prefix); return err })
	return keys, err
}
