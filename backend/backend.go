// SPDX-License-Identifier: MPL-2.0

// Package backend is a Vault secrets engine that owns a tenant's Microsoft
// Defender for Identity sensor deployment access key.
//
// A tenant has one such key, and regenerating it kills the one before. Hence
// there is one owner for each piece of state, and the owners are layered:
//
//   - connections holds the stored configuration and the Graph client made of it,
//     roles the terms on which readers get the key;
//   - keeper holds the key record and, with its ledger, who has a lease on it.
//     Its lock is held while storage is accessed, never while Graph is asked;
//   - flights lets one piece of work at a time talk to Graph about the key, apart
//     from whoever asked for it, and lets those who ask meanwhile share it;
//   - health remembers how the last attempts went.
//
// Handlers (path_*.go) and the periodic tick put these together. A key leaves the
// engine at one place only, [keeper.lease], under the lock that confirms that it
// is still current and after the record of its lease has been stored.
package backend

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

// Version is the version that the engine reports to Vault, a semantic version
// with a leading "v". The build stamps it (see the Makefile); what
// `vault plugin register -version` names must equal it.
var Version = "v0.0.0-dev"

// handlerBudget is how long a request may take altogether. Vault's core holds its
// state lock while a handler runs, so a longer one would keep the server from
// sealing or stepping down.
const handlerBudget = 19 * time.Second

type backend struct {
	*framework.Backend

	now         func() time.Time
	storage     logical.Storage // for work apart from a request; nil while the plugin is being registered
	connections *connections
	keeper      *keeper
	flights     *flights
	rootWork    *flights // on the app's own credential
	health      *health
	retirement  *retirement
	roles       *roles
	comparison  comparison
	mountMax    mountMax
	herald      herald
	stop        context.CancelFunc

	// pause waits, or returns an error if the context ends before.
	pause func(context.Context, time.Duration) error
}

// Factory makes a backend for a mount. It is also called when the plugin is
// registered, with neither storage nor a system view, so it touches neither.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	if conf == nil {
		return nil, errors.New("the configuration passed into the backend is nil")
	}
	b := newBackend(conf.StorageView, time.Now)
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

func newBackend(storage logical.Storage, now func() time.Time) *backend {
	ctx, stop := context.WithCancel(context.Background())
	b := &backend{
		now:     now,
		storage: storage,
		keeper:  newKeeper(now),
		flights: newFlights(ctx),

		rootWork: newFlights(ctx),
		pause:    pause,
		health:   &health{now: now},
		roles:    &roles{},
		stop:     stop,
	}
	b.connections = &connections{
		logger: func() hclog.Logger { return b.Logger() },
		system: func() logical.SystemView { return b.System() },
	}
	b.retirement = newRetirement(ctx, b.retireIfDue)
	b.Backend = &framework.Backend{
		BackendType:    logical.TypeLogical,
		RunningVersion: Version,
		Help:           strings.TrimSpace(backendHelp),
		Paths: []*framework.Path{
			b.pathConfig(),
			b.pathRoles(),
			b.pathRole(),
			b.pathKey(),
			b.pathRoleKey(),
			b.pathRotateKey(),
			b.pathRotateRoot(),
			b.pathStatus(),
			b.pathDeploymentPackage(),
		},
		PathsSpecial: &logical.Paths{
			// What holds the credential or the key. Exact names: globs do not
			// work here.
			SealWrapStorage: []string{configStorageKey, keyStorageKey},
		},
		Secrets:      []*framework.Secret{b.secretKey()},
		PeriodicFunc: b.periodic,
		Invalidate:   b.invalidate,
		Clean:        b.clean,
	}
	return b
}

// HandleExistenceCheck decides between create and update by the path alone. The
// request's fields are left out because the framework would validate them here
// first, and core answers 500 to an error of the existence check (its
// vault/request_handling.go), where a wrong type deserves the 400 of the handler.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	bare := *req
	bare.Data = nil
	return b.Backend.HandleExistenceCheck(ctx, &bare)
}

// HandleRequest refuses a value of a sensitive field that is not text before the
// framework sees it, whose complaint about the type would quote the value.
// `vault write mdi/config client_secret=a client_secret=b` sends such a one, a list.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	ctx = b.ofRequest(ctx, req)
	if path := b.Route(req.Path); path != nil {
		for name, field := range path.Fields {
			value, given := req.Data[name]
			if _, isText := value.(string); !given || value == nil || isText || field.DisplayAttrs == nil || !field.DisplayAttrs.Sensitive {
				continue
			}
			return nil, refusal(&fieldError{field: name, problem: "must be given once, as text"})
		}
	}
	resp, err := b.Backend.HandleRequest(ctx, req)
	if resp != nil && resp.Data == nil && resp.Secret == nil && len(resp.Warnings) == 0 {
		// A 204, as clients expect it of a write with nothing to say. Handlers
		// return an empty response, since the framework can add its warning of
		// an unknown field to no other.
		return nil, err
	}
	return resp, err
}

// emptyResponses declares an operation that returns no data: 204, or 200 if there are
// warnings.
func emptyResponses(description string) map[int][]framework.Response {
	response := func(what string) []framework.Response {
		return []framework.Response{{Description: what, Fields: map[string]*framework.FieldSchema{}}}
	}
	return map[int][]framework.Response{
		http.StatusNoContent: response(description),
		http.StatusOK:        response(description + " There are warnings."),
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// invalidate drops what is remembered of a storage entry that another node wrote.
func (b *backend) invalidate(_ context.Context, key string) {
	switch {
	case key == configStorageKey:
		b.connections.forget()
	case key == keyStorageKey:
		b.keeper.forget()
	case key == healthStorageKey:
		b.health.forget()
	case strings.HasPrefix(key, rolePrefix):
		b.roles.forget()
	case strings.HasPrefix(key, lease.Prefix):
		b.keeper.ledger.Forget()
	}
}

// clean stops the work that runs apart from requests and waits for none of it:
// Vault blocks every mount of the plugin process while this runs. Work that is
// cut off leaves an intent, which whoever comes next settles.
func (b *backend) clean(context.Context) {
	b.stop()
}

const backendHelp = `
The MDI secrets engine owns a tenant's Microsoft Defender for Identity sensor
deployment access key. It regenerates the key through Microsoft Graph, hands it
out under leases, and regenerates it once more when its last lease has ended, so
that a key that nobody is entitled to hold any longer stops working.

Write "config" first, then read "key".
`
