// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const (
	configStorageKey = "config"

	defaultTTL                = time.Hour
	defaultDriftCheckInterval = 10 * time.Minute
)

// config is the stored configuration. The values are the effective ones: defaults
// are filled in when it is written.
type config struct {
	TenantID           string        `json:"tenant_id"`
	ClientID           string        `json:"client_id"`
	Credential         credential    `json:"credential"`
	Environment        string        `json:"environment"`
	GraphEndpoint      string        `json:"graph_endpoint"`
	AuthorityHost      string        `json:"authority_host"`
	CACertificate      string        `json:"ca_certificate"`
	GraphAPIVersion    string        `json:"graph_api_version"`
	TTL                time.Duration `json:"ttl"`
	MaxKeyAge          time.Duration `json:"max_key_age"`
	DriftCheckInterval time.Duration `json:"drift_check_interval"`
	RegenerateOnRevoke bool          `json:"regenerate_on_revoke"`

	Schedule schedule `json:"schedule"`
	// DisableRotation pauses the schedule and the retirement.
	DisableRotation bool `json:"disable_automated_rotation"`

	// ObjectID is that of the app registration, for rolling a certificate without any
	// permission.
	ObjectID string    `json:"application_object_id"`
	Root     rootState `json:"root"`
}

// identityField names the field that says what the engine signs in as.
func (c *config) identityField() string {
	if c.ClientID == "" { // the machine's own identity
		return fieldCredentialType
	}
	return fieldClientID
}

// workspace says whose key a key record holds. A key is never served for another
// workspace than the one it came from.
type workspace struct {
	TenantID  string `json:"tenant_id"`
	GraphRoot string `json:"graph_root"`
}

// update returns the configuration that results from writing the fields of d over
// c, which is nil where none is stored. Fields that d does not name keep their
// value; a JSON null asks for the default. An error is a *fieldError.
func (c *config) update(d *framework.FieldData, now time.Time) (*config, error) {
	old := &config{}
	if c != nil {
		old = c
	}
	next := *old
	var err error
	if next.Credential, err = old.Credential.update(d); err != nil {
		return nil, err
	}
	for _, s := range next.setters() {
		value, given := givenValue(d, s.field)
		if !given && c == nil {
			value, given = d.GetDefaultOrZero(s.field), d.Schema[s.field].Default != nil
		}
		if !given {
			continue
		}
		if err := s.set(value); err != nil {
			return nil, &fieldError{field: s.field, problem: err.Error()}
		}
	}
	if err := next.Schedule.update(d, old.Schedule, now); err != nil {
		return nil, err
	}
	if err := next.updateRoot(d, old, now); err != nil {
		return nil, err
	}
	if err := next.complete(); err != nil {
		return nil, err
	}
	if field := old.movedBy(&next); c != nil && field != "" && !next.Credential.presented(d) {
		return nil, &fieldError{field: field, problem: "changing it needs the credential (" + next.Credential.Type +
			") in the same write, so that nobody can have a stored one sent elsewhere"}
	}
	return &next, next.checkTokenFile()
}

// setter validates the value of a field and stores it.
type setter struct {
	field string
	set   func(value any) error
}

// setters returns those of the fields that stand for themselves.
func (c *config) setters() []setter {
	return []setter{
		{fieldTenantID, guidInto(&c.TenantID)},
		{fieldClientID, unlessEmpty(&c.ClientID, guidInto(&c.ClientID))},
		{fieldApplicationObjectID, unlessEmpty(&c.ObjectID, guidInto(&c.ObjectID))},
		{fieldEnvironment, c.setEnvironment},
		{fieldGraphEndpoint, rootInto(&c.GraphEndpoint)},
		{fieldAuthorityHost, rootInto(&c.AuthorityHost)},
		{fieldCACertificate, c.setCACertificate},
		{fieldGraphAPIVersion, c.setGraphAPIVersion},
		{fieldTTL, durationInto(&c.TTL, time.Second)},
		{fieldMaxKeyAge, durationInto(&c.MaxKeyAge, 0)},
		{fieldDriftCheckInterval, durationInto(&c.DriftCheckInterval, 0)},
		{fieldRegenerateOnRevoke, flagInto(&c.RegenerateOnRevoke)},
		{fieldDisableAutomatedRotation, flagInto(&c.DisableRotation)},
	}
}

// givenValue returns what the request says of a field: whether it names the field,
// and the value, which for a JSON null is the default.
func givenValue(d *framework.FieldData, field string) (any, bool) {
	raw, given := d.Raw[field]
	if given && raw == nil {
		return d.GetDefaultOrZero(field), true
	}
	return d.Get(field), given
}

// complete reports the first field that a configuration cannot do without.
func (c *config) complete() error {
	switch {
	case c.TenantID == "":
		return &fieldError{field: fieldTenantID, problem: "is required"}
	case c.ClientID == "" && c.Credential.Type != credentialManagedIdentity: // else it is the system-assigned one
		return &fieldError{field: fieldClientID, problem: "is required"}
	default:
		return nil
	}
}

// movedBy names the field by which next would use the credential of c in another
// place than c does, or "".
func (c *config) movedBy(next *config) string {
	for _, f := range []struct{ field, was, is string }{
		{fieldTenantID, c.TenantID, next.TenantID},
		{fieldClientID, c.ClientID, next.ClientID},
		{fieldEnvironment, c.Environment, next.Environment},
		{fieldAuthorityHost, c.AuthorityHost, next.AuthorityHost},
		{fieldGraphEndpoint, c.GraphEndpoint, next.GraphEndpoint},
		{fieldCACertificate, c.CACertificate, next.CACertificate},
	} {
		if f.was != f.is {
			return f.field
		}
	}
	return ""
}

// connectsLike reports whether c reaches Graph in the same way as other, so that
// what was verified of the one holds for the other. A nil c reaches nothing.
func (c *config) connectsLike(other *config) bool {
	return c != nil && c.movedBy(other) == "" && c.Credential == other.Credential && c.GraphAPIVersion == other.GraphAPIVersion
}

// sameApp reports whether c is about the app registration that other is about. A managed
// identity has none.
func (c *config) sameApp(other *config) bool {
	return c.TenantID == other.TenantID && c.ClientID == other.ClientID &&
		(c.Credential.Type == credentialManagedIdentity) == (other.Credential.Type == credentialManagedIdentity)
}

func (c *config) workspace() workspace {
	root := c.GraphEndpoint
	if root == "" {
		root = c.cloud().GraphRoot
	}
	return workspace{TenantID: c.TenantID, GraphRoot: root}
}

// cloud returns the cloud of a configuration that has been validated.
func (c *config) cloud() graph.Cloud {
	cloud, err := graph.CloudNamed(c.Environment)
	if err != nil {
		return graph.Cloud{} // refused by graph.New with a reason
	}
	return cloud
}

func (c *config) graphConfig(logger hclog.Logger, system func() logical.SystemView) graph.Config {
	return graph.Config{
		TenantID:       c.TenantID,
		ClientID:       c.ClientID,
		Credential:     c.Credential.forGraph(c.ClientID, system),
		Cloud:          c.cloud(),
		GraphEndpoint:  c.GraphEndpoint,
		AuthorityHost:  c.AuthorityHost,
		APIVersion:     c.GraphAPIVersion,
		CACertificates: c.CACertificate,
		UserAgent:      "vault-plugin-secrets-mdi/" + strings.TrimPrefix(Version, "v"),
		Logger:         logger,
	}
}

// fields returns what a read of the configuration shows: everything but secrets.
func (c *config) fields() map[string]any {
	data := map[string]any{
		fieldTenantID:           c.TenantID,
		fieldClientID:           c.ClientID,
		fieldEnvironment:        c.Environment,
		fieldGraphEndpoint:      c.GraphEndpoint,
		fieldAuthorityHost:      c.AuthorityHost,
		fieldCACertificate:      c.CACertificate,
		fieldGraphAPIVersion:    c.GraphAPIVersion,
		fieldTTL:                int64(c.TTL.Seconds()),
		fieldMaxKeyAge:          int64(c.MaxKeyAge.Seconds()),
		fieldDriftCheckInterval: int64(c.DriftCheckInterval.Seconds()),
		fieldRegenerateOnRevoke: c.RegenerateOnRevoke,

		fieldRotationPeriod:           int64(c.Schedule.Period.Seconds()),
		fieldRotationSchedule:         c.Schedule.Cron,
		fieldRotationWindow:           int64(c.Schedule.Window.Seconds()),
		fieldDisableAutomatedRotation: c.DisableRotation,
	}
	data[fieldApplicationObjectID] = c.ObjectID
	data[fieldRootRotationPeriod] = int64(c.Root.Period.Seconds())
	c.Credential.fields(data)
	return data
}

// loadConfig returns the stored configuration, nil if there is none.
func loadConfig(ctx context.Context, s logical.Storage) (*config, error) {
	entry, err := s.Get(ctx, configStorageKey)
	if err != nil || entry == nil {
		return nil, err
	}
	cfg := &config{}
	if err := entry.DecodeJSON(cfg); err != nil {
		return nil, fmt.Errorf("decoding the stored configuration: %w", err)
	}
	if cfg.Root.EndsAt.IsZero() { // as earlier versions have stored it
		cfg.Root.EndsAt = cfg.Credential.endsAt()
	}
	return cfg, nil
}

func storeConfig(ctx context.Context, s logical.Storage, cfg *config) error {
	entry, err := logical.StorageEntryJSON(configStorageKey, cfg)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}
