// SPDX-License-Identifier: MPL-2.0

package config

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// Names of the fields, besides those of packages credential and schedule.
const (
	FieldTenantID                 = "tenant_id"
	FieldClientID                 = "client_id"
	FieldApplicationObjectID      = "application_object_id"
	FieldRootRotationPeriod       = "root_rotation_period"
	FieldEnvironment              = "environment"
	FieldGraphEndpoint            = "graph_endpoint"
	FieldAuthorityHost            = "authority_host"
	FieldCACertificate            = "ca_certificate"
	FieldGraphAPIVersion          = "graph_api_version"
	FieldTTL                      = "ttl"
	FieldMaxKeyAge                = "max_key_age"
	FieldDriftCheckInterval       = "drift_check_interval"
	FieldRegenerateOnRevoke       = "regenerate_on_revoke"
	FieldDisableAutomatedRotation = "disable_automated_rotation"
	FieldVerifyConnection         = "verify_connection"
)

// Defaults.
const (
	DefaultTTL                = time.Hour
	DefaultDriftCheckInterval = 10 * time.Minute
)

// Fields are the fields of the configuration.
func (c *Config) Fields() []field.Spec {
	return slices.Concat(c.own(), c.Credential.Fields(), c.Schedule.Fields())
}

// own are the fields besides those of packages credential and schedule, which write their
// own. A field is added here and, with what it stores, to Config: schema, write, read and API
// reference follow.
func (c *Config) own() []field.Spec {
	return []field.Spec{
		{Name: FieldTenantID, Title: "Tenant ID", Type: framework.TypeString, Redirects: true, At: &c.TenantID, Check: guid, Description: "Directory (tenant) ID of the Entra tenant, a GUID."},
		{Name: FieldClientID, Title: "Client ID", Type: framework.TypeString, Redirects: true, At: &c.ClientID, Check: guid, Description: "Application (client) ID of the app registration, a GUID."},
		{Name: FieldApplicationObjectID, Title: "Application object ID", Type: framework.TypeString, At: &c.ObjectID, Check: guid, Description: "Object ID of the app registration (not of the enterprise application), for rotating a certificate without any permission."},
		{Name: FieldEnvironment, Title: "Environment", Type: framework.TypeString, Default: graph.AzurePublicCloud, Allowed: graph.CloudNames(), Redirects: true, At: &c.Environment, Check: environment, Description: "The Microsoft cloud of the tenant."},
		{Name: FieldGraphEndpoint, Title: "Graph endpoint", Group: "Network", Type: framework.TypeString, Redirects: true, At: &c.GraphEndpoint, Check: graph.ParseEndpoint, Description: "Root of an https endpoint to use instead of the cloud's Microsoft Graph, such as a private endpoint."},
		{Name: FieldAuthorityHost, Title: "Authority host", Group: "Network", Type: framework.TypeString, Redirects: true, At: &c.AuthorityHost, Check: graph.ParseEndpoint, Description: "Root of an https endpoint to use instead of the cloud's Entra sign-in."},
		{Name: FieldCACertificate, Title: "CA certificate", Group: "Network", Type: framework.TypeString, Multiline: true, Redirects: true, At: &c.CACertificate, Check: certificates, Description: "PEM certificates to trust in addition to the system's, such as that of a TLS-inspecting proxy."},
		{Name: FieldGraphAPIVersion, Title: "Graph API version", Group: "Network", Type: framework.TypeString, Default: graph.V1, Allowed: []string{graph.V1, graph.Beta}, At: &c.GraphAPIVersion, Description: "Version of Microsoft Graph to call. Microsoft does not support beta in production."},
		{Name: FieldTTL, Title: "TTL", Type: framework.TypeDurationSecond, Default: int(DefaultTTL.Seconds()), At: &c.TTL, Shortest: time.Second, Description: "Duration of the leases on the key, capped by the mount's max-lease-ttl. The mount's default-lease-ttl (vault secrets tune) has no effect."},
		{Name: FieldMaxKeyAge, Title: "Maximum key age", Type: framework.TypeDurationSecond, Default: 0, At: &c.MaxKeyAge, Description: "How old a key may be for a read of key to share it; 0 regenerates it at every read. Roles have their own."},
		{Name: FieldDriftCheckInterval, Title: "Drift check interval", Type: framework.TypeDurationSecond, Default: int(DefaultDriftCheckInterval.Seconds()), At: &c.DriftCheckInterval, Description: "A key is compared with the tenant's before it is shared if the last comparison is older than this; 0: reads ask for none. The engine itself compares after a regeneration without an answer, before it retires a key, and once a day."},
		{Name: FieldRegenerateOnRevoke, Title: "Regenerate on revoke", Type: framework.TypeBool, Default: true, At: &c.RegenerateOnRevoke, Description: "Whether the key is regenerated when its last lease has ended."},
		{Name: FieldDisableAutomatedRotation, Title: "Disable automated rotation", Group: "Rotation", Type: framework.TypeBool, At: &c.DisableRotation, Description: "Pauses the rotation by schedule and the retirement of keys without leases."},
		{Name: FieldRootRotationPeriod, Title: "Root rotation period", Group: "Rotation", Type: framework.TypeDurationSecond, At: &c.Root.Period, Shortest: credential.ShortestPeriod, OrNone: true, Description: "How often the client secret or certificate is replaced automatically, 1h at least; 0: not."},
		{Name: FieldVerifyConnection, Title: "Verify connection", Type: framework.TypeBool, Default: true, Description: "Whether a write that changes how Graph is reached, or carries a credential, first signs in and calls Graph, and stores nothing if that fails; where a write says true, it does so whatever it changes. Not stored."},
	}
}

// guid takes "" as well: complete checks what is required.
func guid(text string) (string, error) {
	if text != "" && (len(text) != len(uuid.Nil.String()) || uuid.Validate(text) != nil) {
		return "", errors.New("must be a GUID such as " + uuid.Nil.String() + ", as the app registration's overview shows it")
	}
	return strings.ToLower(text), nil
}

func environment(name string) (string, error) {
	cloud, err := graph.CloudNamed(name)
	return cloud.Name, err
}

func certificates(text string) (string, error) {
	_, err := graph.ParseCertificates(text)
	return text, err
}
