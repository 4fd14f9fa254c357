// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// The kinds of credential.
const (
	credentialClientSecret      = "client_secret"
	credentialClientCertificate = "client_certificate"
	credentialIdentityToken     = "vault_identity_token"
	credentialWorkloadIdentity  = "workload_identity"
	credentialManagedIdentity   = "managed_identity"
)

const (
	// defaultIdentityTokenAudience is what Entra recommends for federated
	// credentials.
	// https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust
	defaultIdentityTokenAudience = "api://AzureADTokenExchange" //nolint:gosec // a name, and no token
	defaultIdentityTokenTTL      = time.Hour
)

func credentialTypes() []string {
	return []string{
		credentialClientSecret, credentialClientCertificate, credentialIdentityToken,
		credentialWorkloadIdentity, credentialManagedIdentity,
	}
}

// credential is how the app signs in. It is of exactly one type, and holds nothing
// that belongs to another.
type credential struct {
	Type        string `json:"credential_type"`
	Secret      string `json:"client_secret,omitempty"`
	Certificate string `json:"client_certificate,omitempty"`
	// Audience and TokenTTL are of the identity tokens that Vault issues.
	Audience string        `json:"identity_token_audience,omitempty"`
	TokenTTL time.Duration `json:"identity_token_ttl,omitempty"`
}

// credentialFields names the fields that belong to one type each.
var credentialFields = map[string]string{
	fieldClientSecret:          credentialClientSecret,
	fieldClientCertificate:     credentialClientCertificate,
	fieldIdentityTokenAudience: credentialIdentityToken,
	fieldIdentityTokenTTL:      credentialIdentityToken,
}

// update returns the credential that results from writing the fields of d over c.
// A secret or a certificate implies its type; what the environment or Vault provides
// must be asked for by name. An error is a *fieldError.
func (c credential) update(d *framework.FieldData) (credential, error) {
	kind, err := c.typeAfter(d)
	if err != nil {
		return c, err
	}
	next := c
	if kind != c.Type {
		next = credential{Type: kind}
		if kind == credentialIdentityToken {
			next.Audience, next.TokenTTL = defaultIdentityTokenAudience, defaultIdentityTokenTTL
		}
	}
	setters := []setter{
		{fieldClientSecret, next.setSecret},
		{fieldClientCertificate, next.setCertificate},
		{fieldIdentityTokenAudience, next.setAudience},
		{fieldIdentityTokenTTL, durationInto(&next.TokenTTL, time.Minute)},
	}
	for _, s := range setters {
		raw, given := d.Raw[s.field]
		if !given {
			continue
		}
		if belongsTo := credentialFields[s.field]; belongsTo != kind {
			if raw == nil {
				continue // nothing to remove
			}
			return c, &fieldError{field: s.field, problem: "belongs to " + fieldCredentialType + " " + belongsTo + ", and not to " + kind}
		}
		value, _ := givenValue(d, s.field)
		if err := s.set(value); err != nil {
			return c, &fieldError{field: s.field, problem: err.Error()}
		}
	}
	return next, next.complete()
}

// typeAfter returns the type of the credential after a write of d.
func (c credential) typeAfter(d *framework.FieldData) (string, error) {
	secret, certificate := d.Raw[fieldClientSecret] != nil, d.Raw[fieldClientCertificate] != nil
	named, _ := d.Raw[fieldCredentialType].(string)
	switch {
	case secret && certificate:
		return "", &fieldError{field: fieldClientCertificate, problem: "cannot be combined with " + fieldClientSecret + ": an app signs in with one of them"}
	case named != "":
		if !slices.Contains(credentialTypes(), named) {
			return "", &fieldError{field: fieldCredentialType, problem: "must be one of " + strings.Join(credentialTypes(), ", ")}
		}
		return named, nil
	case secret:
		return credentialClientSecret, nil
	case certificate:
		return credentialClientCertificate, nil
	case c.Type == "":
		return "", &fieldError{field: fieldCredentialType, problem: "a credential is required: " + fieldClientSecret + ", " + fieldClientCertificate +
			", or a " + fieldCredentialType + " that needs none"}
	default:
		return c.Type, nil
	}
}

// complete reports what a credential of its type cannot do without.
func (c credential) complete() error {
	switch {
	case c.Type == credentialClientSecret && c.Secret == "":
		return &fieldError{field: fieldClientSecret, problem: "is required"}
	case c.Type == credentialClientCertificate && c.Certificate == "":
		return &fieldError{field: fieldClientCertificate, problem: "is required"}
	default:
		return nil
	}
}

// presented tells whether a write carries the credential itself, or names one that
// the environment or Vault provides, so that who writes is known to mean it.
func (c credential) presented(d *framework.FieldData) bool {
	switch c.Type {
	case credentialClientSecret:
		return d.Raw[fieldClientSecret] != nil
	case credentialClientCertificate:
		return d.Raw[fieldClientCertificate] != nil
	default:
		return d.Raw[fieldCredentialType] != nil
	}
}

// ambient tells whether the credential is not the writer's own: it comes from the
// plugin's surroundings.
func (c credential) ambient() bool {
	return c.Type != credentialClientSecret && c.Type != credentialClientCertificate
}

// endsAt returns when the credential ends, or zero if it does not tell.
func (c credential) endsAt() time.Time {
	if c.Type != credentialClientCertificate {
		return time.Time{}
	}
	// An error may be that it has ended. What cannot be parsed has no end.
	info, _ := graph.ParseCertificate(c.Certificate)
	return info.NotAfter
}

// fields adds to the answer to a read what is no secret.
func (c credential) fields(data map[string]any) {
	data[fieldCredentialType] = c.Type
	if c.Type == credentialIdentityToken {
		data[fieldIdentityTokenAudience] = c.Audience
		data[fieldIdentityTokenTTL] = int64(c.TokenTTL.Seconds())
	}
}

func (c *credential) setSecret(value any) error {
	// A secret read from a file tends to end in a newline, which no secret of
	// Entra's contains.
	secret := strings.TrimSpace(value.(string))
	if secret == "" {
		return fmt.Errorf("must not be empty")
	}
	c.Secret = secret
	return nil
}

func (c *credential) setCertificate(value any) error {
	pem := strings.TrimSpace(value.(string))
	if _, err := graph.ParseCertificate(pem); err != nil {
		if refused, ok := errors.AsType[*graph.ConfigError](err); ok {
			return errors.New(refused.Problem)
		}
		return err
	}
	c.Certificate = pem
	return nil
}

func (c *credential) setAudience(value any) error {
	audience := strings.TrimSpace(value.(string))
	if audience == "" {
		audience = defaultIdentityTokenAudience
	}
	c.Audience = audience
	return nil
}
