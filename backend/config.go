// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-mdi/backend/graph"
)

const (
	configStorageKey = "config"

	credentialTypeClientSecret = "client_secret"

	defaultTTL                = time.Hour
	defaultDriftCheckInterval = 10 * time.Minute
	// maxDuration is far beyond any use of a key that is needed for one
	// installation; what exceeds it is a mistake in the unit.
	maxDuration = 366 * 24 * time.Hour
)

// config is the stored configuration. The values are the effective ones: defaults
// are filled in when it is written.
type config struct {
	TenantID           string        `json:"tenant_id"`
	ClientID           string        `json:"client_id"`
	CredentialType     string        `json:"credential_type"`
	ClientSecret       string        `json:"client_secret"`
	Environment        string        `json:"environment"`
	GraphEndpoint      string        `json:"graph_endpoint"`
	AuthorityHost      string        `json:"authority_host"`
	CACertificate      string        `json:"ca_certificate"`
	GraphAPIVersion    string        `json:"graph_api_version"`
	TTL                time.Duration `json:"ttl"`
	MaxKeyAge          time.Duration `json:"max_key_age"`
	DriftCheckInterval time.Duration `json:"drift_check_interval"`
	RegenerateOnRevoke bool          `json:"regenerate_on_revoke"`
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
func (c *config) update(d *framework.FieldData) (*config, error) {
	old := &config{}
	if c != nil {
		old = c
	}
	next := *old
	if c == nil {
		next.CredentialType = credentialTypeClientSecret
	}
	setters := []struct {
		field string
		set   func(value any) error
	}{
		{fieldTenantID, guidInto(&next.TenantID)},
		{fieldClientID, guidInto(&next.ClientID)},
		{fieldCredentialType, next.setCredentialType},
		{fieldClientSecret, next.setClientSecret},
		{fieldEnvironment, next.setEnvironment},
		{fieldGraphEndpoint, rootInto(&next.GraphEndpoint)},
		{fieldAuthorityHost, rootInto(&next.AuthorityHost)},
		{fieldCACertificate, next.setCACertificate},
		{fieldGraphAPIVersion, next.setGraphAPIVersion},
		{fieldTTL, durationInto(&next.TTL, time.Second)},
		{fieldMaxKeyAge, durationInto(&next.MaxKeyAge, 0)},
		{fieldDriftCheckInterval, durationInto(&next.DriftCheckInterval, 0)},
		{fieldRegenerateOnRevoke, func(v any) error { next.RegenerateOnRevoke = v.(bool); return nil }},
	}
	for _, s := range setters {
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
	if err := next.complete(); err != nil {
		return nil, err
	}
	_, credentialGiven := d.Raw[fieldClientSecret]
	if field := old.movedBy(&next); c != nil && field != "" && !credentialGiven {
		return nil, &fieldError{field: field, problem: "changing it needs " + fieldClientSecret +
			" in the same write, so that nobody can have a stored credential sent elsewhere"}
	}
	return &next, nil
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
	for _, f := range []struct{ field, value string }{
		{fieldTenantID, c.TenantID},
		{fieldClientID, c.ClientID},
		{fieldClientSecret, c.ClientSecret},
	} {
		if f.value == "" {
			return &fieldError{field: f.field, problem: "is required"}
		}
	}
	return nil
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
// what was verified of the one holds for the other.
func (c *config) connectsLike(other *config) bool {
	return c.movedBy(other) == "" && c.ClientSecret == other.ClientSecret && c.GraphAPIVersion == other.GraphAPIVersion
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

func (c *config) graphConfig(logger hclog.Logger) graph.Config {
	return graph.Config{
		TenantID:       c.TenantID,
		ClientID:       c.ClientID,
		Credential:     graph.ClientSecret(c.ClientSecret),
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
	return map[string]any{
		fieldTenantID:           c.TenantID,
		fieldClientID:           c.ClientID,
		fieldCredentialType:     c.CredentialType,
		fieldEnvironment:        c.Environment,
		fieldGraphEndpoint:      c.GraphEndpoint,
		fieldAuthorityHost:      c.AuthorityHost,
		fieldCACertificate:      c.CACertificate,
		fieldGraphAPIVersion:    c.GraphAPIVersion,
		fieldTTL:                int64(c.TTL.Seconds()),
		fieldMaxKeyAge:          int64(c.MaxKeyAge.Seconds()),
		fieldDriftCheckInterval: int64(c.DriftCheckInterval.Seconds()),
		fieldRegenerateOnRevoke: c.RegenerateOnRevoke,
	}
}

var guidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func guidInto(target *string) func(any) error {
	return func(value any) error {
		id := strings.ToLower(strings.TrimSpace(value.(string)))
		if !guidPattern.MatchString(id) {
			return fmt.Errorf("must be a GUID such as 00000000-0000-0000-0000-000000000000, as the app registration's overview shows it")
		}
		*target = id
		return nil
	}
}

// rootInto takes the root of an https endpoint: a scheme and a host, nothing that
// could redirect a path or carry a credential.
func rootInto(target *string) func(any) error {
	return func(value any) error {
		text := strings.TrimRight(strings.TrimSpace(value.(string)), "/")
		if text == "" {
			*target = ""
			return nil
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) {
			return fmt.Errorf("must be the root of an https endpoint such as https://graph.example.com, without path, query or user")
		}
		*target = text
		return nil
	}
}

func (c *config) setCredentialType(value any) error {
	if value != credentialTypeClientSecret {
		return fmt.Errorf("must be %s", credentialTypeClientSecret)
	}
	c.CredentialType = credentialTypeClientSecret
	return nil
}

func (c *config) setClientSecret(value any) error {
	// A secret read from a file tends to end in a newline, which no secret of
	// Entra's contains.
	secret := strings.TrimSpace(value.(string))
	if secret == "" {
		return fmt.Errorf("must not be empty")
	}
	c.ClientSecret = secret
	return nil
}

func (c *config) setEnvironment(value any) error {
	cloud, err := graph.CloudNamed(value.(string))
	if err != nil {
		return err
	}
	c.Environment = cloud.Name
	return nil
}

func (c *config) setCACertificate(value any) error {
	text := strings.TrimSpace(value.(string))
	for rest := []byte(text); len(rest) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("must be one or more PEM blocks of type CERTIFICATE")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("holds a PEM block that is not an X.509 certificate")
		}
	}
	c.CACertificate = text
	return nil
}

func (c *config) setGraphAPIVersion(value any) error {
	switch version := value.(string); version {
	case graph.Beta, graph.V1:
		c.GraphAPIVersion = version
		return nil
	default:
		return fmt.Errorf("must be %s or %s", graph.Beta, graph.V1)
	}
}

// durationInto takes a duration of at least shortest.
func durationInto(target *time.Duration, shortest time.Duration) func(any) error {
	return func(value any) error {
		seconds := value.(int)
		if seconds < int(shortest.Seconds()) || seconds > int(maxDuration.Seconds()) {
			return fmt.Errorf("must be between %s and %dh", shortest, int(maxDuration.Hours()))
		}
		*target = time.Duration(seconds) * time.Second
		return nil
	}
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
	return cfg, nil
}

func storeConfig(ctx context.Context, s logical.Storage, cfg *config) error {
	entry, err := logical.StorageEntryJSON(configStorageKey, cfg)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}
