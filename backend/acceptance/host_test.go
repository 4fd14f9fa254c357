// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// host is in the place of Vault: it runs the shipped plugin as a process and owns the
// plugin's storage, which a real Vault would not let a test stop at a given write.
type host struct {
	suite   *suite
	storage *trippedStorage
	logger  hclog.Logger
}

// hosted is a plugin that a host runs.
type hosted struct {
	backend logical.Backend
	storage logical.Storage
	ctx     context.Context // names the one mount of this process in each call
	pid     int
}

// newHost returns a host whose plugins log to a file of the given folder.
func newHost(t *testing.T, s *suite, logs string) *host {
	t.Helper()
	log, err := os.Create(filepath.Join(logs, "plugin.log")) //nolint:gosec // of this test
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	storage := &trippedStorage{Storage: &logical.InmemStorage{}}
	t.Cleanup(func() { s.evidence.add(logs, storage.privateKeys()) })
	return &host{
		suite:   s,
		storage: storage,
		logger:  hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: log}),
	}
}

// start runs the plugin in the way in which Vault does, multiplexed, with one mount.
func (h *host) start(t *testing.T) *hosted {
	t.Helper()
	command := h.suite.plugin()
	binary, err := os.ReadFile(command) //nolint:gosec // built for this run
	require.NoError(t, err)
	sum := sha256.Sum256(binary)
	runner := &pluginutil.PluginRunner{
		Name: testbed.PluginName, Type: consts.PluginTypeSecrets, Command: command, Sha256: sum[:],
		Env: []string{"TMPDIR=" + h.suite.sockets},
	}
	system := &logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour,
		MaxLeaseTTLVal:     24 * time.Hour,
		VersionString:      "1.21.1",
	}
	client, err := runner.RunConfig(t.Context(), pluginutil.Runner(system), pluginutil.PluginSets(plugin.PluginSet),
		pluginutil.HandshakeConfig(plugin.HandshakeConfig), pluginutil.AutoMTLS(true), pluginutil.Logger(h.logger))
	require.NoError(t, err)
	t.Cleanup(client.Kill)
	connection, err := client.Client()
	require.NoError(t, err)
	raw, err := connection.Dispense("backend")
	require.NoError(t, err)
	p := &hosted{
		backend: raw.(logical.Backend),
		storage: h.storage,
		ctx:     metadata.AppendToOutgoingContext(context.Background(), pluginutil.MultiplexingCtxKey, "the-mount"),
		pid:     client.ReattachConfig().Pid,
	}
	require.NoError(t, p.backend.Setup(p.ctx, &logical.BackendConfig{
		StorageView: h.storage, Logger: h.logger, System: system, BackendUUID: "the-mount",
	}))
	require.NoError(t, p.backend.Initialize(p.ctx, &logical.InitializationRequest{Storage: h.storage}))
	return p
}

// request sends a request to the plugin.
func (p *hosted) request(op logical.Operation, path string, data map[string]any, secret *logical.Secret) (*logical.Response, error) {
	resp, err := p.backend.HandleRequest(p.ctx, &logical.Request{
		Operation: op, Path: path, Data: data, Storage: p.storage, Secret: secret,
	})
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	return resp, err
}

// kill ends the process as kill -9 does.
func (p *hosted) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(p.pid, syscall.SIGKILL))
}

var errPluginKilled = errors.New("the plugin that wrote this has been killed")

// trippedStorage stops at one of the writes that follow after arm.
type trippedStorage struct {
	logical.Storage

	mu      sync.Mutex
	written []string // what was written since arm: the first part of each entry's path
	keys    []string // of private keys that were ever to be stored: their lines
	trip    *tripwire
}

// tripwire is the write to stop at.
type tripwire struct {
	kind    string // the first part of the entry's path; "" for any
	left    int    // how many of that kind there are until then, with itself
	applied bool   // stop after it, not before
	reached chan struct{}
	cut     chan struct{} // closed when there is nobody left to answer to
}

// arm makes the storage stop at a write, the at-th of a kind: before it has any effect or, if
// applied, after that and before the plugin hears of it. With at 0 it only takes notes.
func (s *trippedStorage) arm(kind string, at int, applied bool) *tripwire {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = nil
	s.trip = &tripwire{kind: kind, left: at, applied: applied, reached: make(chan struct{}), cut: make(chan struct{})}
	return s.trip
}

// disarm lets writes pass again; one that is held fails.
func (s *trippedStorage) disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.trip.cut)
	s.trip = nil
}

// writes returns what was written since arm.
func (s *trippedStorage) writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.written...)
}

// privateKeys returns the lines of all private keys that the plugin has made or been
// given, whether or not they were stored in the end. Those that it makes it shows nobody
// else.
func (s *trippedStorage) privateKeys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys)
}

// privateKeyPattern finds the body of a private key in JSON.
var privateKeyPattern = regexp.MustCompile(`BEGIN [A-Z ]*PRIVATE KEY-----\\n([^-]*)`)

func (s *trippedStorage) noteKeys(entry *logical.StorageEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range privateKeyPattern.FindAllStringSubmatch(string(entry.Value), -1) {
		lines := strings.Split(strings.TrimSuffix(key[1], `\n`), `\n`)
		// The first line is the same for many keys, and the last one says little.
		s.keys = append(s.keys, lines[1:max(1, len(lines)-1)]...)
	}
}

func (s *trippedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.noteKeys(entry)
	return s.write(entry.Key, func() error { return s.Storage.Put(ctx, entry) })
}

func (s *trippedStorage) Delete(ctx context.Context, key string) error {
	return s.write(key, func() error { return s.Storage.Delete(ctx, key) })
}

func (s *trippedStorage) write(key string, apply func() error) error {
	trip := s.count(key)
	if trip == nil {
		return apply()
	}
	if trip.applied {
		if err := apply(); err != nil {
			return err
		}
	}
	close(trip.reached)
	<-trip.cut
	return errPluginKilled
}

// count takes a note of a write and returns the tripwire if it is the one to stop at.
func (s *trippedStorage) count(key string) *tripwire {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, _, _ := strings.Cut(key, "/")
	s.written = append(s.written, kind)
	if s.trip == nil || s.trip.kind != "" && s.trip.kind != kind {
		return nil
	}
	if s.trip.left--; s.trip.left != 0 {
		return nil
	}
	return s.trip
}
