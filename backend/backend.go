// SPDX-License-Identifier: MPL-2.0

// Package backend is a Vault secrets engine that owns a tenant's Microsoft Defender for
// Identity sensor deployment access key.
//
// A tenant has one such key, and regenerating it kills the one before. Hence there is one
// owner for each piece of state, each a package of its own below this one. accesskey has
// the key and the rule of who may have it, and lease the records of its leases. config has
// the configuration and the connection to Graph, role the roles, and format the number of
// what is stored. health has how the work with Graph went, rotation and rootrotation the
// work itself.
//
// This package puts them together. It has the paths, the secret type of the leases, the
// translation of errors to HTTP, and the periodic tick. Handlers load, act and save.
package backend

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/flight"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/health"
	"example.com/vault-plugin-secrets-mdi/backend/lease"
	"example.com/vault-plugin-secrets-mdi/backend/role"
	"example.com/vault-plugin-secrets-mdi/backend/rootrotation"
	"example.com/vault-plugin-secrets-mdi/backend/rotation"
)

// Version is the version that the engine reports to Vault, a semantic version
// with a leading "v". The build stamps it (see the Makefile); what
// `vault plugin register -version` names must equal it.
var Version = "v0.0.0-dev"

// requestBudget bounds every request, the periodic tick and the end of a lease included.
// Vault's core holds its state lock meanwhile, so a longer one would keep the server from
// sealing or stepping down.
const requestBudget = 19 * time.Second

type backend struct {
	*framework.Backend

	now            func() time.Time
	keys           *accesskey.Store
	configs        *config.Store
	roles          *role.Store
	health         *health.Tracker
	events         *event.Sender
	flights        *flight.Group // work with the key, and changes of the configuration
	rotation       *rotation.Manager
	root           *rootrotation.Rotator
	wakeRetirement func()  // has retireIfDue run soon
	core           *system // set by Setup
}

// Factory makes a backend for a mount. It is also called when the plugin is
// registered, with neither storage nor a system view, so it touches neither.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	if conf == nil {
		return nil, errors.New("the configuration passed into the backend is nil")
	}
	b := newBackend(conf.StorageView, time.Now, graph.Sleep)
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

// Setup implements logical.Backend.
func (b *backend) Setup(ctx context.Context, conf *logical.BackendConfig) error {
	own := *conf
	if conf.System != nil { // there is none when the plugin is registered
		b.core = &system{SystemView: conf.System, now: b.now}
		own.System = b.core
	}
	return b.Backend.Setup(ctx, &own)
}

// detach returns a context that ends with base, for work that outlives the request which asked
// for it. Its log lines name that request.
func detach(base, request context.Context) context.Context {
	return hclog.WithContext(base, hclog.FromContext(request))
}

func newBackend(storage logical.Storage, now func() time.Time, sleep func(context.Context, time.Duration) error) *backend {
	ctx, stop := context.WithCancel(context.Background())
	b := &backend{
		now:     now,
		keys:    accesskey.New(storage, now),
		roles:   role.NewStore(storage),
		health:  health.New(storage, now),
		flights: flight.New(ctx, detach),
	}
	b.events = event.New(b)
	b.configs = config.New(storage, b.keys, Version, func() logical.SystemView { return b.System() }, now)
	b.rotation = &rotation.Manager{
		Keys: b.keys, Configs: b.configs, Health: b.health, Events: b.events, Now: now, Sleep: sleep,
		Flights: b.flights, Comparisons: flight.New(ctx, detach),
		MaxTTL:  func() time.Duration { return b.core.maxTTL() },
		Tainted: func() bool { return b.System().Tainted() }, Writable: func() bool { return b.WriteSafeReplicationState() },
	}
	b.root = &rootrotation.Rotator{
		Configs: b.configs, Events: b.events, Flights: flight.New(ctx, detach), Changes: b.flights, Now: now, Sleep: graph.Sleep,
	}
	b.wakeRetirement = coalesced(ctx, b.retireIfDue)
	b.Backend = &framework.Backend{
		BackendType:    logical.TypeLogical,
		RunningVersion: Version,
		Help:           strings.TrimSpace(backendHelp),
		Paths:          paths,
		PathsSpecial:   &logical.Paths{SealWrapStorage: []string{config.StorageKey, accesskey.StorageKey}}, // exact names: globs do not work
		Secrets:        []*framework.Secret{secretKey},
		InitializeFunc: b.initialize,
		PeriodicFunc:   b.periodic,
		Invalidate:     b.invalidate,
		// It waits for no work, since Vault blocks every mount of the plugin process meanwhile.
		// Work that is cut off leaves an intent, which the next work with the key settles.
		Clean: func(context.Context) { stop() },
	}
	return b
}

// existenceBudget bounds an existence check, which core makes before the request.
const existenceBudget = 5 * time.Second

// HandleExistenceCheck decides between create and update by the path alone. The
// request's fields are left out because the framework would validate them here first. Core
// answers 500 to an error of the existence check (its vault/request_handling.go), where a
// wrong type deserves the 400 of the handler.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, mountKey{}, b), existenceBudget)
	defer cancel()
	bare := *req
	bare.Data = nil
	checkFound, exists, err = b.Backend.HandleExistenceCheck(ctx, &bare)
	if errors.Is(err, config.ErrUnreadable) {
		return true, true, nil // the handler says so
	}
	return checkFound, exists, err
}

// HandleRequest bounds a request, and tells its client of fields that do not exist,
// whether it succeeds or not: the one that is missing may have been mistyped. A response
// that comes with an error is dropped.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	ctx, cancel := context.WithTimeout(b.logged(context.WithValue(ctx, mountKey{}, b), req.ID), requestBudget)
	defer cancel()
	unknown := ""
	if path := b.Route(req.Path); path == nil {
		err = badName(req)
	} else if req.Secret == nil { // what comes with a lease is core's
		req.Data, unknown, err = field.Clean(path.Fields, req.Data)
	}
	if err == nil {
		resp, err = b.Backend.HandleRequest(ctx, req)
	}
	if err = refusal(err); err != nil {
		coded, ok := errors.AsType[logical.HTTPCodedError](err)
		if !ok || unknown == "" {
			return nil, err
		}
		first, second := err.Error(), unknown
		if strings.Contains(unknown, "did you mean") { // which is the likely cause
			first, second = unknown, err.Error()
		}
		return nil, logical.CodedError(coded.Code(), first+"; "+second)
	}
	warn(resp, unknown)
	if resp != nil && resp.Data == nil && resp.Secret == nil && len(resp.Warnings) == 0 {
		// A 204, as clients expect it of a write with nothing to say. Handlers
		// return an empty response, since no warning can be added to none.
		return nil, nil
	}
	return resp, nil
}

// logged returns a context whose log lines have the ID of a request, the same as in Vault's
// audit log. Work that no request has asked for gets a new one, as do requests that core makes
// of its own, to revoke a lease or for the periodic tick.
func (b *backend) logged(ctx context.Context, requestID string) context.Context {
	if requestID == "" {
		return hclog.WithContext(ctx, b.Logger(), "work_id", uuid.NewString())
	}
	return hclog.WithContext(ctx, b.Logger(), "request_id", requestID)
}

// invalidate drops what is remembered of a storage entry that another node has written.
func (b *backend) invalidate(_ context.Context, key string) {
	switch {
	case key == config.StorageKey:
		b.configs.Forget()
	case key == accesskey.StorageKey, strings.HasPrefix(key, lease.Prefix):
		b.keys.Forget()
	case key == health.StorageKey:
		b.health.Forget()
	case strings.HasPrefix(key, role.Prefix):
		b.roles.Forget()
	}
}

// repeatable are errors that repeating the request may cure.
var repeatable = []error{
	flight.ErrUnderWay, flight.ErrNotBegun, config.ErrChanged, rotation.ErrUnconfirmed, health.ErrThrottled,
	accesskey.ErrClosed, accesskey.ErrTurning, accesskey.ErrInDoubt, context.DeadlineExceeded,
}

// refusal turns an error into the answer for the client. It is 400 for what the client has
// to change first; never 401 or 403, which clients of Vault take for their own token's;
// 502 or 503 where repeating is harmless. The errors are returned naked, since core looks
// at no wrapped one.
func refusal(err error) error {
	remote, isRemote := errors.AsType[*graph.Error](err)
	held := isRemote && has[*health.HeldError](err) // who has to wait, after this failure
	switch {
	case has[*field.Error](err), has[*graph.ConfigError](err), errors.Is(err, config.ErrUnconfigured):
		return logical.CodedError(http.StatusBadRequest, err.Error())
	case held && remote.MayHaveHappened(), has[*rotation.UnsettledError](err),
		slices.ContainsFunc(repeatable, func(target error) bool { return errors.Is(err, target) }):
		return logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case !isRemote:
		return err
	case held, has[*config.VerificationError](err): // which have explained themselves
		return logical.CodedError(statusFor(remote), err.Error())
	default:
		return logical.CodedError(statusFor(remote), graph.Explain(err)+advice(remote))
	}
}

// has reports whether there is an E in the chain of err.
func has[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// advice says what a failure that passes means for the client: nothing but to try again.
// What may have been carried out is an UnsettledError, so a regeneration that failed in
// another way has left the key alone.
func advice(remote *graph.Error) string {
	switch {
	case statusFor(remote) == http.StatusBadRequest:
		return ""
	case remote.Op == graph.OpRegenerate:
		return ": the key has not been changed; try again"
	default:
		return ": try again"
	}
}

// statusFor returns the status for a failure of Entra or Graph.
func statusFor(e *graph.Error) int {
	switch {
	case e.Kind == graph.Refused:
		return http.StatusBadRequest
	case e.Kind == graph.Throttled, e.Kind == graph.Timeout, e.Status == 0, e.Status == http.StatusServiceUnavailable, e.Status == http.StatusGone:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadGateway
	}
}

const backendHelp = `
The MDI secrets engine owns a tenant's Microsoft Defender for Identity sensor
deployment access key. It regenerates the key through Microsoft Graph, hands it
out under leases, and regenerates it once more when its last lease has ended, so
that a key that nobody is entitled to hold any longer stops working.

Write "config" first, then read "key".
`
