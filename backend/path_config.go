// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	configPath = "config"

	fieldTenantID          = "tenant_id"
	fieldClientID          = "client_id"
	fieldCredentialType    = "credential_type" //nolint:gosec // the name of a field
	fieldClientSecret      = "client_secret"
	fieldClientCertificate = "client_certificate"

	fieldIdentityTokenAudience = "identity_token_audience"
	fieldIdentityTokenTTL      = "identity_token_ttl"
	fieldApplicationObjectID   = "application_object_id"
	fieldRootRotationPeriod    = "root_rotation_period"

	fieldEnvironment        = "environment"
	fieldGraphEndpoint      = "graph_endpoint"
	fieldAuthorityHost      = "authority_host"
	fieldCACertificate      = "ca_certificate"
	fieldGraphAPIVersion    = "graph_api_version"
	fieldTTL                = "ttl"
	fieldMaxKeyAge          = "max_key_age"
	fieldDriftCheckInterval = "drift_check_interval"
	fieldRegenerateOnRevoke = "regenerate_on_revoke"
	fieldVerifyConnection   = "verify_connection"

	fieldRotationPeriod           = "rotation_period"
	fieldRotationSchedule         = "rotation_schedule"
	fieldRotationWindow           = "rotation_window"
	fieldDisableAutomatedRotation = "disable_automated_rotation"
)

const (
	// verifyBudget bounds the sign-in and the call by which a configuration is
	// verified, farewellBudget the retirement of a key that is left behind.
	// Together they fit into handlerBudget, and leave time to wait for a turn.
	verifyBudget   = 9 * time.Second
	farewellBudget = 8 * time.Second
)

const (
	configHelpSynopsis = `Configure the tenant, the app registration and the lease of the key.`

	configHelpDescription = `
The app registration needs the application permission
SecurityIdentitiesSensors.ReadWrite.All of Microsoft Graph, with an
administrator's consent. A write keeps the fields that it does not name. When it
changes how Graph is reached, the engine signs in and calls Graph before it
stores anything (see verify_connection).

Changing the tenant, the client, the cloud, an endpoint or the CA certificate
needs the credential in the same write. Before the engine turns to another tenant,
and before the configuration is deleted, a key that has been handed out is
regenerated with the old configuration; if that fails, the response warns that
the key lives on. Credentials of the app that rotate-root has made stay with it then;
the response names their ids. The credential is never read back.
`
)

func (b *backend) pathConfig() *framework.Path {
	return &framework.Path{
		Pattern:         configPath + "$",
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:          configFields(),
		ExistenceCheck:  b.configExists,
		Operations:      b.configOperations(),
		HelpSynopsis:    configHelpSynopsis,
		HelpDescription: strings.TrimSpace(configHelpDescription),
	}
}

func (b *backend) configOperations() map[logical.Operation]framework.OperationHandler {
	write := func(verb, summary string) *framework.PathOperation {
		return &framework.PathOperation{
			Callback:                    b.configWrite,
			Summary:                     summary,
			Responses:                   emptyResponses("The configuration has been stored."),
			DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: "configuration"},
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
		}
	}
	return map[logical.Operation]framework.OperationHandler{
		logical.CreateOperation: write("configure", "Store the configuration."),
		logical.UpdateOperation: write("configure", "Change the configuration; fields that are not named keep their value."),
		logical.PatchOperation:  write("patch", "Change the named fields of the configuration; null restores a default."),
		logical.ReadOperation: &framework.PathOperation{
			Callback:     b.configRead,
			Summary:      "Read the configuration, without its secrets.",
			Responses:    map[int][]framework.Response{http.StatusOK: {{Description: "The configuration.", Fields: configResponseFields()}}},
			DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "configuration"},
		},
		logical.DeleteOperation: &framework.PathOperation{
			Callback:                    b.configDelete,
			Summary:                     "Retire a key that has been handed out, and delete the configuration.",
			Responses:                   emptyResponses("There is no configuration any more."),
			DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "delete", OperationSuffix: "configuration"},
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
		},
	}
}

// configResponseFields declares what a read returns: the fields of a write but for
// what is not stored or not shown.
func configResponseFields() map[string]*framework.FieldSchema {
	fields := configFields()
	for _, hidden := range []string{fieldClientSecret, fieldClientCertificate, fieldVerifyConnection} {
		delete(fields, hidden)
	}
	for name, f := range fields {
		f.Required = credentialFields[name] == ""
	}
	return fields
}

func anySlice(values []string) []any {
	result := make([]any, len(values))
	for i, v := range values {
		result[i] = v
	}
	return result
}

func (b *backend) configExists(ctx context.Context, req *logical.Request, _ *framework.FieldData) (bool, error) {
	cfg, err := loadConfig(ctx, req.Storage)
	return cfg != nil, err
}

// configRead serves GET mdi/config.
func (b *backend) configRead(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil || cfg == nil {
		return nil, err
	}
	return &logical.Response{Data: cfg.fields()}, nil
}

// configWrite serves POST and PATCH mdi/config.
func (b *backend) configWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	old, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if old == nil && req.Operation == logical.PatchOperation {
		return nil, logical.CodedError(http.StatusNotFound, "there is no configuration to patch; create it with a write")
	}
	tried, err := b.tryConfig(ctx, old, d)
	if err != nil {
		return nil, refusal(err)
	}
	resp, err := b.flights.alone(ctx, func(ctx context.Context) (*logical.Response, error) {
		return b.replaceConfig(ctx, d, tried)
	})
	if err != nil {
		return nil, refusal(err)
	}
	return resp, nil
}

// tryConfig returns a connection for what the fields of d make of old, which may be
// nil, having verified it where that is wanted. It runs beside all other work: what
// cannot work is refused within verifyBudget, however long Graph takes over the rest.
func (b *backend) tryConfig(ctx context.Context, old *config, d *framework.FieldData) (*connection, error) {
	next, err := old.update(d, b.now())
	if err != nil {
		return nil, err
	}
	conn, err := b.connections.dial(next)
	if err != nil {
		return nil, err
	}
	if wanted, asked := verification(d); asked || wanted && !old.connectsLike(next) {
		return conn, verify(ctx, conn)
	}
	return conn, nil
}

// verification tells whether a write wants what it changes to be verified, which is the
// default, and whether it asks for that by name, and so also if it changes nothing.
func verification(d *framework.FieldData) (wanted, asked bool) {
	value, _ := givenValue(d, fieldVerifyConnection)
	wanted = value.(bool)
	return wanted, wanted && d.Raw[fieldVerifyConnection] != nil
}

// replaceConfig stores what the fields of d make of the configuration; tried is what
// they made of it before. It runs alone: nothing can regenerate the key with the old
// configuration and store it under the new one.
func (b *backend) replaceConfig(ctx context.Context, d *framework.FieldData, tried *connection) (*logical.Response, error) {
	old, err := loadConfig(ctx, b.storage)
	if err != nil {
		return nil, err
	}
	next, err := old.update(d, b.now())
	if err != nil {
		return nil, err
	}
	wanted, _ := verification(d)
	conn, err := b.connectionFor(ctx, old, next, tried, wanted)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{}
	findEnd(ctx, old, conn, d, resp)
	if old != nil && old.workspace() != next.workspace() {
		b.leave(ctx, resp)
	}
	if err := b.connections.save(ctx, b.storage, conn); err != nil {
		return nil, err
	}
	if old != nil {
		b.warnOfForgotten(ctx, old, old.forgottenBy(next), resp)
	}
	b.warnOfTTL(resp, next.TTL)
	b.log(ctx).Info("configuration stored", "tenant_id", next.TenantID, "client_id", next.ClientID, "environment", next.Environment)
	if !old.connectsLike(next) {
		b.logReport(ctx, b.health.reconsider(ctx, b.storage))
	}
	b.tell(ctx, eventConfigWrite, configPath)
	b.retirement.consider()
	return resp, nil
}

// connectionFor returns a connection for next. A client that there is already stays,
// with its token. An error says that next is not what was verified, and should have been.
func (b *backend) connectionFor(ctx context.Context, old, next *config, tried *connection, verified bool) (*connection, error) {
	if old.connectsLike(next) {
		if current, err := b.connections.get(ctx, b.storage); err == nil {
			return &connection{config: next, graph: current.graph}, nil
		}
	}
	switch {
	case tried.config.connectsLike(next):
		return &connection{config: next, graph: tried.graph}, nil
	case verified && !old.connectsLike(next):
		return nil, errConfigChanged
	default:
		return b.connections.dial(next)
	}
}

// verify signs in and asks Graph for the key, which shows that tenant, client,
// credential, endpoints and permission fit together. It needs the very permission
// that regenerating does and changes nothing.
func verify(ctx context.Context, conn *connection) error {
	ctx, cancel := context.WithTimeout(ctx, verifyBudget)
	defer cancel()
	if err := conn.graph.SignIn(ctx); err != nil {
		return &verificationError{err}
	}
	if roles, ok := conn.graph.Roles(ctx); ok && !slices.Contains(roles, graph.Permission) {
		return &verificationError{&fieldError{field: conn.config.identityField(), problem: "the token does not carry the application permission " +
			graph.Permission + " of Microsoft Graph: " + conn.graph.GrantHint(graph.Permission)}}
	}
	if _, err := conn.graph.DeploymentAccessKey(ctx); err != nil {
		return &verificationError{err}
	}
	return nil
}

// configDelete serves DELETE mdi/config.
func (b *backend) configDelete(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerBudget)
	defer cancel()
	resp, err := b.flights.alone(ctx, func(ctx context.Context) (*logical.Response, error) {
		resp := &logical.Response{}
		old, unknown := b.connections.get(ctx, b.storage) // leave tells if that fails
		b.leave(ctx, resp)
		if err := b.connections.remove(ctx, b.storage); err != nil {
			return nil, err
		}
		switch {
		case unknown == nil:
			b.warnOfForgotten(ctx, old.config, old.config.ownCredentials(), resp)
		case !errors.Is(unknown, errUnconfigured):
			resp.AddWarning("Which credentials this engine has made cannot be read. Look for those named vault-plugin-secrets-mdi in the Entra portal.")
		}
		b.log(ctx).Info("configuration deleted")
		b.tell(ctx, eventConfigDelete, configPath)
		return resp, nil
	})
	if err != nil {
		return nil, refusal(err)
	}
	return resp, nil
}
