// SPDX-License-Identifier: MPL-2.0

// Package config owns the configuration of a mount and the connection to Microsoft Graph
// that is made of it.
//
// The stored configuration holds effective values: defaults are filled in when it is
// written. It promises that whoever may write it cannot steal what it holds: a change of
// a field that decides where the credential is sent takes the credential in the same
// write. The key store learns from here which workspace is configured.
package config

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

// StorageKey is where the configuration is stored.
const StorageKey = "config"

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

// Config is the stored configuration.
type Config struct {
	TenantID           string                `json:"tenant_id"`
	ClientID           string                `json:"client_id"`
	Credential         credential.Credential `json:"credential"`
	Environment        string                `json:"environment"`
	GraphEndpoint      string                `json:"graph_endpoint"`
	AuthorityHost      string                `json:"authority_host"`
	CACertificate      string                `json:"ca_certificate"`
	GraphAPIVersion    string                `json:"graph_api_version"`
	TTL                time.Duration         `json:"ttl"`
	MaxKeyAge          time.Duration         `json:"max_key_age"`
	DriftCheckInterval time.Duration         `json:"drift_check_interval"`
	RegenerateOnRevoke bool                  `json:"regenerate_on_revoke"`

	Schedule schedule.Schedule `json:"schedule"`
	// DisableRotation pauses the schedule and the retirement.
	DisableRotation bool `json:"disable_automated_rotation"`

	// ObjectID is that of the app registration, for rolling a certificate without any
	// permission.
	ObjectID string          `json:"application_object_id"`
	Root     credential.Life `json:"root"`
}

// Fields are the fields of the configuration.
func (c *Config) Fields() []field.Spec {
	return slices.Concat(c.own(), c.Credential.Fields(), c.Schedule.Fields())
}

// own are the fields besides those of packages credential and schedule, which write their
// own. A field is added here and, with what it stores, to Config: schema, write, read and API
// reference follow. One that changes the connection and does not redirect it, as the version
// of the API, is also named in SameConnection.
func (c *Config) own() []field.Spec {
	return []field.Spec{
		{Name: FieldTenantID, Title: "Tenant ID", At: &c.TenantID, Redirects: true, Required: true, Check: guid, Description: "Directory (tenant) ID of the Entra tenant, a GUID."},
		{Name: FieldClientID, Title: "Client ID", At: &c.ClientID, Redirects: true, Required: !c.isManagedIdentity(), Check: guid, Description: "Application (client) ID of the app registration, a GUID."},
		{Name: FieldApplicationObjectID, Title: "Application object ID", At: &c.ObjectID, Check: guid, Description: "Object ID of the app registration (not of the enterprise application), for rotating a certificate without any permission."},
		{Name: FieldEnvironment, Title: "Environment", At: &c.Environment, Default: graph.AzurePublicCloud, Allowed: graph.CloudNames, Redirects: true, Check: environment, Description: "The Microsoft cloud of the tenant."},
		{Name: FieldGraphEndpoint, Title: "Graph endpoint", At: &c.GraphEndpoint, Group: "Network", Redirects: true, Check: graph.ParseEndpoint, Description: "Root of an https endpoint to use instead of the cloud's Microsoft Graph, such as a private endpoint."},
		{Name: FieldAuthorityHost, Title: "Authority host", At: &c.AuthorityHost, Group: "Network", Redirects: true, Check: graph.ParseEndpoint, Description: "Root of an https endpoint to use instead of the cloud's Entra sign-in."},
		{Name: FieldCACertificate, Title: "CA certificate", At: &c.CACertificate, Group: "Network", Multiline: true, Redirects: true, Check: certificates, Description: "PEM certificates to trust in addition to the system's, such as that of a TLS-inspecting proxy."},
		{Name: FieldGraphAPIVersion, Title: "Graph API version", At: &c.GraphAPIVersion, Group: "Network", Default: graph.V1, Allowed: []string{graph.V1, graph.Beta}, Description: "Version of Microsoft Graph to call. Microsoft does not support beta in production."},
		{Name: FieldTTL, Title: "TTL", At: &c.TTL, Default: DefaultTTL, Shortest: time.Second, Description: "Duration of the leases on the key, capped by the mount's max-lease-ttl. The mount's default-lease-ttl (vault secrets tune) has no effect."},
		{Name: FieldMaxKeyAge, Title: "Maximum key age", At: &c.MaxKeyAge, Default: 0, Description: "How old a key may be for a read of key to share it; 0 regenerates it at every read. Roles have their own."},
		{Name: FieldDriftCheckInterval, Title: "Drift check interval", At: &c.DriftCheckInterval, Default: DefaultDriftCheckInterval, Description: "A key is compared with the tenant's before it is shared if the last comparison is older than this; 0: reads ask for none. The engine itself compares after a regeneration without an answer, before it retires a key, and once a day."},
		{Name: FieldRegenerateOnRevoke, Title: "Regenerate on revoke", At: &c.RegenerateOnRevoke, Default: true, Description: "Whether the key is regenerated when its last lease has ended."},
		{Name: FieldDisableAutomatedRotation, Title: "Disable automated rotation", At: &c.DisableRotation, Group: "Rotation", Description: "Pauses the rotation by schedule and the retirement of keys without leases."},
		{Name: FieldRootRotationPeriod, Title: "Root rotation period", At: &c.Root.Period, Group: "Rotation", Shortest: credential.ShortestPeriod, OrNone: true, Description: "How often the client secret or certificate is replaced automatically, 1h at least; 0: not."},
		{Name: FieldVerifyConnection, Title: "Verify connection", Type: framework.TypeBool, Default: true, Description: "Whether a write that changes how Graph is reached, or carries a credential, first signs in and calls Graph, and stores nothing if that fails; where a write says true, it does so whatever it changes. Not stored."},
	}
}

// guid takes "" as well, which is not for it to refuse.
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

// update returns the configuration that results from writing the fields of d over c,
// which is nil if none is stored. Fields that d does not name keep their value; a JSON
// null asks for the default. Its error is a [*field.Error].
func (c *Config) update(d *framework.FieldData, now time.Time) (*Config, error) {
	old := cmp.Or(c, &Config{})
	next := *old
	var err error
	if next.Credential, err = old.Credential.Update(d); err != nil {
		return nil, err
	}
	err = cmp.Or(field.Write(next.own(), d, c == nil), next.Schedule.Update(d, old.Schedule, now), next.updateRoot(d, old, now), field.Missing(next.own()))
	if err != nil {
		return nil, err
	}
	if name := old.redirectedBy(&next); c != nil && name != "" && !next.Credential.SuppliedBy(d) {
		return nil, &field.Error{Field: name, Problem: "changing it needs the credential (" + next.Credential.Type +
			") in the same write, so that nobody can have a stored one sent elsewhere"}
	}
	return &next, next.Credential.Check()
}

// updateRoot sees to what concerns the app's own credential after its fields were written.
func (c *Config) updateRoot(d *framework.FieldData, old *Config, now time.Time) error {
	if redirected := old.redirectedBy(c) != ""; redirected || old.Credential != c.Credential {
		c.Root, _ = c.Root.Apply(credential.Event{
			Kind: credential.Configured, At: now, Old: old.Credential, New: c.Credential, SameApp: old.sameApp(c), Redirected: redirected,
		})
	}
	_, named := d.Raw[FieldApplicationObjectID]
	_, timed := d.Raw[FieldRootRotationPeriod]
	switch ambient := c.Credential.Ambient(); {
	case ambient && named && c.ObjectID != "":
		return &field.Error{Field: FieldApplicationObjectID, Problem: "is for rotating a " + credential.ClientCertificate + "; " + c.Credential.Type + " has none"}
	case ambient && timed && c.Root.Period != 0:
		return &field.Error{Field: FieldRootRotationPeriod, Problem: "is for " + credential.ClientSecret + " and " + credential.ClientCertificate + "; other credentials renew themselves"}
	case ambient:
		c.ObjectID, c.Root.Period = "", 0
	case !named && !old.sameApp(c):
		c.ObjectID = ""
	}
	if c.Root.Period != old.Root.Period {
		c.Root.Since = now
	}
	return nil
}

// redirectedBy names the field by which next would use the credential of c in another
// place than c does, or "".
func (c *Config) redirectedBy(next *Config) string {
	there := next.Fields()
	for i, f := range c.Fields() {
		if f.Redirects && f.Shown() != there[i].Shown() {
			return f.Name
		}
	}
	return ""
}

// SameConnection reports whether c reaches Graph in the same way as other, so that what
// was verified of the one holds for the other. A nil c reaches nothing.
func (c *Config) SameConnection(other *Config) bool {
	return c != nil && c.redirectedBy(other) == "" && c.Credential == other.Credential && c.GraphAPIVersion == other.GraphAPIVersion
}

// isManagedIdentity reports whether the app is a managed identity: the system-assigned
// one, if there is no client ID.
func (c *Config) isManagedIdentity() bool { return c.Credential.Type == credential.ManagedIdentity }

// sameApp reports whether c is about the app registration that other is about. A managed
// identity has none.
func (c *Config) sameApp(other *Config) bool {
	return c.TenantID == other.TenantID && c.ClientID == other.ClientID && c.isManagedIdentity() == other.isManagedIdentity()
}

// Policy returns what the configuration wants of the key. Without one, that is nothing.
func (c *Config) Policy() accesskey.Policy {
	if c == nil {
		return accesskey.Policy{}
	}
	p := accesskey.Policy{
		Workspace:          accesskey.Workspace{TenantID: c.TenantID, GraphRoot: cmp.Or(c.GraphEndpoint, c.cloud().GraphRoot)},
		DriftCheckInterval: c.DriftCheckInterval,
	}
	if !c.DisableRotation {
		p.Retire, p.Rotation = c.RegenerateOnRevoke, c.Schedule.Due
	}
	return p
}

// EndUnknown returns a warning if the app's client secret is to be rotated automatically
// from now on, unlike under old, and it is not known when the secret ends.
func (c *Config) EndUnknown(old *Config) (warning string) {
	begins := old == nil || !old.sameApp(c) || old.Credential != c.Credential || old.Root.Period != c.Root.Period
	if !begins || c.Root.Period == 0 || c.Credential.Type != credential.ClientSecret || !c.Root.EndsAt.IsZero() {
		return ""
	}
	return "When the " + credential.FieldSecret + " ends is not known to the engine, and " + FieldRootRotationPeriod +
		" counts from now: if it ends before " + c.Root.Next(c.Root.Since, false).NextRotation.UTC().Format(time.RFC3339) + ", rotate it earlier (rotate-root)."
}

// cloud returns the cloud of a configuration that has been validated.
func (c *Config) cloud() graph.Cloud {
	cloud, _ := graph.CloudNamed(c.Environment) // graph.New refuses an empty one with a reason
	return cloud
}

// ErrUnreadable does not wrap the decoder's error, which could quote the configuration.
var ErrUnreadable = errors.New("the storage entry " + StorageKey + " of this mount cannot be decoded: delete the configuration and write it again")

// envAllowedHosts lists, separated by commas, the hosts (with a port, if it is not 443) to
// which an ambient credential may be sent besides Microsoft's own.
const envAllowedHosts = "MDI_ALLOWED_HOSTS"

// checkHosts returns why an ambient credential must not be used, if the configuration
// would send it, or what it is exchanged for, to a host of the writer's choice. Its error
// is a [*field.Error].
func (c *Config) checkHosts() error {
	if !c.Credential.Ambient() {
		return nil
	}
	err := c.checkHost(FieldGraphEndpoint, c.GraphEndpoint, c.cloud().GraphRoot)
	if c.isManagedIdentity() && c.AuthorityHost == "" {
		return err // its tokens are Azure's, not Entra's
	}
	return cmp.Or(err, c.checkHost(FieldAuthorityHost, c.AuthorityHost, c.cloud().AuthorityHost))
}

// checkHost checks the host of the writer's own root, or of Microsoft's if there is none. A
// certificate authority of the writer's choice makes any host one of theirs, Microsoft's
// included.
func (c *Config) checkHost(chosenBy, own, microsofts string) error {
	host, called := strings.TrimPrefix(cmp.Or(own, microsofts), "https://"), "the host" // an error must not quote what was written
	if own == "" {
		chosenBy, called = FieldCACertificate, host
	}
	allowed := strings.FieldsFunc(strings.ToLower(os.Getenv(envAllowedHosts)), func(r rune) bool { return r == ',' || r == ' ' })
	if own == "" && c.CACertificate == "" || slices.Contains(allowed, strings.ToLower(host)) {
		return nil
	}
	return &field.Error{Field: chosenBy, Problem: "cannot be combined with " + credential.FieldType + " " + c.Credential.Type +
		", unless the plugin's environment allows " + called + " in " + envAllowedHosts}
}
