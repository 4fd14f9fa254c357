// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"fmt"
	"io"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// Credential proves the engine's identity to Entra: a [ClientSecret], a
// [ClientCertificate], a [ClientAssertion] or a [ManagedIdentity]. Each kind has its own
// file.
//
// Printing or encoding a credential never shows its secret.
type Credential interface {
	// tokenSource returns a source that has not signed in yet. Its errors concern only
	// the credential and quote none of it.
	tokenSource(cfg *Config, client *http.Client) (tokenSource, error)
}

// ClientSecret is a client secret's value (not its id).
type ClientSecret string

const redacted = "[redacted]"

// redact implements Format for secrets: package fmt prefers Format to every other way
// of printing a value, %#v included.
func redact(f fmt.State) {
	// Format cannot report an error.
	_, _ = io.WriteString(f, redacted)
}

// Format implements fmt.Formatter.
func (ClientSecret) Format(f fmt.State, _ rune) { redact(f) }

// String is for direct callers; package fmt uses Format.
func (ClientSecret) String() string { return redacted }

// MarshalText keeps the secret out of JSON, structured logs included.
func (ClientSecret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (s ClientSecret) tokenSource(cfg *Config, client *http.Client) (tokenSource, error) {
	if s == "" {
		return nil, &ConfigError{"client_secret", "is missing"}
	}
	cred, err := confidential.NewCredFromSecret(string(s))
	if err != nil {
		return nil, &ConfigError{"client_secret", "is not accepted by the sign-in library"}
	}
	return newConfidentialSource(cfg, cred, client)
}
