// SPDX-License-Identifier: MPL-2.0

package rootrotation_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/rootrotation"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// The kinds of app: with a secret, with a certificate, and with a certificate and no
// permission for its registration.
const (
	secret       = credential.ClientSecret
	certificate  = credential.ClientCertificate
	unprivileged = "unprivileged"
)

var adding = map[string]graphtest.Operation{secret: graphtest.AddPassword, certificate: graphtest.AddKey, unprivileged: graphtest.AddKey}

// engine is a rotator, its storage, a clock under the test's control and a simulated
// tenant. A test configures, rotates, lets time pass, and asks:
//
//	e := start(t, secret)
//	e.rotate()
//	e.pass(credential.Grace)
//	require.Equal(t, 1, e.own())
type engine struct {
	t       *testing.T
	sim     *graphtest.Simulator
	storage *storagetest.Storage
	log     *strings.Builder // read only while nothing runs
	ctx     context.Context
	foreign int // credentials that the engine has not made

	mu      sync.Mutex
	at      time.Time
	flights *flight.Group
	configs *config.Store
	rotator *rootrotation.Rotator
}

// start configures an engine for an app, which has a secret of another application too.
func start(t *testing.T, app string, opts ...graphtest.Option) *engine {
	t.Helper()
	roles := []string{graphtest.RoleReadWrite, graphtest.RoleRead, graphtest.RoleOwnedBy}
	if app == unprivileged {
		roles = roles[:1]
	}
	opts = append(opts, graphtest.WithRoles(roles...), graphtest.WithForeignPassword("billing"))
	e := &engine{t: t, sim: graphtest.Start(t, opts...), storage: storagetest.New(), log: &strings.Builder{}, at: time.Now()}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: e.log})
	e.ctx = hclog.WithContext(t.Context(), logger)
	e.restart()
	fields := map[string]any{
		config.FieldTenantID: e.sim.App().TenantID, config.FieldClientID: e.sim.App().ClientID, config.FieldCACertificate: e.sim.CACertificate(),
		config.FieldGraphEndpoint: e.sim.URL(), config.FieldAuthorityHost: e.sim.URL(),
	}
	switch app {
	case secret:
		fields[secret] = e.sim.App().ClientSecret
	case unprivileged:
		fields[config.FieldApplicationObjectID] = e.sim.Info().ObjectID
		fallthrough
	default:
		fields[certificate] = e.certificate()
	}
	e.configure(fields)
	e.foreign = len(e.sim.Credentials())
	t.Cleanup(func() {
		for _, issued := range e.sim.Issued() {
			require.NotContains(t, e.log.String(), issued, "a secret in the log")
		}
	})
	return e
}

var (
	apps         = []string{secret, certificate, unprivileged}
	privileged   = []string{secret, certificate}
	certificates = []string{certificate, unprivileged}
)

// each runs a test with an engine for each of the kinds of app.
func each(t *testing.T, kinds []string, test func(t *testing.T, e *engine, app string), opts ...graphtest.Option) {
	t.Helper()
	for _, app := range kinds {
		t.Run(app, func(t *testing.T) { test(t, start(t, app, opts...), app) })
	}
}

// restart begins anew on the same storage, as after a crash.
func (e *engine) restart() {
	e.flights = flight.New(e.ctx, e.detach)
	e.configs = config.New(e.storage, accesskey.New(e.storage, e.now), "v1", func() logical.SystemView { return logical.TestSystemView() }, e.now)
	e.rotator = &rootrotation.Rotator{
		Configs: e.configs, Events: event.New(&framework.Backend{}), Flights: flight.New(e.ctx, e.detach),
		Changes: e.flights, Now: e.now,
	}
	e.impatient()
}

func (e *engine) detach(base, _ context.Context) context.Context { return base }

// impatient lets ten pauses end at once; then the time for the work is up.
func (e *engine) impatient() {
	left := 10
	e.rotator.Sleep = func(ctx context.Context, _ time.Duration) error {
		if left--; left < 0 {
			return context.DeadlineExceeded
		}
		return ctx.Err()
	}
}

func (e *engine) now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at
}

// pass lets time pass, and then does what is due.
func (e *engine) pass(times ...time.Duration) {
	e.t.Helper()
	for _, d := range times {
		e.shift(d)
		e.impatient()
		require.NoError(e.t, e.rotator.RunDue(e.ctx))
	}
}

func (e *engine) hours(n int) {
	e.t.Helper()
	for range n {
		e.pass(time.Hour)
	}
}

// configure writes fields of the configuration, as mdi/config does, and returns the warning.
func (e *engine) configure(fields map[string]any) (warning string) {
	e.t.Helper()
	d := &framework.FieldData{Raw: fields, Schema: field.Schema(new(config.Config).Fields())}
	tried, err := e.configs.Try(e.ctx, d)
	require.NoError(e.t, err)
	require.NoError(e.t, e.flights.Alone(e.ctx, flight.Configuration, func(ctx context.Context) error {
		old, conn, err := e.configs.Resolve(ctx, d, tried)
		if err != nil {
			return err
		}
		if old != nil {
			warning = e.rotator.WarnOfForgotten(ctx, old, conn.Config)
		}
		return e.configs.Save(ctx, conn)
	}))
	return warning
}

func (e *engine) certificate() string {
	e.t.Helper()
	bundle, err := e.sim.NewCertificate(graphtest.CertificateRequest{})
	require.NoError(e.t, err)
	return bundle
}

// byHand returns the fields of a credential that the operator has made for the app.
func (e *engine) byHand(app string) map[string]any {
	if app != secret {
		bundle := e.certificate()
		e.foreign++
		return map[string]any{certificate: bundle}
	}
	e.sim.Update(graphtest.WithApp("", "a-secret-that-the-operator-has-made"))
	return map[string]any{secret: "a-secret-that-the-operator-has-made"}
}

func (e *engine) rotate() (warning string) {
	e.t.Helper()
	warning, err := e.rotator.Rotate(e.ctx)
	require.NoError(e.t, err)
	return warning
}

// loses rotates, and the answer about the new credential is lost.
func (e *engine) loses(fault graphtest.Fault) {
	e.t.Helper()
	for _, op := range []graphtest.Operation{graphtest.AddPassword, graphtest.AddKey} {
		fault.Operation, fault.Times = op, 1
		e.sim.Inject(fault)
	}
	_, err := e.rotator.Rotate(e.ctx)
	e.sim.Clear()
	require.Error(e.t, err)
}

func (e *engine) stored() *config.Config {
	e.t.Helper()
	cfg, err := e.configs.Stored(e.ctx)
	require.NoError(e.t, err)
	return cfg
}

func (e *engine) status() credential.Step { return e.stored().Root.Next(e.now(), false) }

// own returns how many credentials the app has beside those that others have made.
func (e *engine) own() int { return len(e.sim.Credentials()) - e.foreign }

// works requires that the app can sign in with what is stored.
func (e *engine) works() {
	e.t.Helper()
	conn, err := e.configs.Connect(e.stored())
	require.NoError(e.t, err)
	require.NoError(e.t, conn.Graph.SignIn(e.ctx))
}

// ids returns how the credentials that the engine knows are named.
func (e *engine) ids() []string {
	var ids []string
	for _, m := range e.stored().Root.Made {
		ids = append(ids, m.Name+m.KeyID+m.Thumbprint)
	}
	return ids
}
