// SPDX-License-Identifier: MPL-2.0

package config_test

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

const guid = "11111111-2222-3333-4444-555555555555"

// unverified are fields that a write adds to keep it from calling Graph.
var unverified = map[string]any{config.FieldVerifyConnection: false}

// rig is a store of configurations, what it stores in and tells, and a simulated tenant.
// The shortest test:
//
//	r := newRig(t)
//	r.write(r.fields(nil))
//	conn, err := r.store.Current(t.Context())
//	require.NoError(t, err)
//	require.NoError(t, conn.Graph.SignIn(t.Context()))
type rig struct {
	t       *testing.T
	sim     *graphtest.Simulator
	storage *storagetest.Storage
	keys    *accesskey.Store
	store   *config.Store
	now     time.Time
}

func newRig(t *testing.T, opts ...graphtest.Option) *rig {
	r := &rig{t: t, sim: graphtest.Start(t, opts...), storage: storagetest.New(), now: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)}
	now := func() time.Time { return r.now }
	system := func() logical.SystemView { return logical.TestSystemView() }
	r.keys = accesskey.New(r.storage, now)
	r.store = config.New(r.storage, r.keys, "v1.2.3", system, now)
	return r
}

// fields returns those of a working configuration, changed by others; nil leaves a field out.
func (r *rig) fields(changes ...map[string]any) map[string]any {
	app := r.sim.App()
	fields := map[string]any{
		config.FieldTenantID: app.TenantID, config.FieldClientID: app.ClientID, credential.FieldSecret: app.ClientSecret,
		config.FieldGraphEndpoint: r.sim.URL(), config.FieldAuthorityHost: r.sim.URL(), config.FieldCACertificate: r.sim.CACertificate(),
	}
	for _, change := range changes {
		maps.Copy(fields, change)
	}
	maps.DeleteFunc(fields, func(_ string, value any) bool { return value == nil })
	return fields
}

// data returns fields as the engine hands them on.
func data(fields map[string]any) *framework.FieldData {
	d := &framework.FieldData{Schema: field.Schema(new(config.Config).Fields())}
	var err error
	if d.Raw, _, err = field.Clean(d.Schema, fields); err != nil {
		panic(err)
	}
	return d
}

// write stores a configuration as the engine does, and returns its connection.
func (r *rig) write(fields map[string]any) *config.Connection {
	r.t.Helper()
	tried, err := r.store.Try(r.t.Context(), data(fields))
	require.NoError(r.t, err)
	_, conn, err := r.store.Resolve(r.t.Context(), data(fields), tried)
	require.NoError(r.t, err)
	require.NoError(r.t, r.store.Save(r.t.Context(), conn))
	return conn
}

// refused tries fields that the client has to change first, and returns what is said.
func (r *rig) refused(fields map[string]any) *field.Error {
	r.t.Helper()
	before := r.stored()
	_, err := r.store.Try(r.t.Context(), data(fields))
	var refusal *field.Error
	require.ErrorAs(r.t, err, &refusal)
	require.Equal(r.t, before, r.stored())
	return refusal
}

// doesNotWork tries a configuration that is refused because of what it meets.
func (r *rig) doesNotWork(ctx context.Context, fields map[string]any) string {
	r.t.Helper()
	_, err := r.store.Try(ctx, data(fields))
	var failure *config.VerificationError
	require.ErrorAs(r.t, err, &failure)
	require.NotNil(r.t, failure.Unwrap())
	require.Contains(r.t, err.Error(), "nothing has been stored")
	require.Contains(r.t, err.Error(), "verify_connection=false")
	return err.Error()
}

func (r *rig) stored() *config.Config {
	r.t.Helper()
	cfg, err := r.store.Stored(r.t.Context())
	require.NoError(r.t, err)
	return cfg
}

func (r *rig) works(conn *config.Connection) bool {
	key, _, err := conn.Graph.DeploymentAccessKey(r.t.Context())
	return err == nil && r.sim.CanRegister(key)
}

func (r *rig) signIns() int { return r.sim.Calls(graphtest.Token).Started }

func TestStoreKeepsOneConnectionAndTellsTheKeys(t *testing.T) {
	r := newRig(t)
	require.Nil(t, r.stored())
	_, err := r.store.Current(t.Context())
	require.ErrorIs(t, err, config.ErrUnconfigured)
	workspace := func() accesskey.Workspace {
		rec, err := r.keys.Record(t.Context())
		require.NoError(t, err)
		return rec.Workspace
	}
	require.Zero(t, workspace())

	conn := r.write(r.fields())
	require.True(t, r.works(conn))
	require.Equal(t, accesskey.Workspace{TenantID: r.sim.App().TenantID, GraphRoot: r.sim.URL()}, workspace())
	current, err := r.store.Current(t.Context())
	require.NoError(t, err)
	require.Same(t, conn, current)
	require.Equal(t, conn.Config, r.stored())

	r.store.Forget()
	again, err := r.store.Current(t.Context())
	require.NoError(t, err)
	require.NotSame(t, conn, again)
	require.Equal(t, conn.Config, again.Config)
	require.True(t, r.works(again))

	require.NoError(t, r.store.Save(t.Context(), nil))
	require.Nil(t, r.stored())
	_, err = r.store.Current(t.Context())
	require.ErrorIs(t, err, config.ErrUnconfigured)
	_, due, err := r.keys.Due(t.Context())
	require.NoError(t, err)
	require.Empty(t, due)
}

func TestStorageThatFails(t *testing.T) {
	r := newRig(t)
	conn := r.write(r.fields())
	try := func() error { _, err := r.store.Try(t.Context(), data(nil)); return err }
	resolve := func() error { _, _, err := r.store.Resolve(t.Context(), data(nil), conn); return err }
	current := func() error { _, err := r.store.Current(t.Context()); return err }
	for name, c := range map[string]struct {
		op  string
		use func() error
	}{
		"try":     {"get", try},
		"resolve": {"get", resolve},
		"current": {"get", current},
		"save":    {"put", func() error { return r.store.Save(t.Context(), conn) }},
		"remove":  {"delete", func() error { return r.store.Save(t.Context(), nil) }},
	} {
		r.store.Forget()
		r.storage.FailWhen(storagetest.Nth(1, c.op, config.StorageKey))
		require.ErrorIs(t, c.use(), storagetest.ErrBroken, name)
		require.NoError(t, current(), name)
	}
	require.NoError(t, r.storage.Put(t.Context(), &logical.StorageEntry{Key: config.StorageKey, Value: []byte(`{"client_secret": "a-secret`)}))
	r.store.Forget()
	for _, use := range []func() error{try, resolve, current} {
		require.ErrorIs(t, use(), config.ErrUnreadable)
		require.ErrorContains(t, use(), "storage entry config ")
		require.ErrorContains(t, use(), "delete the configuration and write it again")
		require.NotContains(t, use().Error(), "a-secret")
	}
	require.NoError(t, r.store.Save(t.Context(), nil), "what it says is possible")
	require.ErrorIs(t, current(), config.ErrUnconfigured)
	r.write(r.fields())
}

// A failed write may have been carried out. Until the entry has been read again nothing is
// handed out; then what it says holds.
func TestFailedWriteClosesTheDoor(t *testing.T) {
	other := map[string]any{config.FieldTTL: 60}
	for name, c := range map[string]struct {
		op      string
		carried bool // the operation fails, and is carried out nevertheless
		use     func(*rig, *config.Connection) error
		after   error
		ttl     time.Duration
	}{
		"save":            {"put", false, func(r *rig, conn *config.Connection) error { return r.store.Save(r.t.Context(), conn) }, nil, time.Hour},
		"save, carried":   {"put", true, func(r *rig, conn *config.Connection) error { return r.store.Save(r.t.Context(), conn) }, nil, time.Minute},
		"remove":          {"delete", false, func(r *rig, _ *config.Connection) error { return r.store.Save(r.t.Context(), nil) }, nil, time.Hour},
		"remove, carried": {"delete", true, func(r *rig, _ *config.Connection) error { return r.store.Save(r.t.Context(), nil) }, config.ErrUnconfigured, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			configured := func() bool {
				_, err := r.keys.Lease(t.Context(), accesskey.Terms{TTL: time.Hour})
				require.Error(t, err, "there is no key yet")
				return !errors.Is(err, accesskey.ErrUnconfigured)
			}
			r.write(r.fields())
			require.True(t, configured())
			tried, err := r.store.Try(t.Context(), data(other))
			require.NoError(t, err)
			_, conn, err := r.store.Resolve(t.Context(), data(other), tried)
			require.NoError(t, err)

			r.storage.FailWhen(func(op, key string) bool {
				if op != c.op || key != config.StorageKey {
					return false
				}
				if c.carried {
					carryOut(t, r.storage, op, conn.Config)
				}
				return true
			})
			require.ErrorIs(t, c.use(r, conn), storagetest.ErrBroken)
			require.False(t, configured(), "it is not known what is configured")
			r.storage.FailWhen(func(op, _ string) bool { return op == "get" })
			_, err = r.store.Current(t.Context())
			require.ErrorIs(t, err, storagetest.ErrBroken)
			require.False(t, configured())
			r.storage.FailWhen(nil)
			again, err := r.store.Current(t.Context())
			require.ErrorIs(t, err, c.after)
			require.Equal(t, c.after == nil, configured())
			if c.after == nil {
				require.Equal(t, c.ttl, again.Config.TTL)
			}
		})
	}
}

// carryOut does what an operation that is about to fail would have done.
func carryOut(t *testing.T, s *storagetest.Storage, op string, cfg *config.Config) {
	t.Helper()
	if op == "delete" {
		require.NoError(t, s.Storage.Delete(t.Context(), config.StorageKey))
		return
	}
	entry, err := logical.StorageEntryJSON(config.StorageKey, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Storage.Put(t.Context(), entry))
}

// While storage is slow for one, nobody else waits for longer than they may, and those who
// left have changed nothing.
func TestSlowStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &storagetest.Slow{Storage: storagetest.New()}
		keys := accesskey.New(storage, time.Now)
		s := config.New(storage, keys, "v1.2.3", func() logical.SystemView { return logical.TestSystemView() }, time.Now)
		d := data(map[string]any{config.FieldTenantID: guid, config.FieldClientID: guid, credential.FieldSecret: "a-secret", config.FieldVerifyConnection: false})
		conn, err := s.Try(t.Context(), d)
		require.NoError(t, err)
		storage.Takes = 10 * time.Second
		var saved error
		go func() { saved = s.Save(t.Context(), conn) }()
		synctest.Wait()
		storagetest.EndWithContext(t, map[string]func(context.Context) error{
			"stored":  func(ctx context.Context) error { _, err := s.Stored(ctx); return err },
			"current": func(ctx context.Context) error { _, err := s.Current(ctx); return err },
			"try":     func(ctx context.Context) error { _, err := s.Try(ctx, d); return err },
			"resolve": func(ctx context.Context) error { _, _, err := s.Resolve(ctx, d, conn); return err },
			"save":    func(ctx context.Context) error { return s.Save(ctx, conn) },
			"remove":  func(ctx context.Context) error { return s.Save(ctx, nil) },
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, saved)
		current, err := s.Current(t.Context())
		require.NoError(t, err)
		require.Same(t, conn, current)
	})
}

// A connection counts as verified only if a call of Graph has just shown that it works:
// what has made the engine wait is forgotten then.
func TestVerified(t *testing.T) {
	r := newRig(t)
	try := func(fields map[string]any) *config.Connection {
		t.Helper()
		conn, _ := r.store.Try(t.Context(), data(fields))
		return conn
	}
	require.True(t, try(r.fields()).Verified)
	require.False(t, try(r.fields(unverified)).Verified, "not wanted")
	r.write(r.fields())
	require.False(t, try(map[string]any{config.FieldTTL: 60}).Verified, "nothing to verify")
	require.True(t, try(map[string]any{config.FieldVerifyConnection: true}).Verified, "asked for by name")
	require.True(t, try(map[string]any{config.FieldGraphAPIVersion: "beta"}).Verified)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403})
	require.False(t, try(map[string]any{config.FieldVerifyConnection: true}).Verified, "it does not work")
	require.False(t, try(r.fields(map[string]any{credential.FieldSecret: "wrong"})).Verified)
}

// A write that neither changes how Graph is reached nor carries a credential does not call
// Graph, and the client that is in use stays, with its token.
func TestConfigIsVerifiedIfTheConnectionChangesOrTheCredentialIsWritten(t *testing.T) {
	r := newRig(t)
	conn := r.write(r.fields())
	before := r.sim.Calls(graphtest.Get).Started
	require.Equal(t, 1, before)
	next := r.write(map[string]any{config.FieldTTL: 60})
	require.Same(t, conn.Graph, next.Graph)
	require.Equal(t, time.Minute, next.Config.TTL)
	require.Equal(t, before, r.sim.Calls(graphtest.Get).Started)
	require.Same(t, conn.Graph, r.write(r.fields()).Graph)
	require.Equal(t, before+1, r.sim.Calls(graphtest.Get).Started)
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Get, Status: 403})
	r.doesNotWork(t.Context(), map[string]any{config.FieldGraphAPIVersion: "beta"})
	require.Equal(t, "v1.0", r.stored().GraphAPIVersion)

	// A credential may have expired since it was stored.
	r.doesNotWork(t.Context(), map[string]any{credential.FieldSecret: r.sim.App().ClientSecret})
	r.write(map[string]any{credential.FieldSecret: r.sim.App().ClientSecret, config.FieldVerifyConnection: false})

	// By name it is verified whatever it changes, with a sign-in of its own.
	r.doesNotWork(t.Context(), map[string]any{config.FieldVerifyConnection: true})
	r.sim.Clear()
	signIns := r.signIns()
	r.write(map[string]any{config.FieldVerifyConnection: true})
	require.Equal(t, signIns+1, r.signIns())
	r.write(map[string]any{config.FieldVerifyConnection: nil})
	require.Equal(t, signIns+1, r.signIns())
}

// What was verified while other work went on is stored only if that has left it as it was.
func TestWhatHasNotBeenVerifiedIsNotStored(t *testing.T) {
	r := newRig(t)
	r.write(r.fields())
	d := data(map[string]any{config.FieldGraphAPIVersion: "beta"})
	tried, err := r.store.Try(t.Context(), d)
	require.NoError(t, err)
	old, conn, err := r.store.Resolve(t.Context(), d, tried)
	require.NoError(t, err)
	require.Same(t, tried.Graph, conn.Graph)
	require.Equal(t, "v1.0", old.GraphAPIVersion)

	r.write(map[string]any{credential.FieldSecret: "another", config.FieldVerifyConnection: false})
	_, _, err = r.store.Resolve(t.Context(), d, tried)
	require.ErrorIs(t, err, config.ErrChanged)
	_, conn, err = r.store.Resolve(t.Context(), data(map[string]any{config.FieldGraphAPIVersion: "beta", config.FieldVerifyConnection: false}), tried)
	require.NoError(t, err)
	require.Equal(t, "another", conn.Config.Credential.Secret)
	require.ErrorContains(t, conn.Graph.SignIn(t.Context()), "AADSTS7000215", "the client is that of what is stored")

	require.NoError(t, r.store.Save(t.Context(), nil))
	_, _, err = r.store.Resolve(t.Context(), d, tried)
	var refusal *field.Error
	require.ErrorAs(t, err, &refusal, "what is left lacks a credential")
}

func TestVerificationSaysWhatToDo(t *testing.T) {
	const where = "and the proxy of the plugin's environment"
	for name, c := range map[string]struct {
		options []graphtest.Option
		fault   graphtest.Fault
		changes map[string]any
		says    []string
	}{
		"sign-in refused": {changes: map[string]any{credential.FieldSecret: "wrong"}, says: []string{"AADSTS7000215"}},
		"no permission":   {options: []graphtest.Option{graphtest.WithRoles(graphtest.RoleRead)}, says: []string{"client_id: the token does not carry", graphtest.RoleReadWrite}},
		"Graph refuses":   {fault: graphtest.Fault{Operation: graphtest.Get, Status: 403}, says: []string{"403"}},
		"no Graph":        {fault: graphtest.Fault{Operation: graphtest.Get, Reset: true}, says: []string{"check graph_endpoint", where}},
		"no Entra":        {fault: graphtest.Fault{Operation: graphtest.Token, Reset: true}, says: []string{"check authority_host", where}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.options...)
			if c.fault.Operation != "" {
				r.sim.Inject(c.fault)
			}
			text := r.doesNotWork(t.Context(), r.fields(c.changes))
			for _, says := range c.says {
				require.Contains(t, text, says)
			}
			r.write(r.fields(c.changes, unverified))
		})
	}
}

func TestBadConfigIsRefusedByField(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		field string // named by the refusal
		value any
		says  string
	}{
		"no tenant":              {config.FieldTenantID, nil, "required"},
		"tenant by name":         {config.FieldTenantID, "contoso.onmicrosoft.com", "GUID"},
		"no client":              {config.FieldClientID, nil, "required"},
		"malformed client":       {config.FieldClientID, guid + "0", "GUID"},
		"malformed object":       {config.FieldApplicationObjectID, "x", "GUID"},
		"no secret":              {credential.FieldSecret, nil, "required"},
		"empty secret":           {credential.FieldSecret, " \n", "credential is required"},
		"secret's ID":            {credential.FieldSecret, guid, "the secret's value"},
		"credential type":        {credential.FieldType, "password", "client_secret"},
		"http Graph":             {config.FieldGraphEndpoint, "http://graph.example.com", "https"},
		"Graph with path":        {config.FieldGraphEndpoint, "https://graph.example.com/beta", "https"},
		"Graph with user":        {config.FieldGraphEndpoint, "https://a:b@graph.example.com", "https"},
		"Graph without host":     {config.FieldGraphEndpoint, "https://", "https"},
		"http authority":         {config.FieldAuthorityHost, "http://login.example.com", "https"},
		"bare authority":         {config.FieldAuthorityHost, "login.example.com", "https"},
		"unknown cloud":          {config.FieldEnvironment, "AzureGermanCloud", "AzurePublicCloud"},
		"China":                  {config.FieldEnvironment, "AzureChinaCloud", "does not offer"},
		"unknown version":        {config.FieldGraphAPIVersion, "v2.0", "v1.0"},
		"CA is no PEM":           {config.FieldCACertificate, "no\nPEM", "PEM"},
		"CA is a key":            {config.FieldCACertificate, "-----BEGIN PRIVATE KEY-----\nMAo=\n-----END PRIVATE KEY-----\n", "CERTIFICATE"},
		"CA is no certificate":   {config.FieldCACertificate, "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n", "X.509"},
		"no TTL":                 {config.FieldTTL, 0, "between"},
		"absurd TTL":             {config.FieldTTL, "9000h", "between"},
		"absurd maximum age":     {config.FieldMaxKeyAge, "9000h", "between"},
		"absurd drift interval":  {config.FieldDriftCheckInterval, "9000h", "between"},
		"root rotation too soon": {config.FieldRootRotationPeriod, 60, "1h0m0s"},
		"cron of no date":        {schedule.FieldCron, "0 0 30 2 *", "never"},
		"window without cron":    {schedule.FieldWindow, 7200, "rotation_schedule"},
	} {
		t.Run(name, func(t *testing.T) {
			refusal := r.refused(r.fields(map[string]any{c.field: c.value}))
			require.Contains(t, refusal.Error(), c.field)
			require.Contains(t, refusal.Problem, c.says)
			require.Nil(t, r.stored())
			require.Zero(t, r.signIns())
		})
	}
}

// The writer of a configuration must not be able to have the stored secret sent to a
// place of his choice.
func TestMovingTheConnectionNeedsTheCredential(t *testing.T) {
	r, other := newRig(t), graphtest.Start(t)
	r.write(r.fields())
	moves := map[string]any{
		config.FieldTenantID: guid, config.FieldClientID: guid, config.FieldEnvironment: "AzureUSGovernmentCloud",
		config.FieldAuthorityHost: other.URL(), config.FieldGraphEndpoint: other.URL(), config.FieldCACertificate: other.CACertificate(),
	}
	for _, f := range new(config.Config).Fields() {
		require.Equal(t, moves[f.Name] != nil, f.Redirects, f.Name)
	}
	for name, value := range moves {
		move := map[string]any{name: value, config.FieldVerifyConnection: false}
		refusal := r.refused(move)
		require.Equal(t, name, refusal.Field)
		require.Contains(t, refusal.Problem, credential.FieldSecret)
		move[credential.FieldSecret] = "another"
		_, err := r.store.Try(t.Context(), data(move))
		require.NoError(t, err, name)
	}
	require.Zero(t, other.Calls(graphtest.Token).Started)
	r.write(map[string]any{config.FieldTenantID: strings.ToUpper(r.sim.App().TenantID)}) // the same
}

func TestFieldsOfAmbientCredentials(t *testing.T) {
	r := newRig(t)
	t.Setenv("MDI_ALLOWED_HOSTS", strings.TrimPrefix(r.sim.URL(), "https://"))
	managed := r.fields(unverified, map[string]any{credential.FieldSecret: nil, config.FieldClientID: nil, config.FieldAuthorityHost: nil, credential.FieldType: credential.ManagedIdentity})
	for name, value := range map[string]any{config.FieldApplicationObjectID: guid, config.FieldRootRotationPeriod: "24h"} {
		write := maps.Clone(managed)
		write[name] = value
		require.Equal(t, name, r.refused(write).Field)
	}
	r.write(r.fields(unverified, map[string]any{config.FieldApplicationObjectID: guid, config.FieldRootRotationPeriod: "24h"}))
	cfg := r.write(managed).Config
	require.Empty(t, cfg.ObjectID)
	require.Zero(t, cfg.Root.Period)
	require.Equal(t, credential.Credential{Type: credential.ManagedIdentity}, cfg.Credential)
	require.Contains(t, r.refused(r.fields(map[string]any{credential.FieldType: credential.WorkloadIdentity, credential.FieldSecret: nil})).Problem, "AZURE_FEDERATED_TOKEN_FILE")
}

func TestVerificationOfAManagedIdentityNamesItsKind(t *testing.T) {
	r := newRig(t, graphtest.WithRoles(graphtest.RoleRead))
	t.Setenv("MDI_ALLOWED_HOSTS", strings.TrimPrefix(r.sim.URL(), "https://"))
	t.Setenv("IDENTITY_ENDPOINT", r.sim.StartMetadata(t)+"/msi/token")
	t.Setenv("IDENTITY_HEADER", r.sim.IdentityHeader())
	text := r.doesNotWork(t.Context(), r.fields(map[string]any{credential.FieldSecret: nil, config.FieldClientID: nil, config.FieldAuthorityHost: nil, credential.FieldType: credential.ManagedIdentity}))
	require.Contains(t, text, credential.FieldType+": the token does not carry")
}

// Ambient credentials must be asked for by name, and go nowhere else than to Microsoft
// unless the plugin's own environment says so.
func TestAmbientCredentialsGoNowhereElse(t *testing.T) {
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", filepath.Join(t.TempDir(), "token"))
	for _, kind := range []string{credential.WorkloadIdentity, credential.ManagedIdentity, credential.IdentityToken} {
		r := newRig(t)
		write := r.fields(unverified, map[string]any{credential.FieldSecret: nil, credential.FieldType: kind})
		refusal := r.refused(write)
		require.Equal(t, config.FieldGraphEndpoint, refusal.Field)
		require.Contains(t, refusal.Problem, "MDI_ALLOWED_HOSTS")
		require.Equal(t, credential.FieldType, r.refused(r.fields(map[string]any{credential.FieldSecret: nil})).Field)
		t.Run("withdrawn", func(t *testing.T) {
			t.Setenv("MDI_ALLOWED_HOSTS", "graph.example.com, "+strings.TrimPrefix(r.sim.URL(), "https://"))
			r.write(write)
		})
		r.store.Forget()
		_, err := r.store.Current(t.Context())
		require.ErrorContains(t, err, "MDI_ALLOWED_HOSTS", "what is stored is asked about as well")
		require.Zero(t, r.signIns())
	}
}

// A certificate authority of the writer's choice can be any host, if the network helps:
// then Microsoft's own have to be allowed as well.
func TestAmbientCredentialsTrustNoChosenAuthority(t *testing.T) {
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", filepath.Join(t.TempDir(), "token"))
	const graphHost, signInHost = "graph.microsoft.com", "login.microsoftonline.com"
	for kind, hosts := range map[string][]string{
		credential.WorkloadIdentity: {graphHost, signInHost},
		credential.IdentityToken:    {graphHost, signInHost},
		credential.ManagedIdentity:  {graphHost}, // Entra is not asked
	} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			write := r.fields(unverified, map[string]any{credential.FieldSecret: nil, config.FieldGraphEndpoint: nil, config.FieldAuthorityHost: nil, credential.FieldType: kind})
			for n, host := range hosts {
				t.Setenv("MDI_ALLOWED_HOSTS", strings.Join(hosts[:n], ","))
				refusal := r.refused(write)
				require.Equal(t, config.FieldCACertificate, refusal.Field)
				require.Contains(t, refusal.Problem, host)
				require.Contains(t, refusal.Problem, "MDI_ALLOWED_HOSTS")
			}
			t.Setenv("MDI_ALLOWED_HOSTS", strings.Join(hosts, ","))
			r.write(write)
		})
	}
}

func TestPolicyAndTerms(t *testing.T) {
	r := newRig(t)
	cfg := r.write(r.fields(unverified, map[string]any{config.FieldGraphEndpoint: nil, config.FieldMaxKeyAge: "5m", schedule.FieldPeriod: "1h"})).Config
	require.Equal(t, time.Hour, cfg.TTL)
	require.Equal(t, 5*time.Minute, cfg.MaxKeyAge)
	p := cfg.Policy()
	require.Equal(t, accesskey.Workspace{TenantID: cfg.TenantID, GraphRoot: "https://graph.microsoft.com"}, p.Workspace)
	require.Equal(t, config.DefaultDriftCheckInterval, p.DriftCheckInterval)
	require.True(t, p.Retire)
	require.Equal(t, cfg.Schedule.Due(r.now, r.now), p.Rotation(r.now, r.now))
	paused := r.write(map[string]any{config.FieldDisableAutomatedRotation: true}).Config.Policy()
	require.False(t, paused.Retire)
	require.Nil(t, paused.Rotation)
	require.Zero(t, (*config.Config)(nil).Policy())
	require.False(t, (*config.Config)(nil).SameConnection(cfg))
	require.Zero(t, (&config.Config{Environment: "of an earlier version"}).Policy().Workspace.GraphRoot)
}

// A secret that the engine did not make may end before its turn comes.
func TestEndUnknown(t *testing.T) {
	r := newRig(t)
	cfg := r.write(r.fields(unverified)).Config
	require.Empty(t, cfg.EndUnknown(nil), "no rotation")
	rotated := r.write(map[string]any{config.FieldRootRotationPeriod: "24h"}).Config
	require.Contains(t, rotated.EndUnknown(cfg), "if it ends before 2027-03-01T12:00:00Z")
	require.NotEmpty(t, rotated.EndUnknown(nil))
	later := r.write(map[string]any{config.FieldTTL: 60}).Config
	require.Empty(t, later.EndUnknown(rotated), "it has been said")
}
