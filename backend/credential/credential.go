// SPDX-License-Identifier: MPL-2.0

// Package credential owns the kinds of credential by which the app signs in, where they
// come from, and the life at Entra of those that the engine makes.
//
// A credential is of exactly one kind and holds nothing that belongs to another. It is
// the writer's own (a client secret or a certificate), or ambient: the plugin's
// environment or Vault provides it, so it must be asked for by name.
//
// The life of a secret or certificate that the engine makes, planned → added → proven →
// current → retiring → removed, is a value: [Life.Next] decides what to do, and
// [Life.Apply] returns what becomes of it. Neither knows a clock, storage, a lock or
// Graph.
//
//	is                  event       becomes
//	-                   Planned     planned, which is stored before Entra hears of it
//	planned             Added       added, with its id (and the secret with its value)
//	planned             NotAdded    -; a secret whose value was lost becomes retiring, if
//	                                its removal has to be repeated
//	planned secret      Requested   planned; another one is planned after it
//	added, planned cert Proven      current; the one before becomes retiring
//	added, planned cert Abandoned   retiring
//	retiring            Removed     -
//	current             Configured  retiring, unless it stays configured
//	added, planned cert Configured  retiring
//	any                 Configured  -, and named to the writer, if it is out of reach:
//	                                another app or host, or a certificate that the
//	                                configured credential cannot remove
//
// It promises that what the engine has made is always on that list or has been named to
// the operator, and that nothing else is ever removed.
package credential

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// The kinds of credential.
const (
	ClientSecret      = "client_secret"
	ClientCertificate = "client_certificate"
	IdentityToken     = "vault_identity_token"
	WorkloadIdentity  = "workload_identity"
	ManagedIdentity   = "managed_identity"
)

// Names of the fields.
const (
	FieldType        = "credential_type"
	FieldSecret      = "client_secret"
	FieldCertificate = "client_certificate"
	FieldAudience    = "identity_token_audience"
	FieldTokenTTL    = "identity_token_ttl"
)

const (
	// defaultAudience is what Entra recommends for federated credentials.
	// https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust
	defaultAudience = "api://AzureADTokenExchange"
	defaultTokenTTL = time.Hour
)

// Credential is how the app signs in.
type Credential struct {
	Type        string `json:"credential_type"`
	Secret      string `json:"client_secret,omitempty"`
	Certificate string `json:"client_certificate,omitempty"`
	// Audience and TokenTTL are of the identity tokens that Vault issues.
	Audience string        `json:"identity_token_audience,omitempty"`
	TokenTTL time.Duration `json:"identity_token_ttl,omitempty"`
}

var kinds = []string{ClientSecret, ClientCertificate, IdentityToken, WorkloadIdentity, ManagedIdentity}

// Fields are the fields of a credential.
func (c *Credential) Fields() []field.Spec {
	return []field.Spec{
		{Name: FieldType, Title: "Credential type", Type: framework.TypeString, Allowed: kinds, Get: func() any { return c.Type }, Description: "How the app signs in. Inferred when the write carries a secret or a certificate; what the environment or Vault provides must be asked for by name."},
		{Name: FieldSecret, Title: "Client secret", At: &c.Secret, For: ClientSecret, Required: true, Secret: true, Check: checkSecret, Description: "A client secret of the app registration: its value, not its ID. Never read back."},
		{Name: FieldCertificate, Title: "Client certificate", At: &c.Certificate, For: ClientCertificate, Required: true, Secret: true, Multiline: true, Check: checkCertificate, Description: "A PEM bundle of the app registration's certificate, its chain if it has one, and its unencrypted RSA private key. Never read back."},
		{Name: FieldAudience, Title: "Identity token audience", At: &c.Audience, For: IdentityToken, Default: defaultAudience, Optional: true, Description: "Audience of the identity tokens that Vault issues for vault_identity_token."},
		{Name: FieldTokenTTL, Title: "Identity token TTL", At: &c.TokenTTL, For: IdentityToken, Default: defaultTokenTTL, Shortest: time.Minute, Optional: true, Description: "How long these tokens are valid."},
	}
}

// Update returns the credential that results from writing the fields of d over c.
// A secret or a certificate implies its type; what the environment or Vault provides
// must be asked for by name. An error is a [*field.Error].
func (c Credential) Update(d *framework.FieldData) (Credential, error) {
	kind, err := c.typeAfter(d)
	if err != nil {
		return c, err
	}
	next := c
	if kind != c.Type {
		next = Credential{Type: kind}
	}
	own := next.Fields()
	for _, spec := range own {
		if spec.For != "" && spec.For != kind && d.Raw[spec.Name] != nil { // of a null there is nothing to remove
			return c, &field.Error{Field: spec.Name, Problem: "belongs to " + FieldType + " " + spec.For + ", and not to " + kind}
		}
	}
	own = slices.DeleteFunc(own, func(spec field.Spec) bool { return spec.For != kind })
	err = cmp.Or(field.Write(own, d, kind != c.Type), field.Missing(own))
	return next, err
}

// typeAfter returns the type of the credential after a write of d.
func (c Credential) typeAfter(d *framework.FieldData) (string, error) {
	secret, certificate := d.Raw[FieldSecret] != nil, d.Raw[FieldCertificate] != nil
	named, _ := d.Raw[FieldType].(string)
	switch {
	case secret && certificate:
		return "", &field.Error{Field: FieldCertificate, Problem: "cannot be combined with " + FieldSecret + ": an app signs in with one of them"}
	case named != "":
		if !slices.Contains(kinds, named) {
			return "", &field.Error{Field: FieldType, Problem: "must be one of " + strings.Join(kinds, ", ")}
		}
		return named, nil
	case secret:
		return ClientSecret, nil
	case certificate:
		return ClientCertificate, nil
	case c.Type == "":
		return "", &field.Error{Field: FieldType, Problem: "a credential is required: " + FieldSecret + ", " + FieldCertificate +
			", or a " + FieldType + " that needs none"}
	default:
		return c.Type, nil
	}
}

// SuppliedBy reports whether a write carries the credential itself, or names one that the
// environment or Vault provides, so that its writer is known to mean it.
func (c Credential) SuppliedBy(d *framework.FieldData) bool {
	if c.Ambient() {
		return d.Raw[FieldType] != nil
	}
	return d.Raw[FieldSecret] != nil || d.Raw[FieldCertificate] != nil
}

// Ambient reports whether the credential is not the writer's own.
func (c Credential) Ambient() bool { return c.Type != ClientSecret && c.Type != ClientCertificate }

// Unsent returns a warning if the write of d carries certificates that do not take part in
// signing in.
func (c Credential) Unsent(d *framework.FieldData) (warning string) {
	if !c.SuppliedBy(d) {
		return ""
	}
	if info, _ := graph.ParseCertificate(c.Certificate); len(info.Unsent) > 0 {
		warning = FieldCertificate + ": Entra does not get these certificates, since they are not in the chain of the one that belongs to the private key: " +
			strings.Join(info.Unsent, ", ") + ". If one should be, add the issuers between them."
	}
	return warning
}

// endsAt returns when the credential ends, or zero if that is not in it.
func (c Credential) endsAt() time.Time {
	// The error may be that it has ended. What is no certificate has no end.
	info, _ := graph.ParseCertificate(c.Certificate)
	return info.NotAfter
}

func checkSecret(text string) (string, error) {
	if uuid.Validate(text) == nil { // with or without hyphens and braces
		return "", errors.New("is a GUID, as the ID of a secret is: write the secret's value, which the portal shows once, when the secret is made")
	}
	return text, nil
}

func checkCertificate(text string) (string, error) {
	_, err := graph.ParseCertificate(text)
	if refused, ok := errors.AsType[*graph.ConfigError](err); ok {
		err = errors.New(refused.Problem)
	}
	return text, err
}
