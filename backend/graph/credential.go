// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"fmt"
	"io"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// Credential is what the engine proves its identity with: a [ClientSecret], a
// [ClientCertificate], a [ClientAssertion] or a [ManagedIdentity]. What a kind
// needs beyond this interface stays in its file.
//
// However a credential is printed or encoded, nothing secret of it shows.
type Credential interface {
	// tokenSource returns a source that has not signed in yet. Its errors
	// concern the credential alone and show nothing of it.
	tokenSource(cfg *Config, client *http.Client) (tokenSource, error)
}

// ClientSecret is a client secret's value (not its id).
type ClientSecret string

const redacted = "[redacted]"

// redact is the Format of what must not show: package fmt prefers it to every
// other way of printing a value, %#v included.
func redact(f fmt.State) {
	// A fmt.State has nowhere to fail to, and Format nowhere to report it.
	_, _ = io.WriteString(f, redacted)
}

// Format implements fmt.Formatter.
func (ClientSecret) Format(f fmt.State, _ rune) { redact(f) }

// String is for those who call it directly.
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
