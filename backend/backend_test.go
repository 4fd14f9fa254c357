// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// rig is a mounted engine with its storage, a clock and a simulated tenant, all under the
// test's control. It sends requests as core does, checks what comes back against the
// declared schemas, and fails a test that leaves a secret in the log:
//
//	r := configured(t)
//	resp := r.key()
//	require.True(t, r.works(resp))
//	r.revoke(resp)
//	r.eventually("the key is retired", func() bool { return !r.works(resp) })
//
// What a test wants of the engine itself it takes from the field engine.
type rig struct {
	t       *testing.T
	sim     *graphtest.Simulator
	storage *storagetest.Storage
	system  *coreView
	clock   *clock
	log     *syncBuffer
	engine  *backend
}

// newRig mounts an engine that is not configured yet.
func newRig(t *testing.T, opts ...graphtest.Option) *rig {
	t.Helper()
	r := &rig{
		t:       t,
		sim:     graphtest.Start(t, opts...),
		storage: storagetest.New(),
		system:  testSystem(),
		clock:   &clock{at: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)},
		log:     &syncBuffer{},
	}
	r.restart()
	t.Cleanup(r.noSecretLogged)
	return r
}

// configured mounts an engine that is configured for the simulated tenant.
func configured(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.write(configPath, r.config(nil))
	return r
}

// restart starts the engine anew on the same storage, as after a crash: nothing
// that it remembered survives, and what it was doing is cut off.
func (r *rig) restart() {
	r.t.Helper()
	if r.engine != nil {
		r.engine.Cleanup(r.t.Context())
	}
	r.engine = newBackend(r.storage, r.clock.now, r.clock.sleep)
	err := r.engine.Setup(r.t.Context(), &logical.BackendConfig{
		Logger:      hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: r.log}),
		System:      r.system,
		StorageView: r.storage,
	})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { r.engine.Cleanup(context.Background()) })
}

// config returns the fields of a working configuration, changed by others; nil
// leaves a field out.
func (r *rig) config(changes map[string]any) map[string]any {
	app := r.sim.App()
	fields := map[string]any{
		config.FieldTenantID:      app.TenantID,
		config.FieldClientID:      app.ClientID,
		credential.FieldSecret:    app.ClientSecret,
		config.FieldGraphEndpoint: r.sim.URL(),
		config.FieldAuthorityHost: r.sim.URL(),
		config.FieldCACertificate: r.sim.CACertificate(),
	}
	for name, value := range changes {
		if fields[name] = value; value == nil {
			delete(fields, name)
		}
	}
	return fields
}

// request sends a request as core does and checks what comes back against the
// schema that the operation declares.
func (r *rig) request(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	req := &logical.Request{Operation: op, Path: path, Data: data, Storage: r.storage, MountPoint: "mdi/"}
	if op == logical.UpdateOperation {
		found, exists, err := r.engine.HandleExistenceCheck(ctx, req)
		if err != nil && !errors.Is(err, logical.ErrUnsupportedPath) { // which core lets the request find
			return nil, err
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	resp, err := r.engine.HandleRequest(ctx, req)
	if err != nil {
		r.noSecretIn("an error", err.Error())
		return resp, err
	}
	if resp != nil && resp.IsError() {
		return resp, resp.Error()
	}
	if resp != nil { // nil is a 404 or a 204
		schema.ResponseValidatingCallback(r.t)(r.engine, req, resp)
	}
	return resp, nil
}

func (r *rig) read(path string) *logical.Response {
	r.t.Helper()
	resp, err := r.request(r.t.Context(), logical.ReadOperation, path, nil)
	require.NoError(r.t, err)
	return resp
}

// write returns an empty response where there is none.
func (r *rig) write(path string, data map[string]any) *logical.Response {
	r.t.Helper()
	resp, err := r.request(r.t.Context(), logical.UpdateOperation, path, data)
	require.NoError(r.t, err)
	if resp == nil {
		return &logical.Response{}
	}
	return resp
}

// fails sends a request that must be answered with a status, and returns the text.
func (r *rig) fails(status int, op logical.Operation, path string, data map[string]any) string {
	r.t.Helper()
	resp, err := r.request(r.t.Context(), op, path, data)
	require.Error(r.t, err)
	if resp != nil && resp.IsError() {
		require.Equal(r.t, status, 400, err.Error())
		return err.Error()
	}
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // core looks at no wrapped one
	require.True(r.t, ok, "core would answer 500 to %q", err)
	require.Equal(r.t, status, coded.Code(), err.Error())
	return err.Error()
}

// key reads mdi/key.
func (r *rig) key() *logical.Response {
	r.t.Helper()
	return r.read(keyPath)
}

// revoke ends a lease as core does, which keeps what the engine returned as JSON.
func (r *rig) revoke(resp *logical.Response) {
	r.t.Helper()
	require.NoError(r.t, r.tryRevoke(resp.Secret))
}

func (r *rig) tryRevoke(secret *logical.Secret) error {
	stored, err := json.Marshal(secret)
	require.NoError(r.t, err)
	restored := &logical.Secret{}
	require.NoError(r.t, json.Unmarshal(stored, restored))
	_, err = r.engine.HandleRequest(r.t.Context(), &logical.Request{
		Operation: logical.RevokeOperation, Path: keyPath, Storage: r.storage, Secret: restored,
	})
	return err
}

// tick is core's periodic call.
func (r *rig) tick() {
	r.t.Helper()
	_, err := r.engine.HandleRequest(r.t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: r.storage})
	require.NoError(r.t, err)
}

// idle waits until no flight is under way, and all that there is to tell has been told.
func (r *rig) idle() {
	r.t.Helper()
	require.NoError(r.t, r.engine.flights.Alone(r.t.Context(), flight.Schedule, func(context.Context) error { return nil }))
	r.engine.events.Flush(r.t.Context())
}

// eventually waits for what the engine does unasked.
func (r *rig) eventually(what string, holds func() bool) {
	r.t.Helper()
	require.Eventually(r.t, holds, 5*time.Second, 2*time.Millisecond, what)
}

func (r *rig) posts() int { return r.sim.Calls(graphtest.Regenerate).Performed }

// works reports whether a host can install a sensor now with the key of an answer.
func (r *rig) works(resp *logical.Response) bool {
	return r.sim.CanRegister(keyIn(resp))
}

func keyIn(resp *logical.Response) string { return resp.Data[fieldDeploymentAccessKey].(string) }

func (r *rig) status() map[string]any {
	r.t.Helper()
	return r.read(statusPath).Data
}

func (r *rig) noSecretLogged() { r.noSecretIn("the log", r.log.String()) }

func (r *rig) noSecretIn(where, text string) {
	for _, secret := range r.sim.Issued() {
		if strings.Contains(text, secret) {
			r.t.Errorf("there is a secret in %s", where)
		}
	}
}

// clock is the time as the engine sees it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// sleep lets the time pass that the engine waits.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.advance(d)
	return ctx.Err()
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestFactoryAtRegistrationTouchesNothing(t *testing.T) {
	b, err := Factory(t.Context(), &logical.BackendConfig{})
	require.NoError(t, err)
	require.Equal(t, logical.TypeLogical, b.Type())
	b.Cleanup(t.Context())

	_, err = Factory(t.Context(), nil)
	require.Error(t, err)
}

func TestVersionIsReported(t *testing.T) {
	b, err := Factory(t.Context(), &logical.BackendConfig{})
	require.NoError(t, err)
	require.Equal(t, Version, b.(logical.PluginVersioner).PluginVersion().Version)
	require.True(t, strings.HasPrefix(Version, "v"))
}

func TestEveryPathIsDocumented(t *testing.T) {
	r := newRig(t)
	for _, path := range r.engine.Paths {
		require.NotEmpty(t, path.HelpSynopsis, path.Pattern)
		require.NotEmpty(t, path.HelpDescription, path.Pattern)
		require.NotNil(t, path.DisplayAttrs, path.Pattern)
		for name, field := range path.Fields {
			require.NotEmpty(t, field.Description, "%s of %s", name, path.Pattern)
		}
		for op, handler := range path.Operations {
			properties := handler.Properties()
			require.NotEmpty(t, properties.Summary, "%s %s", op, path.Pattern)
			require.NotEmpty(t, properties.Responses, "%s %s", op, path.Pattern)
			require.NotNil(t, properties.DisplayAttrs, "%s %s", op, path.Pattern)
		}
	}
	require.Contains(t, r.help(""), "deployment access key")
}

// help returns what vault path-help prints.
func (r *rig) help(path string) string {
	r.t.Helper()
	r.system.set(func(core *logical.StaticSystemView) { core.PluginEnvironment = &logical.PluginEnvironment{} })
	resp, err := r.engine.HandleRequest(r.t.Context(), &logical.Request{Operation: logical.HelpOperation, Path: path, Storage: r.storage})
	require.NoError(r.t, err)
	return resp.Data["help"].(string)
}

// path-help explains each field that a path takes or answers, once.
func TestHelpExplainsEveryField(t *testing.T) {
	r := newRig(t)
	for _, path := range r.engine.Paths {
		help := r.help(strings.NewReplacer("^", "", "?", "", "$", "").Replace(parameters.ReplaceAllString(path.Pattern, "x")))
		fields := map[string]*framework.FieldSchema{}
		maps.Copy(fields, path.Fields)
		for _, operation := range path.Operations {
			for _, answers := range operation.Properties().Responses {
				for _, answer := range answers {
					for name, f := range answer.Fields {
						if fields[name] == nil {
							fields[name] = f
						}
					}
				}
			}
		}
		for name, f := range fields {
			heading := fmt.Sprintf("\n    %s (%s)\n", name, f.Type)
			require.Equal(t, 1, strings.Count(help, heading), "%s of %s in:\n%s", name, path.Pattern, help)
			_, text, _ := strings.Cut(help, heading)
			require.True(t, strings.HasPrefix(strings.TrimSpace(text), f.Description), "%s of %s", name, path.Pattern)
		}
	}
}

// A name that no route takes is a 400 that says what is allowed, wherever there is one.
func TestBadNames(t *testing.T) {
	r := configured(t)
	named := regexp.MustCompile(`^\^?(.*)\(\?P<(.*?)>`)
	kinds := 0
	for _, path := range r.engine.Paths {
		found := named.FindStringSubmatch(path.Pattern)
		if found == nil {
			continue
		}
		kinds++
		for op := range path.Operations {
			for _, name := range []string{"a b", "a:b", "-a", "a-", ".", "a/b", "a/", "ä", "*", "a\nb"} {
				said := r.fails(400, op, found[1]+name, nil)
				require.Equal(t, found[2]+": must be made of "+roleNames, said, "%s %q", op, name)
			}
		}
	}
	require.NotZero(t, kinds)
	_, err := r.request(t.Context(), logical.ReadOperation, "nowhere/else", nil)
	require.ErrorIs(t, err, logical.ErrUnsupportedPath)
}

// Whatever writes or regenerates is forwarded before it does anything.
func TestStandbysAndSecondariesForward(t *testing.T) {
	local := []string{"read config", "list roles/", "read roles/x"}
	for _, state := range []consts.ReplicationState{consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary} {
		r := configured(t)
		held := r.key()
		before, token := r.posts(), r.sim.Calls(graphtest.Token).Started
		r.nodeIs(state)
		for _, path := range r.engine.Paths {
			for op := range path.Operations {
				name := strings.Trim(parameters.ReplaceAllString(path.Pattern, "x"), "^?$")
				if slices.Contains(local, string(op)+" "+name) {
					continue
				}
				_, err := r.engine.HandleRequest(t.Context(), &logical.Request{Operation: op, Path: name, Storage: r.storage})
				require.ErrorIs(t, err, logical.ErrReadOnly, "%s %s", op, name)
			}
		}
		require.NoError(t, r.tryRevoke(held.Secret))
		r.clock.advance(24 * time.Hour)
		r.tick()
		require.Equal(t, before, r.posts())
		require.Equal(t, token, r.sim.Calls(graphtest.Token).Started)
	}
}

// A local mount of a secondary is its own.
func TestLocalMountOfASecondaryWorks(t *testing.T) {
	r := configured(t)
	r.system.set(func(core *logical.StaticSystemView) { core.LocalMountVal = true })
	r.nodeIs(consts.ReplicationPerformanceSecondary)
	require.True(t, r.works(r.key()))
}

func TestInvalidateDropsWhatIsRemembered(t *testing.T) {
	r := configured(t)
	first := r.key()
	other := newBackend(r.storage, r.clock.now, r.clock.sleep) // another node
	require.NoError(t, other.Setup(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: r.system, StorageView: r.storage}))
	resp, err := other.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: keyPath, Storage: r.storage})
	require.NoError(t, err)

	require.Equal(t, first.Data[fieldKeyVersion], r.status()[fieldKeyVersion], "still remembered")
	for _, key := range []string{config.StorageKey, accesskey.StorageKey, health.StorageKey, lease.Prefix + "2/x"} {
		r.engine.InvalidateKey(t.Context(), key)
	}
	require.Equal(t, resp.Data[fieldKeyVersion], r.status()[fieldKeyVersion])
	require.Equal(t, 1, r.status()[fieldLiveLeases])
	other.Cleanup(t.Context())
}

func TestSecretTypeIsForEver(t *testing.T) {
	require.Equal(t, "deployment_access_key", secretTypeKey)
	r := newRig(t)
	require.Nil(t, r.engine.Secret(secretTypeKey).Renew)
	require.False(t, r.engine.Secret(secretTypeKey).Renewable())
}

// testSystem returns the view of a server and a mount that nobody has tuned.
func testSystem() *coreView {
	system := logical.TestSystemView()
	system.DefaultLeaseTTLVal = 768 * time.Hour
	return &coreView{StaticSystemView: system}
}

// coreView is core's view of the mount. Tests change it while the engine's own work asks it.
type coreView struct {
	*logical.StaticSystemView
	mu sync.Mutex
}

func (v *coreView) set(change func(core *logical.StaticSystemView)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(v.StaticSystemView)
}

func (v *coreView) snapshot() logical.StaticSystemView {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.StaticSystemView
}

func (v *coreView) ReplicationState() consts.ReplicationState {
	return v.snapshot().ReplicationStateVal
}
func (v *coreView) LocalMount() bool               { return v.snapshot().LocalMountVal }
func (v *coreView) Tainted() bool                  { return v.snapshot().TaintedVal }
func (v *coreView) MaxLeaseTTL() time.Duration     { return v.snapshot().MaxLeaseTTLVal }
func (v *coreView) DefaultLeaseTTL() time.Duration { return v.snapshot().DefaultLeaseTTLVal }

// An existence check, which core makes before a write, does not wait for storage without end,
// nor keep others from what it has locked.
func TestExistenceCheckIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := storagetest.New()
		storage.HangWhen(func(op, _ string) bool { return op == "get" })
		b := newBackend(storage, time.Now, graph.Sleep)
		defer b.Cleanup(t.Context())
		conf := logical.TestBackendConfig()
		conf.StorageView = storage
		require.NoError(t, b.Setup(t.Context(), conf))
		for _, path := range []string{configPath, rolesPath + "hosts"} {
			start := time.Now()
			var all sync.WaitGroup
			all.Go(func() {
				_, _, err := b.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: storage})
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
			synctest.Wait()
			all.Go(func() { b.invalidate(t.Context(), path) })
			all.Wait()
			require.Equal(t, existenceBudget, time.Since(start))
		}
	})
}
