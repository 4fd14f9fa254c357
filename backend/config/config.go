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

	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/accesskey"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

// StorageKey is where the configuration is stored.
const StorageKey = "config"

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
	err = cmp.Or(field.Write(next.own(), d, c == nil), next.Schedule.Update(d, old.Schedule, now), next.updateRoot(d, old, now), next.complete())
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
	period := c.Root.Period
	if redirected := old.redirectedBy(c) != ""; redirected || old.Credential != c.Credential {
		c.Root, _ = old.Root.Apply(credential.Event{
			Kind: credential.Configured, At: now, Old: old.Credential, New: c.Credential, SameApp: old.sameApp(c), Redirected: redirected,
		})
	}
	c.Root.Period = period
	ambient := c.Credential.Ambient()
	if _, given := field.Value(d, FieldApplicationObjectID); given && c.ObjectID != "" && ambient {
		return &field.Error{Field: FieldApplicationObjectID, Problem: "is for rotating a " + credential.ClientCertificate + "; " + c.Credential.Type + " has none"}
	} else if !given && (ambient || !old.sameApp(c)) {
		c.ObjectID = ""
	}
	switch _, given := field.Value(d, FieldRootRotationPeriod); {
	case ambient && !given:
		c.Root.Period = 0
	case ambient && period != 0:
		return &field.Error{Field: FieldRootRotationPeriod, Problem: "is for " + credential.ClientSecret + " and " + credential.ClientCertificate + "; other credentials renew themselves"}
	case period != old.Root.Period:
		c.Root.Since = now
	}
	return nil
}

// complete returns an error if a configuration lacks what it needs.
func (c *Config) complete() error {
	switch {
	case c.TenantID == "":
		return &field.Error{Field: FieldTenantID, Problem: "is required"}
	case c.ClientID == "" && c.Credential.Type != credential.ManagedIdentity: // else it is the system-assigned one
		return &field.Error{Field: FieldClientID, Problem: "is required"}
	default:
		return nil
	}
}

// redirectedBy names the field by which next would use the credential of c in another
// place than c does, or "".
func (c *Config) redirectedBy(next *Config) string {
	there := next.own()
	for i, f := range c.own() {
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

// sameApp reports whether c is about the app registration that other is about. A managed
// identity has none.
func (c *Config) sameApp(other *Config) bool {
	return c.TenantID == other.TenantID && c.ClientID == other.ClientID &&
		(c.Credential.Type == credential.ManagedIdentity) == (other.Credential.Type == credential.ManagedIdentity)
}

// Terms returns the terms of a read without a role.
func (c *Config) Terms() accesskey.Terms {
	return accesskey.Terms{TTL: c.TTL, MaxAge: c.MaxKeyAge}
}

// Policy returns what the configuration wants of the key. Without one, that is nothing.
func (c *Config) Policy() accesskey.Policy {
	if c == nil {
		return accesskey.Policy{}
	}
	p := accesskey.Policy{
		Workspace:          accesskey.Workspace{TenantID: c.TenantID, GraphRoot: cmp.Or(c.GraphEndpoint, c.cloud().GraphRoot)},
		DriftCheckInterval: c.DriftCheckInterval,
		Retire:             c.RegenerateOnRevoke && !c.DisableRotation,
	}
	if !c.DisableRotation {
		p.Rotation = c.Schedule.Due
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

// identityField names the field that says what the engine signs in as.
func (c *Config) identityField() string {
	if c.ClientID == "" { // the machine's own identity
		return credential.FieldType
	}
	return FieldClientID
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
	if err := c.checkHost(FieldGraphEndpoint, c.GraphEndpoint, c.cloud().GraphRoot); err != nil {
		return err
	}
	if c.Credential.Type == credential.ManagedIdentity && c.AuthorityHost == "" {
		return nil // its tokens are Azure's, not Entra's
	}
	return c.checkHost(FieldAuthorityHost, c.AuthorityHost, c.cloud().AuthorityHost)
}

// checkHost checks the host of the writer's own root, or of Microsoft's if there is none. A
// certificate authority of the writer's choice makes any host one of theirs, Microsoft's
// included.
func (c *Config) checkHost(chosenBy, own, microsofts string) error {
	host, called := strings.TrimPrefix(own, "https://"), "the host" // an error must not quote what was written
	if own == "" {
		host, chosenBy = strings.TrimPrefix(microsofts, "https://"), FieldCACertificate
		called = host
	}
	allowed := strings.FieldsFunc(strings.ToLower(os.Getenv(envAllowedHosts)), func(r rune) bool { return r == ',' || r == ' ' })
	if own == "" && c.CACertificate == "" || slices.Contains(allowed, strings.ToLower(host)) {
		return nil
	}
	return &field.Error{Field: chosenBy, Problem: "cannot be combined with " + credential.FieldType + " " + c.Credential.Type +
		", unless the plugin's environment allows " + called + " in " + envAllowedHosts}
}
